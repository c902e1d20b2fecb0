"""Operators that arrange elements anew: reshape, transpose, concatenate, tile, expand, depth to space."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.ops.expr import expr
from edgec.backends.tflite.ops.moves import MOVES, moved, moved_many
from edgec.backends.tflite.ops.slicing import reverse, take_slices
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, const_of, shape_of
from edgec.tensors import DType


def _reshape(ctx: Context, node: ir.Node) -> Tensor:
    """Reshape, Flatten, Squeeze, Unsqueeze: the output's static shape says it all."""
    shape = shape_of(node.outputs[0])
    if sum(d < 0 for d in shape) > 1:
        raise Refusal("static-shape", f"{node.op_type} to a shape with several unknown sizes")
    return ctx.reshape(ctx.tensor(node.inputs[0]), shape)


def _identity(ctx: Context, node: ir.Node) -> Tensor:
    """The input itself."""
    return ctx.tensor(node.inputs[0])


def _dropout(ctx: Context, node: ir.Node) -> list[Tensor]:
    """Dropout at inference: the input, and a mask of ones. Training draws random numbers and is refused."""
    x = ctx.tensor(node.inputs[0])
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is not None:
        known, ratio = const_of(training), const_of(node.inputs[1])
        harmless = ratio is not None and float(ratio.reshape(())) == 0
        if not harmless and (known is None or bool(known.reshape(()))):
            raise Refusal("training", "Dropout in training mode is random", "export the model in evaluation mode")
    if len(node.outputs) < 2:
        return [x]
    return [x, ctx.constant(np.ones(x.shape, np.bool_), DType.BOOL)]


def _transpose(ctx: Context, node: ir.Node) -> Tensor:
    """Transpose; without perm the axes are reversed."""
    x = ctx.tensor(node.inputs[0])
    return ctx.transpose(x, attr(node, "perm") or tuple(range(x.rank))[::-1])


def _concat(ctx: Context, node: ir.Node) -> Tensor:
    """Concat; empty parts are left out."""
    tensors = [ctx.tensor(v) for v in node.inputs]
    axis = normalize_axis(attr(node, "axis"), tensors[0].rank)
    kept = [t for t in tensors if t.size] or tensors[:1]
    if len(kept) == 1:
        return kept[0]
    sizes = [t.shape[axis] for t in kept]
    shape = [*kept[0].shape]
    shape[axis] = -1 if min(sizes) < 0 else sum(sizes)

    def join(parts: list[Tensor]) -> list[Tensor]:
        return [ctx.emit("CONCATENATION", parts, shape, parts[0].dtype, axis=axis, fusedActivationFunction="NONE")]

    return moved_many(ctx, "CONCATENATION", kept, join)[0]


def _expand(ctx: Context, node: ir.Node) -> Tensor:
    """Expand to the output's shape."""
    shape = shape_of(node.outputs[0])
    if any(d < 0 for d in shape):
        raise Refusal("static-shape", "Expand to a shape that is not known when compiling")
    return broadcast(ctx, ctx.tensor(node.inputs[0]), shape)


def broadcast(ctx: Context, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x broadcast to a shape; constants at once."""
    if x.shape == shape:
        return x
    if x.data is not None and x.storage is None:
        return ctx.constant(np.broadcast_to(x.data, shape), x.dtype)
    return ctx.emit("BROADCAST_TO", [x, ctx.int32(list(shape))], shape, x.dtype)


def _tile(ctx: Context, node: ir.Node) -> Tensor:
    """Tile; repeats may come at run time."""
    x, repeats = ctx.tensor(node.inputs[0]), ctx.tensor(node.inputs[1])
    if repeats.data is None:
        return ctx.emit("TILE", [x, expr(ctx, repeats).to_int().t], shape_of(node.outputs[0]), x.dtype)
    shape = [d * int(r) for d, r in zip(x.shape, repeats.data, strict=True)]
    return x if shape == list(x.shape) else ctx.emit("TILE", [x, ctx.int32(repeats.data)], shape, x.dtype)


def _depth_to_space(ctx: Context, node: ir.Node) -> Tensor:
    """DCR order is TFLite's own; CRD order is a reshape, a transpose and a reshape."""
    x, block = ctx.tensor(node.inputs[0]), attr(node, "blocksize")
    n, c, h, w = x.shape
    depth = c // (block * block)
    dcr = attr(node, "mode", "DCR") == "DCR"
    if dcr and x.dtype in MOVES["DEPTH_TO_SPACE"]:
        nhwc = ctx.transpose(x, (0, 2, 3, 1))
        y = ctx.emit("DEPTH_TO_SPACE", [nhwc], (n, h * block, w * block, depth), x.dtype, blockSize=block)
        return ctx.transpose(y, (0, 3, 1, 2))
    if dcr:
        y = ctx.transpose(ctx.reshape(x, (n, block, block, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = ctx.transpose(ctx.reshape(x, (n, depth, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return ctx.reshape(y, (n, depth, h * block, w * block))


def _space_to_depth(ctx: Context, node: ir.Node) -> Tensor:
    """SpaceToDepth: TFLite's own in DCR order, else a reshape, a transpose and a reshape."""
    x, block = ctx.tensor(node.inputs[0]), attr(node, "blocksize")
    n, c, h, w = x.shape
    if attr(node, "mode", "DCR") == "CRD":
        y = ctx.transpose(ctx.reshape(x, (n, c, h // block, block, w // block, block)), (0, 1, 3, 5, 2, 4))
        return ctx.reshape(y, (n, c * block * block, h // block, w // block))
    nhwc = ctx.transpose(x, (0, 2, 3, 1))
    shape = (n, h // block, w // block, c * block * block)
    y = moved(
        ctx,
        "SPACE_TO_DEPTH",
        nhwc,
        lambda t: ctx.emit("SPACE_TO_DEPTH", [t], shape, t.dtype, blockSize=block),
    )
    return ctx.transpose(y, (0, 3, 1, 2))


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Identity": _identity,
    "Dropout": _dropout,
    "Transpose": _transpose,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}

__all__ = ["LOWERINGS", "broadcast", "reverse", "take_slices"]
