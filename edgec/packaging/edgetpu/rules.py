"""The Edge TPU's documented rules, asked of a .tflite file; source: coral.ai/docs/edgetpu/models-intro.

1. Every tensor that is computed is int8 or uint8, quantized, and of static shape.
2. A tensor has at most three axes larger than 1, and they are the innermost ones: a batch is 1.
3. The operator is in the list, and keeps its own limits.
4. The compiler maps one part of the graph: what comes before the first operator that cannot be mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.backends.tflite.schema import DTYPE_OF, fb, op_name
from edgec.errors import EdgecError
from edgec.tensors import Array, DType

_BYTES = frozenset({DType.INT8, DType.UINT8})
#: Positions of inputs that hold shapes, axes and sizes.
_SOFTMAX_ELEMENTS = 16000


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A tensor of the file; `data` is None for a computed one."""

    name: str
    shape: tuple[int, ...]
    dtype: DType | None
    quantized: bool
    data: Array | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """An operator of the file."""

    kind: str
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    options: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Operators by what keeps them off the accelerator (empty: nothing), in order of execution."""

    kinds: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def mapped(self) -> int:
        """Rule 4: how many operators come before the first that cannot be mapped."""
        return next((i for i, why in enumerate(self.reasons) if why), len(self.reasons))

    @property
    def share(self) -> float:
        """The share of the operators that is expected on the accelerator."""
        return self.mapped / len(self.reasons) if self.reasons else 0.0


Rule = Callable[[Node], str]


def judge(data: bytes) -> Verdict:
    """Every operator of the first subgraph. Raises `EdgecError` (source/not-tflite) for other bytes."""
    if data[4:8] != b"TFL3":
        raise EdgecError("source/not-tflite", "this is not a TFLite file", hint="a .tflite file has TFL3 at byte 4")
    nodes = _nodes(data)
    return Verdict(kinds=tuple(n.kind for n in nodes), reasons=tuple(_why_not(n) for n in nodes))


def _why_not(node: Node) -> str:
    rule = RULES.get(node.kind)
    if rule is None:
        return "the operator is not in the Edge TPU's list"
    for view in (*node.inputs, *node.outputs):
        reason = _tensor(view)
        if reason:
            return f"{view.name!r} {reason}"
    return rule(node)


def _tensor(view: View) -> str:
    if any(d < 0 for d in view.shape):
        return "has no static shape"
    if view.data is not None:  # weights, and int32 for biases, shapes and axes
        return "" if view.dtype in _BYTES | {DType.INT32} else f"is {view.dtype}"
    if view.dtype not in _BYTES or not view.quantized:
        return f"is {view.dtype}, not quantized 8-bit"
    if any(d > 1 for d in view.shape[:-3]):
        return f"has the shape {list(view.shape)}: only the three innermost axes may be larger than 1"
    return ""


def _ok(_: Node) -> str:
    return ""


def _plain(node: Node) -> str:
    fused = getattr(node.options, "fusedActivationFunction", 0)
    return "it has a fused activation" if fused else ""


def _concat(node: Node) -> str:
    constants = [v for v in node.inputs if v.data is not None]
    if constants and (len(node.inputs) != 2 or any(np.any(v.data) for v in constants if v.data is not None)):
        return "a constant input must be all zeros, beside one other input"
    return _plain(node)


def _conv(node: Node) -> str:
    same = node.options.dilationWFactor == node.options.dilationHFactor
    return "" if same else "its dilations in x and y differ"


def _depthwise(node: Node) -> str:
    dilated = max(node.options.dilationWFactor, node.options.dilationHFactor) > 1
    return "it is dilated" if dilated else ""


def _flat(node: Node) -> str:
    shape = node.outputs[0].shape
    return "" if sum(d > 1 for d in shape) <= 1 else f"its output {list(shape)} is not one-dimensional"


def _softmax(node: Node) -> str:
    shape = node.inputs[0].shape
    if sum(d > 1 for d in shape) > 1:
        return f"its input {list(shape)} is not one-dimensional"
    return "" if max(shape, default=1) <= _SOFTMAX_ELEMENTS else f"it has more than {_SOFTMAX_ELEMENTS} elements"


def _axes(node: Node) -> set[int]:
    rank = len(node.inputs[0].shape)
    data = node.inputs[1].data if len(node.inputs) > 1 else None
    return set() if data is None else {int(a) % max(rank, 1) for a in np.ravel(data)}


def _not_batch(node: Node) -> str:
    return "it reduces the batch" if 0 in _axes(node) and len(node.inputs[0].shape) > 1 else ""


def _mean(node: Node) -> str:
    last = len(node.inputs[0].shape) - 1
    if last in _axes(node) and node.inputs[0].shape[last] % 4:
        return "it reduces the last axis, whose size is no multiple of 4"
    return _not_batch(node)


def _pad(node: Node) -> str:
    pads = node.inputs[1].data if len(node.inputs) > 1 else None
    return "it pads the batch" if pads is not None and np.any(pads.reshape(-1, 2)[0]) and len(pads) > 2 else ""


def _prelu(node: Node) -> str:
    slopes = node.inputs[1].shape
    return "" if sum(d > 1 for d in slopes) <= 1 else "its slopes are not one-dimensional"


def _strided(node: Node) -> str:
    strides = node.inputs[3].data if len(node.inputs) > 3 else None
    if strides is not None and np.any(strides != 1):
        return "its strides are not all 1"
    return "it has an ellipsis or a new axis" if node.options.ellipsisMask or node.options.newAxisMask else ""


def _split(node: Node) -> str:
    axis = node.inputs[0].data
    return "it splits the batch" if axis is not None and int(axis.ravel()[0]) == 0 else ""


#: Rule 3.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        [
            "ADD", "EXPAND_DIMS", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MINIMUM", "MUL", "QUANTIZE", "RELU",
            "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE",
            "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE", "SQUEEZE", "SUB", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
        ],
        _ok,
    ),
    "AVERAGE_POOL_2D": _plain,
    "MAX_POOL_2D": _plain,
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _flat,
    "SOFTMAX": _softmax,
    "MEAN": _mean,
    "SUM": _not_batch,
    "REDUCE_MAX": _not_batch,
    "REDUCE_MIN": _not_batch,
    "PAD": _pad,
    "PRELU": _prelu,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided,
}  # fmt: skip


def _nodes(data: bytes) -> list[Node]:
    try:
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
    except Exception as error:
        raise EdgecError("source/not-tflite", f"the TFLite file is damaged: {error}", hint="get it anew") from error
    graph = model.subgraphs[0]
    views = [_view(tensor, model.buffers) for tensor in graph.tensors]
    nodes = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        custom = code.customCode.decode() if code.customCode else ""
        kind = f"CUSTOM {custom}" if custom else op_name(max(code.builtinCode, code.deprecatedBuiltinCode))
        inputs = tuple(views[i] for i in op.inputs if i >= 0) if op.inputs is not None else ()
        outputs = tuple(views[i] for i in op.outputs)
        nodes.append(Node(kind=kind, inputs=inputs, outputs=outputs, options=op.builtinOptions))
    return nodes


def _shape(tensor: Any) -> tuple[int, ...]:
    """The shape, −1 where it is free. A free batch that stands as 1 in the file, as Keras leaves it, is 1."""
    shape = () if tensor.shape is None else tuple(int(d) for d in tensor.shape)
    signature = shape if tensor.shapeSignature is None else tuple(int(d) for d in tensor.shapeSignature)
    if len(signature) != len(shape):
        return shape
    return tuple(
        d if s >= 0 or (i == 0 and d == 1) else -1 for i, (d, s) in enumerate(zip(shape, signature, strict=True))
    )


def _view(tensor: Any, buffers: Any) -> View:
    raw = buffers[tensor.buffer].data if tensor.buffer else None
    dtype = DTYPE_OF.get(tensor.type)
    shape = _shape(tensor)
    values = None
    if raw is not None and dtype is not None:
        values = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), dtype.numpy)
        values = values.reshape(shape) if all(d >= 0 for d in shape) else values
    q = tensor.quantization
    return View(
        name=tensor.name.decode(errors="replace") if tensor.name else "",
        shape=shape,
        dtype=dtype,
        quantized=q is not None and q.scale is not None and len(q.scale) > 0,
        data=values,
    )
