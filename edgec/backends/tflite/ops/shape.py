"""Operators that move data: reshape, transpose, concatenate, split, slice, pad, tile, expand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal, normalize_axis
from edgec.backends.tflite.tir import Tensor
from edgec.graph.model import attr, shape_of
from edgec.tensors import DType


def _reshape(ctx: Context, node: ir.Node) -> Tensor:
    """Reshape, Flatten, Squeeze, Unsqueeze: the output's static shape says it all."""
    return ctx.reshape(ctx.tensor(node.inputs[0]), shape_of(node.outputs[0]))


def _identity(ctx: Context, node: ir.Node) -> Tensor:
    return ctx.tensor(node.inputs[0])


def _transpose(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    return ctx.transpose(x, attr(node, "perm") or tuple(range(x.rank))[::-1])


def _concat(ctx: Context, node: ir.Node) -> Tensor:
    tensors = [ctx.tensor(v) for v in node.inputs]
    axis = normalize_axis(attr(node, "axis"), tensors[0].rank)
    _, shape, dtype = ctx.out_spec(node)
    kept = [t for t in tensors if t.size] or tensors[:1]
    if len(kept) == 1:
        return kept[0]
    return ctx.emit("CONCATENATION", kept, shape, dtype, axis=axis, fusedActivationFunction="NONE")


def _split(ctx: Context, node: ir.Node) -> list[Tensor]:
    x = ctx.tensor(node.inputs[0])
    axis = normalize_axis(attr(node, "axis", 0), x.rank)
    shapes = [shape_of(v) for v in node.outputs]
    outputs = [ctx.new(s, x.dtype, "split") for s in shapes]
    sizes = [s[axis] for s in shapes]
    if len(set(sizes)) == 1:
        ctx.emit_multi("SPLIT", [ctx.int32(axis), x], outputs, numSplits=len(outputs))
    else:
        ctx.emit_multi(
            "SPLIT_V", [x, ctx.int32(sizes), ctx.int32(axis)], outputs, numSplits=len(outputs)
        )
    return outputs


def _slice(ctx: Context, node: ir.Node) -> Tensor:
    x, *params = ctx.inputs(node)
    assert x is not None
    starts, ends = (ctx.const(params[i], name).tolist() for i, name in enumerate(("starts", "ends")))
    axes = (
        ctx.const(params[2], "axes").tolist()
        if len(params) > 2 and params[2] is not None
        else list(range(len(starts)))
    )
    steps = (
        ctx.const(params[3], "steps").tolist() if len(params) > 3 and params[3] is not None else [1] * len(starts)
    )
    spans = [slice(0, d, 1) for d in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normalize_axis(axis, x.rank)
        spans[axis] = slice(*slice(start, end, step).indices(x.shape[axis]))
    return take_slices(ctx, x, spans)


def take_slices(ctx: Context, x: Tensor, spans: list[slice]) -> Tensor:
    """x[spans] with resolved, possibly negative steps (an end of -1 then means: through element 0)."""
    lengths = [len(range(s.start, s.stop, s.step)) for s in spans]
    backward = [i for i, s in enumerate(spans) if s.step < 0]
    if backward:
        # a backward walk is a forward one over the reversed axis
        x = reverse(ctx, x, backward)
        for i in backward:
            s, last = spans[i], x.shape[i] - 1
            spans[i] = slice(last - s.start, last - s.start + (lengths[i] - 1) * -s.step + 1, -s.step)
    if lengths == list(x.shape):
        return x
    begin = [s.start for s in spans]
    if all(s.step == 1 for s in spans) or not all(lengths):
        return ctx.emit("SLICE", [x, ctx.int32(begin), ctx.int32(lengths)], lengths, x.dtype)
    if x.rank > 5:
        raise Refusal("rank", f"a strided Slice of rank {x.rank} has no TFLite kernel")
    end = [s.start + (n - 1) * s.step + 1 for s, n in zip(spans, lengths, strict=True)]
    return ctx.emit(
        "STRIDED_SLICE",
        [x, ctx.int32(begin), ctx.int32(end), ctx.int32([s.step for s in spans])],
        lengths,
        x.dtype,
        beginMask=0,
        endMask=0,
        ellipsisMask=0,
        newAxisMask=0,
        shrinkAxisMask=0,
    )


def reverse(ctx: Context, x: Tensor, axes: list[int]) -> Tensor:
    """x flipped along axes (REVERSE_V2 takes adjacent axes only, so one operator each)."""
    for axis in axes:
        x = ctx.emit("REVERSE_V2", [x, ctx.int32([axis])], x.shape, x.dtype)
    return x


def _pad(ctx: Context, node: ir.Node) -> Tensor:
    x, *params = ctx.inputs(node)
    assert x is not None
    amounts = ctx.const(params[0], "pads").astype(np.int64).reshape(2, -1)
    axes = range(x.rank)
    if len(params) > 2 and params[2] is not None:
        axes = [normalize_axis(int(a), x.rank) for a in ctx.const(params[2], "axes")]
    pads = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        pads[axis] = (int(amounts[0, i]), int(amounts[1, i]))
    mode = attr(node, "mode", "constant")
    spans = [slice(max(-b, 0), d - max(-a, 0), 1) for d, (b, a) in zip(x.shape, pads, strict=True)]
    x = take_slices(ctx, x, spans)
    pads = [(max(b, 0), max(a, 0)) for b, a in pads]
    if not any(b or a for b, a in pads):
        return x
    if mode == "constant":
        value = ctx.const(params[1], "constant_value") if len(params) > 1 and params[1] is not None else 0
        return constant_pad(ctx, x, pads, float(np.asarray(value).reshape(())))
    return _indexed_pad(ctx, x, pads, mode)


def constant_pad(ctx: Context, x: Tensor, pads: list[tuple[int, int]], value: float) -> Tensor:
    """x with a constant around it; infinite values become the largest finite ones."""
    if x.dtype == DType.FLOAT32:
        value = float(np.clip(value, np.finfo(np.float32).min, np.finfo(np.float32).max))
    shape = [d + b + a for d, (b, a) in zip(x.shape, pads, strict=True)]
    paddings = ctx.int32(np.asarray(pads))
    if value == 0:
        return ctx.emit("PAD", [x, paddings], shape, x.dtype)
    return ctx.emit("PADV2", [x, paddings, ctx.scalar(value, x)], shape, x.dtype)


def _indexed_pad(ctx: Context, x: Tensor, pads: list[tuple[int, int]], mode: str) -> Tensor:
    """reflect as MIRROR_PAD where it reaches; edge, wrap and wider reflections gather by constant indices."""
    if mode == "reflect" and all(max(p) < d for p, d in zip(pads, x.shape, strict=True) if any(p)):
        shape = [d + b + a for d, (b, a) in zip(x.shape, pads, strict=True)]
        return ctx.emit("MIRROR_PAD", [x, ctx.int32(np.asarray(pads))], shape, x.dtype, mode="REFLECT")
    for axis, (before, after) in enumerate(pads):
        if before or after:
            index = np.pad(np.arange(x.shape[axis]), (before, after), mode=mode)  # type: ignore[call-overload]
            shape = [*x.shape[:axis], len(index), *x.shape[axis + 1 :]]
            x = ctx.emit("GATHER", [x, ctx.int32(index)], shape, x.dtype, axis=axis, batchDims=0)
    return x


def _expand(ctx: Context, node: ir.Node) -> Tensor:
    return broadcast(ctx, ctx.tensor(node.inputs[0]), shape_of(node.outputs[0]))


def broadcast(ctx: Context, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x broadcast to a shape; constants at once."""
    if x.shape == shape:
        return x
    if x.data is not None and x.storage is None:
        return ctx.constant(np.broadcast_to(x.data, shape), x.dtype)
    return ctx.emit("BROADCAST_TO", [x, ctx.int32(list(shape))], shape, x.dtype)


def _tile(ctx: Context, node: ir.Node) -> Tensor:
    x = ctx.tensor(node.inputs[0])
    repeats = ctx.const(ctx.tensor(node.inputs[1]), "repeats")
    shape = [d * int(r) for d, r in zip(x.shape, repeats, strict=True)]
    return x if shape == list(x.shape) else ctx.emit("TILE", [x, ctx.int32(repeats)], shape, x.dtype)


def _depth_to_space(ctx: Context, node: ir.Node) -> Tensor:
    """DCR order is TFLite's own; CRD order is a reshape, a transpose and a reshape."""
    x, block = ctx.tensor(node.inputs[0]), attr(node, "blocksize")
    n, c, h, w = x.shape
    depth = c // (block * block)
    if attr(node, "mode", "DCR") == "DCR" and x.dtype == DType.FLOAT32:
        nhwc = ctx.transpose(x, (0, 2, 3, 1))
        y = ctx.emit("DEPTH_TO_SPACE", [nhwc], (n, h * block, w * block, depth), x.dtype, blockSize=block)
        return ctx.transpose(y, (0, 3, 1, 2))
    if attr(node, "mode", "DCR") == "DCR":
        y = ctx.transpose(ctx.reshape(x, (n, block, block, depth, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = ctx.transpose(ctx.reshape(x, (n, depth, block, block, h, w)), (0, 1, 4, 2, 5, 3))
    return ctx.reshape(y, (n, depth, h * block, w * block))


def _space_to_depth(ctx: Context, node: ir.Node) -> Tensor:
    x, block = ctx.tensor(node.inputs[0]), attr(node, "blocksize")
    n, c, h, w = x.shape
    nhwc = ctx.transpose(x, (0, 2, 3, 1))
    shape = (n, h // block, w // block, c * block * block)
    return ctx.transpose(ctx.emit("SPACE_TO_DEPTH", [nhwc], shape, x.dtype, blockSize=block), (0, 3, 1, 2))


LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Identity": _identity,
    "Dropout": _identity,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
