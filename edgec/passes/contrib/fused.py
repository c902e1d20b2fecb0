"""What ONNX Runtime's optimiser has fused, taken apart: activations, biases, residuals and norms.

Definitions: onnxruntime's ContribOperators.md.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import attr, attrs, const_of, optional_input
from edgec.graph.traits import CONV_ATTRIBUTES
from edgec.tensors import Array

_GEMM_ACTIVATION = {"alpha": "activation_alpha", "beta": "activation_beta", "gamma": "activation_gamma"}


def _activation(b: Builder, name: str, x: ir.Value, parameters: dict[str, float]) -> ir.Value:
    if name == "Clip":
        return b("Clip", x, parameters.get("alpha"), parameters.get("beta"))
    kept = {"Elu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "LeakyRelu": ("alpha",)}.get(name, ())
    return b(name, x, **{key: parameters[key] for key in kept if key in parameters})


def fused_conv(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """activation(Conv(x, w, b) + z)"""
    result = b("Conv", node.inputs[0], node.inputs[1], optional_input(node, 2), **attrs(node, *CONV_ATTRIBUTES))
    if (addend := optional_input(node, 3)) is not None:
        result = b("Add", result, addend)
    values = attr(node, "activation_params", ())
    parameters = dict(zip(("alpha", "beta"), map(float, values), strict=False))
    name = attr(node, "activation", "")
    return (_activation(b, name, result, parameters) if name else result,)


def fused_gemm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """activation(Gemm(a, b, c))"""
    result = b("Gemm", *node.inputs, **attrs(node, "alpha", "beta", "transA", "transB"))
    parameters = {k: float(attr(node, v)) for k, v in _GEMM_ACTIVATION.items() if v in node.attributes}
    name = attr(node, "activation", "")
    return (_activation(b, name, result, parameters) if name else result,)


def fused_matmul(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """α · op(a) · op(b), where op swaps the last two axes"""
    if attr(node, "transBatchA", 0) or attr(node, "transBatchB", 0):
        return None
    sides = []
    for value, name in zip(node.inputs[:2], ("transA", "transB"), strict=True):
        if value is None or value.shape is None:
            return None
        order = [*range(len(value.shape))]
        if attr(node, name, 0) and len(order) > 1:
            order[-2:] = order[:-3:-1]
            value = b("Transpose", value, perm=order)
        sides.append(value)
    result = b("MatMul", *sides)
    alpha = float(attr(node, "alpha", 1.0))
    return (result if alpha == 1.0 else b("Mul", result, alpha),)


def gelu(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """Gelu by the error function"""
    return (b("Gelu", node.inputs[0], approximate="none"),)


def bias_gelu(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """Gelu(x + bias) by the error function"""
    return (b("Gelu", b("Add", node.inputs[0], node.inputs[1]), approximate="none"),)


def fast_gelu(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """Gelu(x + bias) by the hyperbolic tangent"""
    x, bias = node.inputs[0], optional_input(node, 1)
    return (b("Gelu", x if bias is None else b("Add", x, bias), approximate="tanh"),)


def quick_gelu(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """x · σ(α·x)"""
    x = node.inputs[0]
    return (b("Mul", x, b("Sigmoid", b("Mul", x, float(attr(node, "alpha", 1.702))))),)


def bias_softmax(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """Softmax(x + bias) over the axes from `axis` on; only its last one is read here"""
    x, bias = node.inputs[0], node.inputs[1]
    if x is None or x.shape is None or int(attr(node, "axis", 1)) % len(x.shape) != len(x.shape) - 1:
        return None
    if bias is None or bias.shape is None or len(bias.shape) != len(x.shape):  # who broadcasts how is an attribute
        return None
    return (b("Softmax", b("Add", x, bias), axis=-1),)


def _rms(b: Builder, x: ir.Value, scale: ir.Value | None, epsilon: float, axes: ir.Value) -> ir.Value:
    """x / √(mean(x²) + ε) · scale"""
    mean = b("ReduceMean", b("Mul", x, x), axes, keepdims=1)
    return b("Mul", b("Div", x, b("Sqrt", b("Add", mean, epsilon))), scale)


def simplified_layer_norm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """The root mean square norm over the axes from `axis` on"""
    x = node.inputs[0]
    if x is None or x.shape is None:
        return None
    rank = len(x.shape)
    axes = b.ints(*range(int(attr(node, "axis", -1)) % rank, rank))
    return (_rms(b, x, node.inputs[1], float(attr(node, "epsilon", 1e-5)), axes),)


def layer_norm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """The standard's operator of that name"""
    return (b("LayerNormalization", *node.inputs, **attrs(node, "axis", "epsilon", "stash_type")),)


def _residual(node: ir.Node, b: Builder, bias: int) -> ir.Value:
    total = b("Add", node.inputs[0], node.inputs[1])
    return total if optional_input(node, bias) is None else b("Add", total, node.inputs[bias])


def skip_layer_norm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """LayerNormalization(x + skip + bias); the fourth output is the sum"""
    return _with_sum(node, b, _residual(node, b, 4), simplified=False)


def skip_simplified_layer_norm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """The root mean square norm of x + skip + bias; the fourth output is the sum"""
    return _with_sum(node, b, _residual(node, b, 3), simplified=True)


def _with_sum(node: ir.Node, b: Builder, total: ir.Value, *, simplified: bool) -> tuple[ir.Value, ...] | None:
    epsilon = float(attr(node, "epsilon", 1e-12))
    if simplified:
        made = _rms(b, total, node.inputs[2], epsilon, b.ints(-1))
    else:
        made = b("LayerNormalization", total, node.inputs[2], optional_input(node, 3), axis=-1, epsilon=epsilon)
    if any(o.uses() or o.is_graph_output() for o in node.outputs[1:3]):
        return None
    if len(node.outputs) < 4:
        return (made,)
    return (made, b("Identity", total), b("Identity", total), total)  # for the mean and deviation that nobody reads


def embed_layer_norm(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """LayerNormalization(word[ids] + position[place] + segment[segments])"""
    ids, segments, words, places, kinds, gamma, beta = node.inputs[:7]
    mask, positions = optional_input(node, 7), optional_input(node, 8)
    read = [o.uses() or o.is_graph_output() for o in node.outputs]
    if ids is None or ids.shape is None or (len(read) > 1 and read[1] and mask is None):
        return None
    total = b("Gather", words, ids, axis=0)
    if positions is None:
        length = ids.shape[-1]
        table = const_of(places)
        if not isinstance(length, int) or table is None:
            return None
        total = b("Add", total, table[:length][None])
    else:
        total = b("Add", total, b("Gather", places, positions, axis=0))
    if segments is not None and kinds is not None:
        total = b("Add", total, b("Gather", kinds, segments, axis=0))
    made = b("LayerNormalization", total, gamma, beta, axis=-1, epsilon=float(attr(node, "epsilon", 1e-12)))
    if len(read) < 2:
        return (made,)
    count = b("ReduceSum", mask, b.ints(1), keepdims=0) if mask is not None else total
    return (made, count, total)[: len(read)]


def matmul_nbits(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """a · dequantized weightsᵀ; the weights are packed in blocks of `block_size` along their rows"""
    bits, block = int(attr(node, "bits", 4)), int(attr(node, "block_size", 32))
    rows, length = int(attr(node, "N", 0)), int(attr(node, "K", 0))
    packed, scales, zeros = (const_of(optional_input(node, i)) for i in (1, 2, 3))
    if packed is None or scales is None or bits not in (2, 4, 8) or optional_input(node, 4) is not None:
        return None
    if optional_input(node, 3) is not None and zeros is None:
        return None
    blocks = -(-length // block)
    values = _unpacked(packed.reshape(rows, blocks, -1), bits)[..., :block].astype(np.float32)
    offset = np.full((rows, blocks), 1 << (bits - 1), np.float32)
    if zeros is not None:
        if zeros.dtype == np.uint8:
            zeros = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks]
        offset = zeros.reshape(rows, blocks).astype(np.float32)
    real = (values - offset[..., None]) * scales.reshape(rows, blocks, 1).astype(np.float32)
    weight = real.reshape(rows, -1)[:, :length].T.astype(scales.dtype)
    made = b("MatMul", node.inputs[0], np.ascontiguousarray(weight))
    bias = optional_input(node, 5)
    return (made if bias is None else b("Add", made, bias),)


def _unpacked(array: Array, bits: int) -> Array:
    """Bytes as the numbers of a few bits that they hold, the lowest bits first, along the last axis."""
    parts = [(array >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.asarray(np.stack(parts, -1).reshape(*array.shape[:-1], -1))


def expand_dims(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """Unsqueeze"""
    return (b("Unsqueeze", node.inputs[0], b("Reshape", b("Cast", node.inputs[1], to=7), b.ints(-1))),)


def trilu(node: ir.Node, b: Builder) -> tuple[ir.Value, ...]:
    """The standard's operator of that name"""
    return (b("Trilu", *node.inputs, **attrs(node, "upper")),)


FUSED = {
    "BiasGelu": bias_gelu,
    "BiasSoftmax": bias_softmax,
    "EmbedLayerNormalization": embed_layer_norm,
    "ExpandDims": expand_dims,
    "FastGelu": fast_gelu,
    "FusedConv": fused_conv,
    "FusedGemm": fused_gemm,
    "FusedMatMul": fused_matmul,
    "Gelu": gelu,
    "LayerNormalization": layer_norm,
    "MatMulNBits": matmul_nbits,
    "QuickGelu": quick_gelu,
    "SimplifiedLayerNormalization": simplified_layer_norm,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_norm,
    "Trilu": trilu,
}
