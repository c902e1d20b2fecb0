"""MobileNetV2, MobileNetV3-small and ViT-tiny in plain torch, with weights that behave like trained ones.

Nothing is downloaded: weights are drawn from a seed, then a few forward passes in train mode over structured
noise give the BatchNorms statistics that fit, so that no activation vanishes or explodes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import nn


def _divisible(value: float, by: int = 8) -> int:
    """The nearest multiple of `by` that is not more than 10 % below `value` (MobileNet channel rule)."""
    rounded = max(by, int(value + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * value else rounded


class ConvNorm(nn.Sequential):
    """Convolution, BatchNorm and, where given, an activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU6,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(cout),
        ]
        if act is not None:
            layers.append(act())
        super().__init__(*layers)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand, depthwise, project, with a skip where shapes allow."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = cin * expand
        layers: list[nn.Module] = [] if expand == 1 else [ConvNorm(cin, hidden, 1)]
        layers += [ConvNorm(hidden, hidden, 3, stride, hidden), ConvNorm(hidden, cout, 1, act=None)]
        self.conv = nn.Sequential(*layers)
        self.skip = stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, width 1.0, 1000 classes."""

    #: expansion, channels, repeats, stride of the first
    ROWS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        cin = 32
        for expand, cout, repeats, stride in self.ROWS:
            for index in range(repeats):
                layers.append(InvertedResidual(cin, cout, stride if index == 0 else 1, expand))
                cin = cout
        layers.append(ConvNorm(cin, 1280, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class SqueezeExcite(nn.Module):
    """Channel attention with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _divisible(channels / 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(self.pool(x)))))


class MobileBlockV3(nn.Module):
    """MobileNetV3's block."""

    def __init__(self, cin: int, kernel: int, hidden: int, cout: int, squeeze: bool, hard: bool, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        layers: list[nn.Module] = [] if hidden == cin else [ConvNorm(cin, hidden, 1, act=act)]
        layers.append(ConvNorm(hidden, hidden, kernel, stride, hidden, act=act))
        if squeeze:
            layers.append(SqueezeExcite(hidden))
        layers.append(ConvNorm(hidden, cout, 1, act=None))
        self.block = nn.Sequential(*layers)
        self.skip = stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.skip else self.block(x)


class MobileNetV3Small(nn.Module):
    """Howard et al. 2019, the small variant, 1000 classes."""

    #: kernel, hidden, channels, squeeze-excite, hard-swish, stride
    ROWS = (
        (3, 16, 16, True, False, 2),
        (3, 72, 24, False, False, 2),
        (3, 88, 24, False, False, 1),
        (5, 96, 40, True, True, 2),
        (5, 240, 40, True, True, 1),
        (5, 240, 40, True, True, 1),
        (5, 120, 48, True, True, 1),
        (5, 144, 48, True, True, 1),
        (5, 288, 96, True, True, 2),
        (5, 576, 96, True, True, 1),
        (5, 576, 96, True, True, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, act=nn.Hardswish)]
        cin = 16
        for kernel, hidden, cout, squeeze, hard, stride in self.ROWS:
            layers.append(MobileBlockV3(cin, kernel, hidden, cout, squeeze, hard, stride))
            cin = cout
        layers.append(ConvNorm(cin, 576, 1, act=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(576, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Attention(nn.Module):
    """Multi-head self-attention, written out."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VitTiny(nn.Module):
    """Vision transformer, tiny, patch 16, 224 x 224, 1000 classes."""

    def __init__(self, dim: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.5)
        self.position = nn.Parameter(torch.randn(1, 197, dim) * 0.3)
        self.blocks = nn.Sequential(*(EncoderBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def image_like(count: int, size: int, seed: int) -> torch.Tensor:
    """Normalised NCHW noise with the 1/f spectrum of photographs, each image of its own contrast and tint."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, size, size)
    cells = 2
    while cells <= size:
        noise = torch.randn(count, 3, cells, cells, generator=generator) * (2 / cells) ** 0.5
        images += nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
        cells *= 2
    contrast = torch.exp(0.5 * torch.randn(count, 1, 1, 1, generator=generator))
    tint = 0.6 * torch.randn(count, 3, 1, 1, generator=generator)
    return images / images.std() * contrast + tint


@torch.no_grad()
def _settle(model: nn.Module, seed: int) -> nn.Module:
    """Draw weights from the seed and let BatchNorm statistics meet them; leaves the model in eval mode."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(1 / module.in_features))
            nn.init.normal_(module.bias, std=0.05)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 0.4
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.1)
    # Residual branches start small, as the usual training recipes leave them.
    for block in model.modules():
        if getattr(block, "skip", False):
            last_norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
            last_norm.weight *= 0.3
            last_norm.bias *= 0.3
        elif isinstance(block, EncoderBlock):  # GPT-2's rule: residual products by 1/sqrt(their number)
            block.attention.proj.weight *= 24**-0.5
            block.mlp[2].weight *= 24**-0.5
    model.train()
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        for step in range(4):
            model(image_like(8, 224, seed + 1 + step))
    model.eval()
    return model


#: Model name → its class; all take float32 [1, 3, 224, 224] and give [1, 1000].
MODELS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": MobileNetV3Small,
    "vit_tiny": VitTiny,
}


@functools.cache
def torch_model(name: str) -> nn.Module:
    """The named model in eval mode; the same weights in every process."""
    torch.manual_seed(0)
    return _settle(MODELS[name](), seed=len(name))
