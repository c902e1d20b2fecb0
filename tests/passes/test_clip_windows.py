"""A pooling window larger than its input is as large as the input."""

from __future__ import annotations

import pytest

from edgec.graph.model import attr
from edgec.passes.clip_windows import WINDOW_RULES
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.rewrite import RewritePass
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten


@pytest.mark.parametrize("op", ["AveragePool <count_include_pad=1,", "AveragePool <", "MaxPool <"])
@pytest.mark.parametrize("window", ["kernel_shape=[9,9], strides=[9,9]", "kernel_shape=[2,7], strides=[2,2]"])
def test_clipped(op: str, window: str) -> None:
    source = graph(f"(float[1,3,4,6] x) => (float[1,3,?,?] y) {{ y = {op} {window}, ceil_mode=1> (x) }}")
    assert rewritten(source, WINDOW_RULES, relative=1e-6) == {op.split()[0]: 1}
    clipped = source.clone()
    FoldConstants().run(clipped)  # infers the shapes
    assert RewritePass("test", WINDOW_RULES).run(clipped)
    assert all(size <= limit for size, limit in zip(attr(next(clipped.nodes()), "kernel_shape"), (4, 6), strict=True))


def test_a_window_inside_the_input_stays() -> None:
    source = graph(
        "(float[1,3,4,6] x) => (float[1,3,?,?] y) { y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x) }"
    )
    assert refused(source, WINDOW_RULES) == []


def test_padding_is_left_alone() -> None:
    source = graph(
        "(float[1,3,4,6] x) => (float[1,3,?,?] y) "
        "{ y = AveragePool <kernel_shape=[5,3], strides=[5,3], pads=[1,0,1,0], ceil_mode=1> (x) }"
    )
    assert refused(source, WINDOW_RULES) == ["the axis is padded"]
