"""Gathering: GATHER and GATHER_ND."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.shape import take_slices
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr
from edgec.tensors import DType

_INDEX = (DType.INT32, DType.INT64)


def non_negative_index(ctx: Context, index: Tensor, size: int) -> Tensor:
    """ONNX counts negative indices from the end, TFLite does not: constants are mended, others computed."""
    if index.data is not None:
        data = index.real()
        return ctx.int32(np.where(data < 0, data + size, data))
    shifted = ctx.binary("ADD", index, ctx.scalar(size, index), fusedActivationFunction="NONE")
    negative = ctx.binary("LESS", index, ctx.scalar(0, index))
    negative.dtype = DType.BOOL
    return ctx.emit("SELECT_V2", [negative, shifted, index], index.shape, index.dtype)


def _gather(ctx: Context, node: ir.Node) -> Tensor:
    x, index = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    index = non_negative_index(ctx, index, x.shape[axis])
    shape = [*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]]
    if index.data is not None and index.size == 1 and x.data is None:
        # one constant index is a slice, which every delegate runs
        spans = [slice(0, d, 1) for d in x.shape]
        position = int(index.data.reshape(()))
        spans[axis] = slice(position, position + 1, 1)
        return ctx.reshape(take_slices(ctx, x, spans), shape)
    return ctx.emit("GATHER", [x, index], shape, x.dtype, axis=axis, batchDims=0)


def _gather_nd(ctx: Context, node: ir.Node) -> Tensor:
    if attr(node, "batch_dims", 0):
        raise Refusal("batch-dims", "GatherND with batch_dims")
    x, index = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    _, shape, _ = ctx.out_spec(node)
    return ctx.emit("GATHER_ND", [x, index], shape, x.dtype)


LOWERINGS: dict[str, Lowering] = {"Gather": _gather, "GatherND": _gather_nd}
