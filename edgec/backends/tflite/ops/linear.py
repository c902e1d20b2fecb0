"""Matrix products: FULLY_CONNECTED when one side is a constant matrix, else BATCH_MATMUL."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import DType

_NONE = {"fusedActivationFunction": "NONE"}


def fully_connected(ctx: Context, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """x[…, K] · w[N, K]ᵀ + bias[N]."""
    if bias is None:
        bias = constant(ctx.name("bias"), np.zeros(w.shape[0], np.float32))
    shape = (*x.shape[:-1], w.shape[0])
    return ctx.emit("FULLY_CONNECTED", [x, w, bias], shape, x.dtype, keepNumDims=x.rank != 2, **_NONE)


def batch_matmul(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
    """numpy.matmul of two tensors of rank 2 or more."""
    if a.dtype not in (DType.FLOAT32, DType.INT32):
        raise Refusal("dtype", f"MatMul on {a.dtype} has no TFLite kernel", "insert a Cast")
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])
    if len(shape) > 5:
        return _flattened(ctx, a, b, batch)
    return ctx.emit("BATCH_MATMUL", [a, b], shape, a.dtype, adjX=False, adjY=False)


def _flattened(ctx: Context, a: Tensor, b: Tensor, batch: tuple[int, ...]) -> Tensor:
    """BATCH_MATMUL stops at rank 5: leading axes become one."""
    if a.shape[:-2] != batch or b.shape[:-2] != batch:
        raise Refusal("rank", f"MatMul of rank {len(batch) + 2} with broadcasting has no TFLite kernel")
    count = int(np.prod(batch))
    y = batch_matmul(ctx, ctx.reshape(a, (count, *a.shape[-2:])), ctx.reshape(b, (count, *b.shape[-2:])))
    return ctx.reshape(y, (*batch, a.shape[-2], b.shape[-1]))


def matmul(ctx: Context, node: ir.Node) -> Tensor:
    """MatMul with numpy's rules for vectors."""
    a, b = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    _, out, _ = ctx.out_spec(node)
    if a.rank == 1:
        a = ctx.reshape(a, (1, a.shape[0]))
    if b.rank == 1:
        b = ctx.reshape(b, (b.shape[0], 1))
    if b.data is not None and b.rank == 2 and a.dtype == DType.FLOAT32:
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
        y = batch_matmul(ctx, a, ctx.transpose(weights, (1, 0)))
        if alpha != 1.0:
            y = ctx.binary("MUL", y, ctx.scalar(alpha, y), **_NONE)
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        c = ctx.binary("MUL", c, ctx.scalar(beta, c), **_NONE)
    return ctx.binary("ADD", y, c, **_NONE)


def _bias(ctx: Context, c: Tensor | None, beta: float, channels: int) -> Tensor | None:
    """C as a bias vector, or None where it is computed or differs from row to row."""
    if c is None or c.data is None or c.size not in (1, channels) or (c.rank > 1 and c.shape[-1] != channels):
        return None
    if c.storage is not None and beta == 1.0 and c.shape == (channels,):
        return c
    values = np.broadcast_to(c.real().reshape(-1) * np.float32(beta), (channels,))
    return constant(ctx.name("bias"), np.ascontiguousarray(values, np.float32))


LOWERINGS: dict[str, Lowering] = {"MatMul": matmul, "Gemm": gemm}
