"""Where the channels of a value lie: three axes are a sequence or what convolutions along one axis read and write."""

from __future__ import annotations

import pytest

from edgec.graph.channels import channel_axis
from tests.support.plans import kernel, typed

MODEL = typed(
    """(float[1,4,20] x, float[1,4,20] z, float[1,4,6,6] i, float v) => (float[1,8,20] y, float[1,4,8] t, float w)
    { a = Relu(x) c = Conv(a, k) s = Sigmoid(c) y = Mul(c, s) m = MatMul(z, d) g = Gelu(m) t = Add(g, g)
      j = Relu(i) w = Neg(v) }""",
    {"k": kernel(8, 4, 1), "d": kernel(20, 8, seed=1)},
)


@pytest.mark.parametrize(
    ("name", "axis"), [*((n, 1) for n in "xacsyij"), *((n, 2) for n in "zmgt"), ("v", None), ("w", None)]
)
def test_axis(name: str, axis: int | None) -> None:
    values = {v.name: v for v in (*MODEL.graph.inputs, *(v for n in MODEL.nodes() for v in n.outputs))}
    assert channel_axis(values[name]) == axis
