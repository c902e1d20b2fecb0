"""Matrix products: FULLY_CONNECTED when one side is a constant matrix, else BATCH_MATMUL."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.dtypes import FLOAT, FLOATS, INTEGERS, computed
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}
#: Elements of the intermediate that an integer product may need: 256 MiB in int32.
_MOST_PRODUCTS = 2**26


def fully_connected(ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """x[…, K] · w[N, K]ᵀ + bias[N]."""
    if bias is None:
        bias = constant(ctx.name("bias"), np.zeros(w.shape[0], np.float32))
    shape = (*x.shape[:-1], w.shape[0])
    return ctx.emit("FULLY_CONNECTED", [x, w, bias], shape, x.dtype, keepNumDims=x.rank != 2, **_NONE)


def batch_matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """numpy.matmul of two tensors of rank 2 or more, of any numeric type."""
    if a.dtype in INTEGERS:
        return computed(
            ctx, "MatMul", [a, b], {DType.INT32, DType.INT64}, lambda x, y: _integers(ctx, x, y), modular=True
        )
    return computed(ctx, "MatMul", [a, b], FLOAT, lambda x, y: _floats(ctx, x, y))


def _floats(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    if 0 in (*a.shape, *b.shape):
        return ctx.constant(np.zeros(shape, np.float32), a.dtype)
    if len(shape) > 5:
        return _flattened(ctx, a, b, batch)
    return ctx.emit("BATCH_MATMUL", [a, b], shape, a.dtype, adjX=False, adjY=False)


def _flattened(ctx: Context, a: Tensor, b: Tensor, batch: tuple[int, ...]) -> Tensor:
    """BATCH_MATMUL stops at rank 5: leading axes become one."""
    a, b = (expand(ctx, t, (*batch, *t.shape[-2:])) for t in (a, b))
    count = int(np.prod(batch))
    y = _floats(ctx, ctx.reshape(a, (count, *a.shape[-2:])), ctx.reshape(b, (count, *b.shape[-2:])))
    return ctx.reshape(y, (*batch, a.shape[-2], b.shape[-1]))


def expand(ctx: Context, t: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`t` repeated to a shape; constants at once."""
    if t.shape == shape:
        return t
    if t.data is not None and t.storage is None:
        return constant(ctx.name("expanded"), np.ascontiguousarray(np.broadcast_to(t.data, shape)))
    return ctx.emit("BROADCAST_TO", [t, ctx.int32(list(shape))], shape, t.dtype)


def _integers(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """BATCH_MATMUL has no int32 or int64: all products, summed. Exact, and as large as M × K × N."""
    columns = ctx.reshape(a, (*a.shape, 1))
    rows = ctx.reshape(b, (*b.shape[:-2], 1, *b.shape[-2:]))
    shape = np.broadcast_shapes(columns.shape, rows.shape)
    if int(np.prod(shape, dtype=np.int64)) > _MOST_PRODUCTS:
        raise Refusal("dtype", f"MatMul on {a.dtype} of this size has no TFLite kernel", "cast to float32")
    products = ctx.binary("MUL", columns, rows, **_NONE)
    return reduce(ctx, "SUM", products, [len(shape) - 2], keep=False)


def matmul(ctx: Context, node: ir.Node) -> Tensor:
    """MatMul with numpy's rules for vectors."""
    a, b = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    _, out, _ = ctx.out_spec(node)
    if a.rank == 1:
        a = ctx.reshape(a, (1, a.shape[0]))
    if b.rank == 1:
        b = ctx.reshape(b, (b.shape[0], 1))
    if b.data is not None and b.rank == 2 and a.dtype == DType.FLOAT32 and a.size and b.size:
        y = fully_connected(ctx, a, ctx.transpose(b, (1, 0)), None)
    else:
        y = batch_matmul(ctx, a, b)
    return ctx.reshape(y, out)


def gemm(ctx: Context, node: ir.Node) -> Tensor:
    """alpha·A'·B' + beta·C; constants take alpha and beta in."""
    a, b, *rest = ctx.inputs(node)
    assert a is not None and b is not None
    c = rest[0] if rest else None
    alpha, beta = attr(node, "alpha", 1.0), attr(node, "beta", 1.0)
    if attr(node, "transA", 0):
        a = ctx.transpose(a, (1, 0))
    weights = b if attr(node, "transB", 0) else ctx.transpose(b, (1, 0))
    channels = weights.shape[0]
    if a.dtype == DType.FLOAT32 and weights.data is not None:
        if alpha != 1.0:
            weights = constant(ctx.name("w"), (weights.real() * alpha).astype(np.float32))
        bias = _bias(ctx, c, beta, channels)
        y = fully_connected(ctx, a, weights, bias)
        c = None if bias is not None else c
    else:
        y = _scaled(ctx, batch_matmul(ctx, a, ctx.transpose(weights, (1, 0))), alpha)
    if c is None or beta == 0.0:
        return y
    allowed = FLOAT if y.dtype in FLOATS else {DType.INT32, DType.INT64}
    return computed(
        ctx, "Gemm", [y, _scaled(ctx, c, beta)], allowed, lambda p, q: ctx.binary("ADD", p, q, **_NONE), modular=True
    )


def _scaled(ctx: Context, t: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return t
    if t.dtype not in FLOATS and factor != int(factor):
        raise Refusal("dtype", f"Gemm on {t.dtype} with a factor of {factor}", "cast to float32")
    allowed = FLOAT if t.dtype in FLOATS else {DType.INT32, DType.INT64}
    return computed(
        ctx, "Gemm", [t], allowed, lambda x: ctx.binary("MUL", x, ctx.scalar(factor, x), **_NONE), modular=True
    )


def _bias(ctx: Context, c: Tensor | None, beta: float, channels: int) -> Tensor | None:
    """C as a bias vector, or None where it is computed or differs from row to row."""
    if c is None or c.data is None or c.size not in (1, channels) or (c.rank > 1 and c.shape[-1] != channels):
        return None
    if c.storage is not None and beta == 1.0 and c.shape == (channels,):
        return c
    values = np.broadcast_to(c.real().reshape(-1) * np.float32(beta), (channels,))
    return constant(ctx.name("bias"), np.ascontiguousarray(values, np.float32))


LOWERINGS: dict[str, Lowering] = {"MatMul": matmul, "Gemm": gemm}
