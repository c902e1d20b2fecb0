"""Fold a Pad into the padding of the operator after it.

1. Conv: constant zeros along spatial axes.
2. AveragePool: likewise, when it counts padding (or has none of its own, and then counts it), and does not round up.
3. MaxPool: −∞, or zeros around data that is never negative, as long as no window lies in the padding alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of
from edgec.passes.fuse_activations import clip_bounds
from edgec.passes.pattern import scalar_of
from edgec.passes.rewrite import Match, Refusal

_NEVER_NEGATIVE = frozenset({"Abs", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Sqrt"})


class FusePad:
    """See the module."""

    name = "pad"
    roots = frozenset({"AveragePool", "Conv", "MaxPool"})

    def match(self, node: ir.Node) -> Match | None:
        """A Pad before a windowed operator."""
        source = node.inputs[0]
        pad = source.producer() if source is not None else None
        if pad is None or pad.op_type != "Pad" or pad.domain != "" or pad.inputs[0] is None:
            return None
        return Match(node, values={"x": pad.inputs[0]}, nodes={"pad": pad})

    def check(self, match: Match) -> Refusal | None:
        """See the rules of the module."""
        node, pad = match.root, match.nodes["pad"]
        blame = pad.outputs[0].name or ""
        pads = _full_pads(pad)
        if pads is None:
            return Refusal(reason="the padding is not constant", value=blame)
        if attr(pad, "mode", "constant") != "constant":
            return Refusal(reason=f"the padding is {attr(pad, 'mode')}, not constant", value=blame)
        if attr(node, "auto_pad", "NOTSET") != "NOTSET":
            return Refusal(reason="the operator computes its own padding", value=blame)
        if np.any(pads < 0) or np.any(pads[:, :2]):
            return Refusal(reason="it pads batch or channels, or crops", value=blame)
        fill = scalar_of(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] is not None else 0.0
        if node.op_type == "MaxPool":
            return _check_max_pool(match, fill, pads)
        if fill != 0.0:
            return Refusal(reason=f"the padding value is {fill}, not 0", value=blame)
        if node.op_type == "AveragePool":
            if attr(node, "ceil_mode", 0):
                return Refusal(reason="the pool rounds its size up", value=blame)
            if any(attr(node, "pads", ())) and not attr(node, "count_include_pad", 0):
                return Refusal(reason="the pool does not count its own padding", value=blame)
            if not _within_kernel(node, pads):
                return Refusal(reason="the padding is as wide as the kernel", value=blame)
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:  # noqa: ARG002 - the protocol's signature
        """The operator alone, with the sum of both paddings."""
        node, pad = match.root, match.nodes["pad"]
        pads = _full_pads(pad)
        assert pads is not None
        node.attributes["pads"] = ir.AttrInt64s("pads", _summed(node, pads).reshape(-1).tolist())
        if node.op_type == "AveragePool":
            node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        node.replace_input_with(0, match.values["x"])
        return []


def _full_pads(pad: ir.Node) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | None:
    """Paddings as [2, rank] (before, after), or None when they are not constant."""
    source = pad.inputs[0]
    values = const_of(pad.inputs[1]) if len(pad.inputs) > 1 else None
    if values is None or source is None or source.shape is None:
        return None
    rank = len(source.shape)
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        given = const_of(pad.inputs[3])
        if given is None:
            return None
        axes = [int(axis) % rank for axis in given.reshape(-1)]
    if values.size != 2 * len(axes):
        return None
    full = np.zeros((2, rank), np.int64)
    full[:, axes] = values.reshape(2, -1)
    return full


def _summed(
    node: ir.Node, pads: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    spatial = pads[:, 2:]
    own = np.asarray(attr(node, "pads") or [0] * spatial.size, np.int64).reshape(2, -1)
    return spatial + own


def _within_kernel(node: ir.Node, pads: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> bool:
    kernel = np.asarray(attr(node, "kernel_shape") or (), np.int64)
    return bool(kernel.size and np.all(_summed(node, pads) < kernel))


def _check_max_pool(
    match: Match, fill: float | None, pads: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> Refusal | None:
    node, blame = match.root, match.nodes["pad"].outputs[0].name or ""
    before = match.values["x"].producer()
    if fill == 0.0:
        bounds = clip_bounds(before) if before is not None and before.op_type == "Clip" else None
        positive = before is not None and (before.op_type in _NEVER_NEGATIVE or (bounds is not None and bounds[0] >= 0))
        if not positive:
            return Refusal(reason="zeros around data that can be negative are no −∞", value=blame)
    elif fill is None or fill > -3.4e38:
        return Refusal(reason=f"the padding value is {fill}, not −∞", value=blame)
    if attr(node, "ceil_mode", 0) or not _within_kernel(node, pads):
        return Refusal(reason="a window can lie in the padding alone", value=blame)
    return None


PAD_RULES = (FusePad(),)
