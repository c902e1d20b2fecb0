"""Nets of the benchmark that the tests have no use for, in plain torch with weights drawn from a seed.

Shapes and operators are those of the published nets; nothing is downloaded and nothing is trained. Imports
nothing but torch and the test nets, so that a peer's own environment can build the same modules.
"""

# mypy: disable-error-code="no-any-return"
# (calling a module gives Any in torch's types)
# ruff: noqa: D102  # forward is what torch calls it
from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.support.torch_models import ConvNorm, EncoderBlock, InvertedResidual, image_like


class BasicBlock(nn.Module):
    """ResNet's block of two 3 x 3 convolutions."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(cin, cout, 3, stride, act=nn.ReLU)
        self.second = ConvNorm(cout, cout, 3, act=None)
        self.shortcut = nn.Identity() if stride == 1 and cin == cout else ConvNorm(cin, cout, 1, stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al. 2015, 224 x 224, 1000 classes."""

    #: channels in, channels out, stride
    ROWS = (
        (64, 64, 1),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 512, 2),
        (512, 512, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 64, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(*(BasicBlock(*row) for row in self.ROWS))
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


def _silu(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> ConvNorm:
    return ConvNorm(cin, cout, kernel, stride, act=nn.SiLU)


class Bottleneck(nn.Module):
    """Two 3 x 3 convolutions with a skip where asked for."""

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        self.first, self.second, self.skip = _silu(channels, channels, 3), _silu(channels, channels, 3), skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        return x + y if self.skip else y


class C2f(nn.Module):
    """YOLOv8's split-and-concatenate block."""

    def __init__(self, cin: int, cout: int, repeats: int, skip: bool) -> None:
        super().__init__()
        hidden = cout // 2
        self.enter, self.leave = _silu(cin, cout), _silu((2 + repeats) * hidden, cout)
        self.blocks = nn.ModuleList(Bottleneck(hidden, skip) for _ in range(repeats))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class PoolPyramid(nn.Module):
    """YOLO's SPPF: one pooling applied three times, everything concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = _silu(channels, channels // 2), _silu(channels * 2, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class DetectHead(nn.Module):
    """YOLOv8's head: boxes as distributions over 16 bins (DFL), 80 classes, decoded to pixels."""

    BINS, CLASSES = 16, 80
    points: torch.Tensor
    strides: torch.Tensor

    def __init__(self, channels: tuple[int, ...], side: int) -> None:
        super().__init__()
        boxes, scores = max(16, channels[0] // 4, 4 * self.BINS), max(channels[0], self.CLASSES)
        self.boxes = nn.ModuleList(
            nn.Sequential(_silu(c, boxes, 3), _silu(boxes, boxes, 3), nn.Conv2d(boxes, 4 * self.BINS, 1))
            for c in channels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(_silu(c, scores, 3), _silu(scores, scores, 3), nn.Conv2d(scores, self.CLASSES, 1))
            for c in channels
        )
        self.integral = nn.Conv2d(self.BINS, 1, 1, bias=False)
        points, strides = [], []
        for stride in (8, 16, 32):
            axis = torch.arange(side // stride) + 0.5
            rows, columns = torch.meshgrid(axis, axis, indexing="ij")
            points.append(torch.stack((columns, rows), -1).reshape(-1, 2))
            strides.append(torch.full((points[-1].shape[0], 1), float(stride)))
        self.register_buffer("points", torch.cat(points).T[None])
        self.register_buffer("strides", torch.cat(strides).T)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        width = 4 * self.BINS + self.CLASSES
        maps = [torch.cat((b(f), s(f)), 1) for b, s, f in zip(self.boxes, self.scores, features, strict=True)]
        flat = torch.cat([m.view(m.shape[0], width, -1) for m in maps], 2)
        boxes, scores = flat.split((4 * self.BINS, self.CLASSES), 1)
        batch, _, count = boxes.shape
        bins = boxes.view(batch, 4, self.BINS, count).transpose(2, 1).softmax(1)
        near, far = self.integral(bins).view(batch, 4, count).chunk(2, 1)
        low, high = self.points - near, self.points + far
        return torch.cat((torch.cat(((low + high) / 2, high - low), 1) * self.strides, scores.sigmoid()), 1)


class YoloV8Nano(nn.Module):
    """The graph of YOLOv8n at 320 x 320: backbone, path aggregation, DFL head."""

    def __init__(self, side: int = 320) -> None:
        super().__init__()
        self.stem = nn.Sequential(_silu(3, 16, 3, 2), _silu(16, 32, 3, 2), C2f(32, 32, 1, True))
        self.third = nn.Sequential(_silu(32, 64, 3, 2), C2f(64, 64, 2, True))
        self.fourth = nn.Sequential(_silu(64, 128, 3, 2), C2f(128, 128, 2, True))
        self.fifth = nn.Sequential(_silu(128, 256, 3, 2), C2f(256, 256, 1, True), PoolPyramid(256))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.up4, self.up3 = C2f(384, 128, 1, False), C2f(192, 64, 1, False)
        self.down3, self.mix4 = _silu(64, 64, 3, 2), C2f(192, 128, 1, False)
        self.down4, self.mix5 = _silu(128, 128, 3, 2), C2f(384, 256, 1, False)
        self.head = DetectHead((64, 128, 256), side)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        middle = self.up4(torch.cat((self.up(fifth), fourth), 1))
        small = self.up3(torch.cat((self.up(middle), third), 1))
        middle = self.mix4(torch.cat((self.down3(small), middle), 1))
        large = self.mix5(torch.cat((self.down4(middle), fifth), 1))
        return self.head([small, middle, large])


class LiteSegmenter(nn.Module):
    """MobileNetV2 with the LR-ASPP head of MobileNetV3, 256 x 256, 21 classes at full resolution."""

    ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))

    def __init__(self, classes: int = 21) -> None:
        super().__init__()
        blocks: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
        cin = 32
        for expand, cout, repeats, stride in self.ROWS:
            for index in range(repeats):
                blocks.append(InvertedResidual(cin, cout, stride if index == 0 else 1, expand))
                cin = cout
        self.low, self.high = nn.Sequential(*blocks[:7]), nn.Sequential(*blocks[7:])
        self.project = ConvNorm(96, 128, 1, act=nn.ReLU)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(96, 128, 1, bias=False), nn.Sigmoid())
        self.low_classes, self.high_classes = nn.Conv2d(32, classes, 1), nn.Conv2d(128, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low(x)
        high = self.high(low)
        gated = self.project(high) * self.gate(high)
        gated = functional.interpolate(gated, size=low.shape[-2:], mode="bilinear", align_corners=False)
        classes = self.low_classes(low) + self.high_classes(gated)
        return functional.interpolate(classes, size=x.shape[-2:], mode="bilinear", align_corners=False)


class LstmNet(nn.Module):
    """Two bidirectional LSTM layers over 40 frames, then classes a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(40, 96, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(192, 30)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0])


class GruNet(nn.Module):
    """One GRU layer over 50 frames, classes from the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.GRU(20, 64, batch_first=True)
        self.head = nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0][:, -1])


class BertBlock(nn.Module):
    """BERT's post-norm block with separate projections and an attention mask."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out, self.norm1, self.norm2 = nn.Linear(dim, dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 4), nn.GELU(), nn.Linear(dim * 4, dim))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        shape = (batch, tokens, self.heads, dim // self.heads)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(dim // self.heads) + mask).softmax(-1)
        x = self.norm1(x + self.out((weights @ v).transpose(1, 2).reshape(batch, tokens, dim)))
        return self.norm2(x + self.mlp(x))


class SentenceEncoder(nn.Module):
    """The graph of MiniLM-L6: 6 BERT layers of 384, mean over the tokens that the mask keeps, unit length."""

    def __init__(self, vocabulary: int = 4000, dim: int = 384, tokens: int = 128) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(vocabulary, dim), nn.Parameter(torch.randn(dim) * 0.1)
        self.positions, self.norm = nn.Parameter(torch.randn(1, tokens, dim) * 0.3), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(BertBlock(dim, 12) for _ in range(6))

    def forward(self, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        mask = keep.to(torch.float32)
        x = self.norm(self.words(ids) + self.positions + self.kinds)
        for block in self.blocks:
            x = block(x, (1.0 - mask)[:, None, None, :] * -10000.0)
        weights = mask[:, :, None]
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return functional.normalize(mean, dim=1)


class SpeechEncoder(nn.Module):
    """The graph of Whisper-tiny's encoder: two 1-D convolutions, 4 blocks of 384 over 1500 frames."""

    def __init__(self, dim: int = 384, frames: int = 3000) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(80, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.randn(frames // 2, dim) * 0.3)
        self.blocks, self.norm = nn.Sequential(*(EncoderBlock(dim, 6) for _ in range(4))), nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.second(functional.gelu(self.first(x))))
        return self.norm(self.blocks(x.transpose(1, 2) + self.positions))


@torch.no_grad()
def settle(model: nn.Module, side: int | None, seed: int = 1) -> nn.Module:
    """Weights from the seed; nets with BatchNorm see a few images of `side` so that their statistics fit."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=math.sqrt(1 / module.in_features))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.6, 1.4)
            nn.init.normal_(module.bias, std=0.3)
            module.momentum = 0.4
    for module in model.modules():
        if isinstance(module, DetectHead):
            module.integral.weight.copy_(torch.arange(module.BINS, dtype=torch.float32).reshape(1, -1, 1, 1))
    if side is not None:
        model.train()
        for step in range(3):
            model(image_like(2, side, seed + step))
    return model.eval()
