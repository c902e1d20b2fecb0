"""The four networks of MLPerf Tiny in shape, with random weights: DS-CNN, ResNet-8, MobileNetV1 0.25, autoencoder.

Weights are scaled so that values keep their size from layer to layer, as trained ones do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.tensors import Array

SHAPES = {"kws": (1, 1, 49, 10), "resnet8": (1, 3, 32, 32), "vww": (1, 3, 96, 96), "autoencoder": (1, 640)}
_MOBILENET = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1),
              (256, 2), (256, 1))  # fmt: skip


class _Net:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Array) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))  # type: ignore[arg-type]
        return name

    def conv(self, x: str, before: int, after: int, kernel: tuple[int, int] = (3, 3), stride: int = 1,
             groups: int = 1, relu: bool = True, pads: tuple[int, ...] | None = None) -> str:  # fmt: skip
        fan_in = before // groups * kernel[0] * kernel[1]
        weight = self.constant(self.rng.standard_normal((after, before // groups, *kernel)) * (2 / fan_in) ** 0.5)
        bias = self.constant(self.rng.standard_normal(after) * 0.1)
        edge = (kernel[0] // 2, kernel[1] // 2) * 2 if pads is None else pads
        y = self.node("Conv", x, weight, bias, strides=[stride] * 2, pads=list(edge), group=groups)
        return self.node("Relu", y) if relu else y

    def dense(self, x: str, before: int, after: int) -> str:
        weight = self.constant(self.rng.standard_normal((before, after)) * (2 / before) ** 0.5)
        return self.node("Gemm", x, weight, self.constant(self.rng.standard_normal(after) * 0.1))

    def classify(self, x: str, channels: int, classes: int) -> str:
        pooled = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Softmax", self.dense(pooled, channels, classes), axis=-1)


def _kws(net: _Net) -> tuple[str, int]:
    x = net.conv("x", 1, 64, (10, 4), 2, pads=(4, 1, 5, 1))
    for _ in range(4):
        x = net.conv(net.conv(x, 64, 64, groups=64), 64, 64, (1, 1))
    return net.classify(x, 64, 12), 12


def _resnet8(net: _Net) -> tuple[str, int]:
    x, before = net.conv("x", 3, 16), 16
    for after, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.conv(net.conv(x, before, after, stride=stride), after, after, relu=False)
        short = x if stride == 1 else net.conv(x, before, after, (1, 1), stride, relu=False)
        x, before = net.node("Relu", net.node("Add", y, short)), after
    return net.classify(x, 64, 10), 10


def _vww(net: _Net) -> tuple[str, int]:
    x, before = net.conv("x", 3, 8, stride=2), 8
    for after, stride in _MOBILENET:
        x = net.conv(net.conv(x, before, before, stride=stride, groups=before), before, after, (1, 1))
        before = after
    return net.classify(x, 256, 2), 2


def _autoencoder(net: _Net) -> tuple[str, int]:
    x, before = "x", 640
    for after in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x, before = net.node("Relu", net.dense(x, before, after)), after
    return net.dense(x, 128, 640), 640


_BUILD = {"kws": _kws, "resnet8": _resnet8, "vww": _vww, "autoencoder": _autoencoder}


def micro_model(name: str) -> onnx.ModelProto:
    """A network by name."""
    net = _Net(seed=len(name))
    out, size = _BUILD[name](net)
    graph = helper.make_graph(
        net.nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPES[name])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, (1, size))],
        net.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def write_micro_net(folder: Path, name: str, *, samples: int = 8) -> tuple[Path, Path]:
    """The network as .onnx and samples as .npy."""
    model, data = folder / f"{name}.onnx", folder / f"{name}.npy"
    onnx.save(micro_model(name), model)
    shape = (samples, *SHAPES[name][1:])
    np.save(data, np.random.default_rng(3).standard_normal(shape).astype(np.float32))
    return model, data
