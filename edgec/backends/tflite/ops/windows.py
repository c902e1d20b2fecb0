"""Sliding windows: where they start, what padding they need, and whether TFLite's SAME says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgec.backends.tflite.context import Refusal
from edgec.graph.model import attr


@dataclass(frozen=True, slots=True)
class Window:
    """One spatial axis: input size, kernel, stride, dilation, padding before and after."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int

    @property
    def span(self) -> int:
        """Input elements that one window covers."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def out(self) -> int:
        """Number of windows."""
        return (self.size + self.before + self.after - self.span) // self.stride + 1

    @property
    def same(self) -> bool:
        """Whether TFLite's SAME gives this very padding: total = (⌈size/stride⌉ − 1)·stride + span − size."""
        out = -(-self.size // self.stride)
        total = max((out - 1) * self.stride + self.span - self.size, 0)
        used = max((self.out - 1) * self.stride + self.span - self.size - self.before, 0)
        return self.out == out and self.before == total // 2 and used == total - total // 2

    @property
    def valid(self) -> bool:
        """Whether no padding is needed."""
        return self.before == 0 and (self.out - 1) * self.stride + self.span <= self.size


def windows(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> list[Window]:
    """The windows of a Conv or pooling node over spatial `sizes`, with auto_pad and ceil_mode resolved."""
    rank = len(sizes)
    strides = attr(node, "strides", (1,) * rank)
    dilations = attr(node, "dilations", (1,) * rank)
    auto = attr(node, "auto_pad", "NOTSET")
    ceil = bool(attr(node, "ceil_mode", 0))
    pads = attr(node, "pads", (0,) * 2 * rank)
    result = []
    for i, size in enumerate(sizes):
        if size < 0:
            raise Refusal("static-shape", "spatial sizes must be known when compiling")
        span = (kernel[i] - 1) * dilations[i] + 1
        before, after = pads[i], pads[rank + i]
        if auto == "VALID":
            before = after = 0
        elif auto.startswith("SAME"):
            total = max((-(-size // strides[i]) - 1) * strides[i] + span - size, 0)
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
            after = total - before
        if ceil:
            out = -(-(size + before + after - span) // strides[i]) + 1
            if (out - 1) * strides[i] >= size + before:  # a window may not start in the padding after
                out -= 1
            after = max(after, (out - 1) * strides[i] + span - size - before)
        result.append(Window(size, kernel[i], strides[i], dilations[i], before, after))
    return result
