"""Small nets with what real ones are made of, saved in every format that torch has, and what each of them answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgec.tensors import Array


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)) + x)


class Convolutions(nn.Module):
    """Strided and depthwise convolutions, BatchNorm, residuals, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.Sequential(Residual(8), nn.Conv2d(8, 16, 3, 2, 1, groups=8), nn.Hardswish(), Residual(16))
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.drop(self.layers(self.stem(image)).mean((2, 3))))


class Recurrent(nn.Module):
    """An LSTM whose state goes in and comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, frames: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (h, c) = self.lstm(frames, (h, c))
        return self.head(y), h, c


class Attention(nn.Module):
    """A transformer block over embedded tokens, with a mask; the output's weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(20, 16), nn.Parameter(torch.randn(1, 7, 16) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.logits = nn.Linear(16, 20, bias=False)
        self.logits.weight = self.embed.weight

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids) + self.place
        q, k, v = self.qkv(self.norm1(x)).reshape(1, 7, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        hidden = torch.zeros(1, 1, 1, 7).masked_fill(~mask[:, None, None, :], -1e4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        x = x + self.out(y.transpose(1, 2).reshape(1, 7, 16))
        return self.logits(x + self.mlp(self.norm2(x)))


class Many(nn.Module):
    """Several inputs and outputs in a dict; one input comes out as it is, one output under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 6), nn.Conv1d(2, 6, 3)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 6))

    def forward(self, vector: Tensor, signal: Tensor) -> dict[str, Tensor]:
        a, b = self.left(vector), self.right(signal).amax(-1)
        both = torch.sigmoid(a * self.scale + b)
        return {"both": both, "again": both, "sum": a + b, "vector": vector}


@dataclass(frozen=True, kw_only=True, slots=True)
class Net:
    """A net's class and inputs: shape and element type by name."""

    make: Callable[[], nn.Module]
    inputs: dict[str, tuple[tuple[int, ...], str]]
    #: TorchScript's own exporter returns no dicts.
    scripts: bool = True

    def module(self) -> nn.Module:
        """With weights, and statistics of its BatchNorms, from one seed; in training mode, as a script leaves it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            module = self.make()
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean = torch.randn(part.num_features) * 0.2
                    part.running_var = torch.rand(part.num_features) + 0.5
        return module

    def feeds(self) -> dict[str, Tensor]:
        """Inputs by name from one seed."""
        generator = torch.Generator().manual_seed(3)
        made = {}
        for name, (shape, dtype) in self.inputs.items():
            noise = torch.randn(shape, generator=generator)
            made[name] = {"float32": noise, "int64": (noise.abs() * 5).long(), "bool": noise < 1}[dtype]
        return made

    def answers(self) -> dict[str, Array]:
        """What torch itself computes, by the names that edgec gives."""
        with torch.no_grad():
            result: Any = self.module().eval()(**self.feeds())
        if isinstance(result, Tensor):
            result = {"output": result}
        if isinstance(result, tuple):
            result = {f"output_{index}": value for index, value in enumerate(result)}
        return {name: value.numpy() for name, value in result.items()}


NETS = {
    "convolutions": Net(make=Convolutions, inputs={"image": ((1, 3, 16, 16), "float32")}),
    "recurrent": Net(
        make=Recurrent,
        inputs={"frames": ((1, 5, 6), "float32"), "h": ((2, 1, 8), "float32"), "c": ((2, 1, 8), "float32")},
    ),
    "attention": Net(make=Attention, inputs={"ids": ((1, 7), "int64"), "mask": ((1, 7), "bool")}),
    "many": Net(make=Many, inputs={"vector": ((1, 4), "float32"), "signal": ((1, 2, 9), "float32")}, scripts=False),
}


def convolutions() -> nn.Module:
    """As a user's factory: what `tests/support/torch_nets.py:convolutions` gives."""
    return NETS["convolutions"].module()


def recurrent() -> nn.Module:
    return NETS["recurrent"].module()


def attention() -> nn.Module:
    return NETS["attention"].module()


def many() -> nn.Module:
    return NETS["many"].module()


def save(name: str, kind: str, folder: Path) -> str:
    """Save a net in a format (program, script, trace, state, onnx; factory needs no file); returns the source."""
    net = NETS[name]
    module, feeds = net.module().eval(), net.feeds()
    path = folder / f"{name}.{'pt2' if kind == 'program' else 'onnx' if kind == 'onnx' else 'pt'}"
    if kind == "factory":
        return f"{__file__}:{name}"
    if kind == "program":
        torch.export.save(torch.export.export(module, (), feeds), path)
    elif kind == "script":
        torch.jit.script(module).save(str(path))
    elif kind == "trace":
        torch.jit.trace(module, tuple(feeds.values())).save(str(path))
    elif kind == "state":
        torch.save({"epoch": 3, "state": {f"module.{k}": v for k, v in module.state_dict().items()}}, path)
    else:
        program = torch.onnx.export(
            module,
            (),
            kwargs=feeds,
            input_names=list(feeds),
            output_names=[f"{n}_out" if n in feeds else n for n in net.answers()],
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    return str(path)
