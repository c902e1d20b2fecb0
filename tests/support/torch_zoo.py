"""Modules for weights that others trained, as their users would write them: each name fills one published file.

Given to edgec as `--factory tests/support/torch_zoo.py:NAME`, so it imports nothing but torch.
"""

from __future__ import annotations

import functools
import os

import torch
from torch import Tensor, nn
from torch.nn import functional


class _FaceNet(nn.Module):
    """The plain part of MTCNN's nets: convolutions with PReLU, some followed by pooling (size, stride 2)."""

    def __init__(self, channels: tuple[int, ...], kernels: tuple[int, ...], pools: tuple[int, ...]) -> None:
        super().__init__()
        self.pools = pools
        for number, (cin, cout, kernel) in enumerate(zip((3, *channels), channels, kernels, strict=False), 1):
            self.add_module(f"conv{number}", nn.Conv2d(cin, cout, kernel))
            self.add_module(f"prelu{number}", nn.PReLU(cout))

    def trunk(self, x: Tensor) -> Tensor:
        for number, pool in enumerate(self.pools, 1):
            x = self.get_submodule(f"prelu{number}")(self.get_submodule(f"conv{number}")(x))
            if pool:
                x = functional.max_pool2d(x, pool, 2, ceil_mode=True)
        return x


class PNet(_FaceNet):
    """MTCNN's first net: where faces may be, fully convolutional."""

    def __init__(self) -> None:
        super().__init__((10, 16, 32), (3, 3, 3), (2, 0, 0))
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        return {"boxes": self.conv4_2(x), "faces": self.conv4_1(x).softmax(1)}


class RNet(_FaceNet):
    """MTCNN's second net, for 24 x 24 crops."""

    def __init__(self) -> None:
        super().__init__((28, 48, 64), (3, 3, 2), (3, 3, 0))
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        # The weights come from Caffe, whose matrices are stored by columns.
        x = self.prelu4(self.dense4(self.trunk(x).permute(0, 3, 2, 1).flatten(1)))
        return {"boxes": self.dense5_2(x), "faces": self.dense5_1(x).softmax(1)}


class ONet(_FaceNet):
    """MTCNN's third net, for 48 x 48 crops: faces, boxes and five landmarks."""

    def __init__(self) -> None:
        super().__init__((32, 64, 64, 128), (3, 3, 3, 2), (3, 3, 2, 0))
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.prelu5(self.dense5(self.trunk(x).permute(0, 3, 2, 1).flatten(1)))
        return {"boxes": self.dense6_2(x), "points": self.dense6_3(x), "faces": self.dense6_1(x).softmax(1)}


class SpeakerEncoder(nn.Module):
    """Resemblyzer's net: three LSTM layers over 160 mel frames, and a normalised embedding of the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        raw = self.linear(hidden[-1]).relu()
        return raw / raw.norm(dim=1, keepdim=True)


class Crepe(nn.Module):
    """CREPE: the pitch of 1024 samples of sound, as 360 bins."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        for number, (cin, cout) in enumerate(zip((1, *channels), channels, strict=False), 1):
            first = number == 1
            conv = nn.Conv2d(cin, cout, (512, 1) if first else (64, 1), (4, 1) if first else 1)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(cout, eps=0.001))
        self.classifier = nn.Linear(channels[-1] * 4, 360)

    def forward(self, sound: Tensor) -> Tensor:
        x = sound[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = self.get_submodule(f"conv{number}_BN")(self.get_submodule(f"conv{number}")(x).relu())
            x = functional.max_pool2d(x, (2, 1), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


class _BasicBlock(nn.Module):
    """ResNet's block for CIFAR: the shortcut is every second pixel, with zeros for the new channels."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.stride, self.grow = cout // cin, cout - cin
        self.conv1 = nn.Conv2d(cin, cout, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grow:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.grow // 2, self.grow // 2))
        return (x + y).relu()


class Resnet20(nn.Module):
    """He et al. 2016 for CIFAR-10."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for number, (cin, cout) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [_BasicBlock(cin, cout), _BasicBlock(cout, cout), _BasicBlock(cout, cout)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.bn1(self.conv1(image)).relu()
        for number in (1, 2, 3):
            x = self.get_submodule(f"layer{number}")(x)
        return {"logits": self.linear(x.mean((2, 3)))}


def _separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
        nn.BatchNorm2d(cin),
        nn.ReLU(),
        nn.Conv2d(cin, cout, 1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(),
    )


def _plain_separable(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cin, 3, stride, 1, groups=cin), nn.ReLU(), nn.Conv2d(cin, cout, 1))


class UlfgSlim(nn.Module):
    """The slim face detector for 240 x 320, without its post-processing: four scales, 4420 priors."""

    #: Channels and strides after the first convolution; a scale's heads follow layers 7, 10 and 12.
    CHANNELS = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256)
    STRIDES = (1, 2, 1, 2, 1, 1, 1, 2, 1, 1, 2, 1)
    TAPS = (7, 10, 12)

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())]
        cin = 16
        for cout, stride in zip(self.CHANNELS, self.STRIDES, strict=True):
            layers.append(_separable(cin, cout, stride))
            cin = cout
        self.base_net = nn.ModuleList(layers)
        self.extras = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(256, 64, 1), nn.ReLU(), _plain_separable(64, 256, 2), nn.ReLU())]
        )
        self.classification_headers = self._heads(2)
        self.regression_headers = self._heads(4)

    @staticmethod
    def _heads(values: int) -> nn.ModuleList:
        scales = ((64, 3), (128, 2), (256, 2))
        heads: list[nn.Module] = [_plain_separable(channels, priors * values) for channels, priors in scales]
        return nn.ModuleList([*heads, nn.Conv2d(256, 3 * values, 3, 1, 1)])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x, scales = image, []
        for index, layer in enumerate(self.base_net):
            x = layer(x)
            if index in self.TAPS:
                scales.append(x)
        scales.append(self.extras[0](x))
        scores = [h(s).permute(0, 2, 3, 1).flatten(1) for h, s in zip(self.classification_headers, scales, strict=True)]
        boxes = [h(s).permute(0, 2, 3, 1).flatten(1) for h, s in zip(self.regression_headers, scales, strict=True)]
        return {
            "scores": torch.cat(scores, 1).unflatten(1, (-1, 2)).softmax(2),
            "boxes": torch.cat(boxes, 1).unflatten(1, (-1, 4)),
        }


def efficientnet_lite0() -> nn.Module:
    """From the package efficientnet-lite-pytorch, which must be on the path."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    return model


pnet, rnet, onet, speaker_encoder, resnet20, ulfg_slim = PNet, RNet, ONet, SpeakerEncoder, Resnet20, UlfgSlim
crepe_tiny = functools.partial(Crepe, (128, 16, 16, 16, 32, 64))
crepe_full = functools.partial(Crepe, (1024, 128, 128, 128, 256, 512))


def silero_step() -> torch.jit.ScriptModule:
    """One step of silero-vad at 16 kHz: the part of its TorchScript that computes, its state as input and output.

    The file's own module keeps the state in attributes. Its place is in $SILERO_JIT.
    """
    module: torch.jit.ScriptModule = torch.jit.load(os.environ["SILERO_JIT"])._model
    return module
