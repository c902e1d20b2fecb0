"""Own rules: operator → a function that replaces one node by smaller ones, or says False where it does not apply."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.passes.decompose.bits import bit_cast, bit_shift, modulo, pad_wrap, round_to_bfloat16
from edgec.passes.decompose.integer import conv_integer, matmul_integer, qlinear_conv, qlinear_matmul
from edgec.passes.decompose.recurrent import batch_second
from edgec.passes.decompose.resize import resize
from edgec.passes.decompose.sampling import col2im, determinant, grid_sample, max_unpool
from edgec.passes.decompose.scans import cumulative_product, fourier, tensor_scatter

OwnRule = Callable[[ir.Node, Editor], bool]


def _hard_swish(node: ir.Node, editor: Editor) -> bool:
    """x · clip(x + 3, 0, 6) · (1/6)"""
    b, x = Builder(editor, node), node.inputs[0]
    gate = b("Clip", b("Add", x, 3.0), 0.0, 6.0)
    b.done(b("Mul", b("Mul", x, gate), 1 / 6))
    return True


def _hard_sigmoid(node: ir.Node, editor: Editor) -> bool:
    """clip(αx + β, 0, 1) as clip(6αx + 6β, 0, 6) · (1/6): runtimes fuse a clip at 6, not one at 1."""
    b, x = Builder(editor, node), node.inputs[0]
    alpha, beta = float(attr(node, "alpha", 0.2)), float(attr(node, "beta", 0.5))
    scaled = x if math.isclose(alpha, 1 / 6, rel_tol=1e-6) else b("Mul", x, 6 * alpha)
    b.done(b("Mul", b("Clip", b("Add", scaled, 6 * beta), 0.0, 6.0), 1 / 6))
    return True


def _standard(b: Builder, node: ir.Node, x: ir.Value, axes: ir.Value) -> ir.Value:
    """(x − mean)/√(mean((x − mean)²) + ε)"""
    centred = b("Sub", x, b("ReduceMean", x, axes, keepdims=1))
    var = b("ReduceMean", b("Mul", centred, centred), axes, keepdims=1)
    return b("Div", centred, b("Sqrt", b("Add", var, float(attr(node, "epsilon", 1e-5)))))


def _along_channels(b: Builder, node: ir.Node, normal: ir.Value, rank: int) -> ir.Value:
    """γ·x + β, of which the second and third input have one for each channel."""
    shape = b.ints(-1, *[1] * (rank - 2))
    scale, bias = (b("Reshape", value, shape) for value in node.inputs[1:3])
    return b("Add", b("Mul", normal, scale), bias)


def _layer_norm(node: ir.Node, editor: Editor) -> bool:
    """(x − mean)/√(mean((x − mean)²) + ε) · γ + β over the last axes."""
    x = node.inputs[0]
    if x is None or x.shape is None or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    rank = len(x.shape)
    first = int(attr(node, "axis", -1)) % rank
    b = Builder(editor, node)
    result = b("Mul", _standard(b, node, x, b.ints(*range(first, rank))), node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = b("Add", result, node.inputs[2])
    node.resize_outputs(1)
    b.done(result)
    return True


def _rms_norm(node: ir.Node, editor: Editor) -> bool:
    """x/√(mean(x²) + ε) · γ over the last axes."""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return False
    rank = len(x.shape)
    first = int(attr(node, "axis", -1)) % rank
    b = Builder(editor, node)
    mean = b("ReduceMean", b("Mul", x, x), b.ints(*range(first, rank)), keepdims=1)
    deviation = b("Sqrt", b("Add", mean, float(attr(node, "epsilon", 1e-5))))
    b.done(b("Mul", b("Div", x, deviation), node.inputs[1]))
    return True


def _instance_norm(node: ir.Node, editor: Editor) -> bool:
    """As LayerNormalization over the spatial axes, with γ and β along the channels."""
    x = node.inputs[0]
    if x is None or x.shape is None or len(x.shape) < 3:
        return False
    rank = len(x.shape)
    b = Builder(editor, node)
    b.done(_along_channels(b, node, _standard(b, node, x, b.ints(*range(2, rank))), rank))
    return True


def _group_norm(node: ir.Node, editor: Editor) -> bool:
    """Groups as an axis of their own, normalised, reshaped back; γ and β along the channels."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or shape is None or len(shape) < 3:
        return False
    b = Builder(editor, node)
    split = b("Reshape", x, b.ints(shape[0], int(attr(node, "num_groups")), -1))
    back = b("Reshape", _standard(b, node, split, b.ints(2)), b.ints(*shape))
    b.done(_along_channels(b, node, back, len(shape)))
    return True


def _gelu(node: ir.Node, editor: Editor) -> bool:
    """½x(1 + erf(x/√2)), or ½x(1 + tanh(√(2/π)(x + 0.044715x³)))."""
    b, x = Builder(editor, node), node.inputs[0]
    if attr(node, "approximate", "none") == "tanh":
        cube = b("Mul", b("Mul", x, x), x)
        inner = b("Tanh", b("Mul", b("Add", x, b("Mul", cube, 0.044715)), math.sqrt(2 / math.pi)))
    else:
        inner = b("Erf", b("Mul", x, 1 / math.sqrt(2)))
    b.done(b("Mul", b("Mul", x, 0.5), b("Add", inner, 1.0)))
    return True


def _mish(node: ir.Node, editor: Editor) -> bool:
    """x · n/(n + 2) with n = eˣ(eˣ + 2), where x beyond 20 counts as 20: tanh(softplus(x)) OpenVINO fuses again."""
    b, x = Builder(editor, node), node.inputs[0]
    power = b("Exp", b("Min", x, 20.0))
    n = b("Mul", power, b("Add", power, 2.0))
    b.done(b("Mul", x, b("Div", n, b("Add", n, 2.0))))
    return True


def _softplus(node: ir.Node, editor: Editor) -> bool:
    """relu(x) + log(1 + exp(−|x|)): never overflows."""
    b, x = Builder(editor, node), node.inputs[0]
    tail = b("Log", b("Add", b("Exp", b("Neg", b("Abs", x))), 1.0))
    b.done(b("Add", b("Relu", x), tail))
    return True


def _celu(node: ir.Node, editor: Editor) -> bool:
    """max(x, 0) + min(α·(exp(x/α) − 1), 0)"""
    b, x, alpha = Builder(editor, node), node.inputs[0], float(attr(node, "alpha", 1.0))
    below = b("Mul", b("Sub", b("Exp", b("Mul", x, 1 / alpha)), 1.0), alpha)
    b.done(b("Add", b("Relu", x), b("Min", below, 0.0)))
    return True


def _over_space(reduction: str) -> OwnRule:
    """A reduction over the spatial axes."""

    def rule(node: ir.Node, editor: Editor) -> bool:
        x = node.inputs[0]
        if x is None or x.shape is None:
            return False
        b = Builder(editor, node)
        b.done(b(reduction, x, b.ints(*range(2, len(x.shape))), keepdims=1))
        return True

    return rule


def _gemm(node: ir.Node, editor: Editor) -> bool:
    """α·A'·B' + β·C with Transpose, MatMul, Mul and Add; not for integers and fractions."""
    factors = (float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0)))
    dtype = node.outputs[0].dtype
    if dtype is not None and dtype.is_integer() and not all(f.is_integer() for f in factors):
        return False
    b = Builder(editor, node)
    left, right = node.inputs[0], node.inputs[1]
    if attr(node, "transA", 0):
        left = b("Transpose", left, perm=(1, 0))
    if attr(node, "transB", 0):
        right = b("Transpose", right, perm=(1, 0))
    result = b("MatMul", left, right)
    alpha, beta = float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0))
    if alpha != 1.0:
        result = b("Mul", result, alpha)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        result = b("Add", result, bias if beta == 1.0 else b("Mul", bias, beta))
    b.done(result)
    return True


def _reduce_l2(node: ir.Node, editor: Editor) -> bool:
    """√Σx²"""
    b, x = Builder(editor, node), node.inputs[0]
    total = _sum(b, node, b("Mul", x, x))
    b.done(b("Sqrt", total))
    return True


def _reduce_l1(node: ir.Node, editor: Editor) -> bool:
    """Σ|x|"""
    b = Builder(editor, node)
    b.done(_sum(b, node, b("Abs", node.inputs[0])))
    return True


def _reduce_sum_square(node: ir.Node, editor: Editor) -> bool:
    """Σx²"""
    b, x = Builder(editor, node), node.inputs[0]
    b.done(_sum(b, node, b("Mul", x, x)))
    return True


def _sum(b: Builder, node: ir.Node, value: ir.Value) -> ir.Value:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    flags = {"keepdims": attr(node, "keepdims", 1)}
    if attr(node, "noop_with_empty_axes", 0):
        flags["noop_with_empty_axes"] = 1
    return b("ReduceSum", value, axes, **flags) if axes is not None else b("ReduceSum", value, **flags)


def _clip_open(node: ir.Node, editor: Editor) -> bool:
    """max(min(x, high), low) with the bounds that are there."""
    b, result = Builder(editor, node), node.inputs[0]
    bounds = [node.inputs[i] if len(node.inputs) > i else None for i in (1, 2)]
    if result is None or bounds == [None, None]:
        return False
    if bounds[0] is not None:
        result = b("Max", result, bounds[0])
    if bounds[1] is not None:
        result = b("Min", result, bounds[1])
    b.done(result)
    return True


def _depth_to_space(node: ir.Node, editor: Editor) -> bool:
    """Reshape, Transpose, Reshape."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or shape is None or len(shape) != 4:
        return False
    n, c, h, w = shape
    size = int(attr(node, "blocksize"))
    b = Builder(editor, node)
    out = c // (size * size)
    if attr(node, "mode", "DCR") == "DCR":
        split, perm = (n, size, size, out, h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = (n, out, size, size, h, w), (0, 1, 4, 2, 5, 3)
    moved = b("Transpose", b("Reshape", x, b.ints(*split)), perm=perm)
    b.done(b("Reshape", moved, b.ints(n, out, h * size, w * size)))
    return True


def _space_to_depth(node: ir.Node, editor: Editor) -> bool:
    """Reshape, Transpose, Reshape."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or shape is None or len(shape) != 4:
        return False
    n, c, h, w = shape
    size = int(attr(node, "blocksize"))
    b = Builder(editor, node)
    split = b("Reshape", x, b.ints(n, c, h // size, size, w // size, size))
    # mode (from opset 28 on): which of block and channel counts faster in the new channels
    perm = (0, 3, 5, 1, 2, 4) if attr(node, "mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    moved = b("Transpose", split, perm=perm)
    b.done(b("Reshape", moved, b.ints(n, c * size * size, h // size, w // size)))
    return True


def _prelu(node: ir.Node, editor: Editor) -> bool:
    """relu(x) − slope · relu(−x)"""
    b, x = Builder(editor, node), node.inputs[0]
    b.done(b("Sub", b("Relu", x), b("Mul", b("Relu", b("Neg", x)), node.inputs[1])))
    return True


def _batchnorm(node: ir.Node, editor: Editor) -> bool:
    """x·s + t with s = γ/√(var + ε), t = β − μ·s, for statistics that are not constant too."""
    x = node.inputs[0]
    if x is None or x.shape is None or attr(node, "training_mode", 0):
        return False
    b = Builder(editor, node)
    shape = b.ints(-1, *[1] * max(0, len(x.shape) - 2))
    gamma, beta, mean, var = node.inputs[1:5]
    scale = b("Div", gamma, b("Sqrt", b("Add", var, float(attr(node, "epsilon", 1e-5)))))
    shift = b("Sub", beta, b("Mul", mean, scale))
    b.done(b("Add", b("Mul", x, b("Reshape", scale, shape)), b("Reshape", shift, shape)))
    return True


def _reciprocal(node: ir.Node, editor: Editor) -> bool:
    """1 / x"""
    b = Builder(editor, node)
    b.done(b("Div", 1.0, node.inputs[0]))
    return True


def _square_power(node: ir.Node, editor: Editor) -> bool:
    """x³ as x·x·x; other exponents stay."""
    exponent = const_of(node.inputs[1])
    if exponent is None or exponent.size != 1 or float(exponent.reshape(())) != 3.0:
        return False
    if static_shape(node.inputs[0]) != static_shape(node.outputs[0]):
        return False
    b, x = Builder(editor, node), node.inputs[0]
    b.done(b("Mul", b("Mul", x, x), x))
    return True


def _variadic(binary: str) -> OwnRule:
    def rule(node: ir.Node, editor: Editor) -> bool:
        if len(node.inputs) < 3:
            return False
        b = Builder(editor, node)
        result = node.inputs[0]
        for value in node.inputs[1:]:
            result = b(binary, result, value)
        assert result is not None
        b.done(result)
        return True

    return rule


def _mean(node: ir.Node, editor: Editor) -> bool:
    """Σ / n"""
    b = Builder(editor, node)
    result = node.inputs[0]
    for value in node.inputs[1:]:
        result = b("Add", result, value)
    b.done(b("Mul", result, np.asarray(1 / len(node.inputs), np.float32)))
    return True


#: Operator → own rule; see each one's docstring for what it becomes.
OWN_RULES: dict[str, OwnRule] = {
    "BatchNormalization": _batchnorm,
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "Cast": round_to_bfloat16,
    "Celu": _celu,
    "Clip": _clip_open,
    "Col2Im": col2im,
    "ConvInteger": conv_integer,
    "CumProd": cumulative_product,
    "DFT": fourier,
    "Det": determinant,
    "DepthToSpace": _depth_to_space,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GRU": batch_second,
    "GridSample": grid_sample,
    "GlobalAveragePool": _over_space("ReduceMean"),
    "GlobalMaxPool": _over_space("ReduceMax"),
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "InstanceNormalization": _instance_norm,
    "LSTM": batch_second,
    "LayerNormalization": _layer_norm,
    "MatMulInteger": matmul_integer,
    "Max": _variadic("Max"),
    "MaxUnpool": max_unpool,
    "Mean": _mean,
    "Min": _variadic("Min"),
    "Mish": _mish,
    "Mod": modulo,
    "PRelu": _prelu,
    "Pad": pad_wrap,
    "Pow": _square_power,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "RNN": batch_second,
    "RMSNormalization": _rms_norm,
    "Reciprocal": _reciprocal,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "ReduceSumSquare": _reduce_sum_square,
    "Resize": resize,
    "Softplus": _softplus,
    "SpaceToDepth": _space_to_depth,
    "Sum": _variadic("Add"),
    "TensorScatter": tensor_scatter,
}
