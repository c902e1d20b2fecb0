"""Losses: the log-probability at the target, by comparing the target with every class.

Axes behind the classes are taken as one, so that any rank fits: [batch, classes, positions].
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.activation import softmax
from edgec.backends.tflite.ops.dtypes import FLOATS, convert
from edgec.backends.tflite.ops.elementwise import arithmetic, select
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType


def _flat(ctx: Context, x: Tensor) -> Tensor:
    batch, classes = x.shape[:2]
    return ctx.reshape(x, (batch, classes, x.size // max(batch * classes, 1)))


def _loss(ctx: Context, node: ir.Node, log_prob: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """−Σ w · log_prob[target], reduced as the node says; ignored targets weigh nothing."""
    batch, classes, positions = log_prob.shape
    labels = ctx.reshape(target, (batch, 1, positions))
    numbers = ctx.constant(np.arange(classes).reshape(1, classes, 1), target.dtype)
    hit = ctx.emit("EQUAL", [labels, numbers], log_prob.shape, DType.BOOL)
    ignored = attr(node, "ignore_index")
    if ignored is not None:
        kept = ctx.emit("NOT_EQUAL", [labels, ctx.scalar(ignored, labels)], labels.shape, DType.BOOL)
        hit = ctx.binary("LOGICAL_AND", hit, kept)
    zero = ctx.scalar(0.0, log_prob)
    value = reduce(ctx, "SUM", select(ctx, hit, log_prob, zero), [1], keep=False)
    weights = None
    if weight is not None:
        spread = select(ctx, hit, ctx.reshape(weight, (1, classes, 1)), zero)
        weights = reduce(ctx, "SUM", spread, [1], keep=False)
        value = arithmetic(ctx, "MUL", value, weights)
    elif ignored is not None:
        weights = ctx.cast(ctx.reshape(kept, (batch, positions)), DType.FLOAT32)
    loss = ctx.unary("NEG", value)
    reduction = attr(node, "reduction", "mean")
    if reduction == "none":
        return ctx.reshape(loss, ctx.out_spec(node)[1])
    if reduction == "sum":
        return reduce(ctx, "SUM", loss, [0, 1], keep=False)
    if weights is None:
        return reduce(ctx, "MEAN", loss, [0, 1], keep=False)
    total = reduce(ctx, "SUM", weights, [0, 1], keep=False)
    return arithmetic(ctx, "DIV", reduce(ctx, "SUM", loss, [0, 1], keep=False), total)


def _operands(ctx: Context, node: ir.Node) -> tuple[Tensor, Tensor, Tensor | None, DType]:
    x, target, *rest = ctx.inputs(node)
    assert x is not None and target is not None
    if x.dtype not in FLOATS:
        raise Refusal("dtype", f"{node.op_type} on {x.dtype}")
    weight = rest[0] if rest else None
    weight = None if weight is None else convert(ctx, weight, DType.FLOAT32)
    batch = x.shape[0]
    labels = ctx.reshape(target, (batch, target.size // max(batch, 1)))
    return _flat(ctx, convert(ctx, x, DType.FLOAT32)), labels, weight, x.dtype


def _nll(ctx: Context, node: ir.Node) -> Tensor:
    """The negative log-likelihood of the targets."""
    x, target, weight, dtype = _operands(ctx, node)
    return convert(ctx, _loss(ctx, node, x, target, weight), dtype)


def _cross_entropy(ctx: Context, node: ir.Node) -> list[Tensor]:
    """The same of log-softmax over the classes, which is the second output."""
    x, target, weight, dtype = _operands(ctx, node)
    log_prob = softmax(ctx, x, 1, "LOG_SOFTMAX")
    loss = convert(ctx, _loss(ctx, node, log_prob, target, weight), dtype)
    if len(node.outputs) == 1:
        return [loss]
    shape = ctx.tensor(node.inputs[0]).shape
    return [loss, convert(ctx, ctx.reshape(log_prob, shape), dtype)]


LOWERINGS: dict[str, Lowering] = {"NegativeLogLikelihoodLoss": _nll, "SoftmaxCrossEntropyLoss": _cross_entropy}
