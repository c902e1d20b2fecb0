"""A Pad goes into the operator after it where that means the same."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fuse_pad import PAD_RULES
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten

W = np.random.default_rng(1).normal(0, 1, (3, 2, 3, 3)).astype(np.float32)


def pads(*values: int) -> Array:
    return np.asarray(values, np.int64)


SPATIAL = pads(0, 0, 1, 2, 0, 0, 1, 0)


def test_conv() -> None:
    source = graph(
        "(float[1,2,6,6] x) => (float[1,3,?,?] y) { p = Pad(x, a) y = Conv <pads=[0,1,0,1]> (p, w) }",
        constants={"a": SPATIAL, "w": W},
    )
    assert rewritten(source, PAD_RULES, relative=1e-6) == {"Conv": 1}


def test_conv_with_axes() -> None:
    source = graph(
        "(float[1,2,6,6] x) => (float[1,3,?,?] y) { p = Pad(x, a, , i) y = Conv(p, w) }",
        constants={"a": pads(1, 2, 1, 0), "i": pads(2, -1), "w": W},
    )
    assert rewritten(source, PAD_RULES, relative=1e-6) == {"Conv": 1}


def test_average_pool_then_counts_the_padding() -> None:
    source = graph(
        "(float[1,2,6,6] x) => (float[1,2,?,?] y) { p = Pad(x, a) y = AveragePool <kernel_shape=[3,3]> (p) }",
        constants={"a": SPATIAL},
    )
    assert rewritten(source, PAD_RULES, relative=1e-6) == {"AveragePool": 1}


@pytest.mark.parametrize(("before", "fill"), [("Relu", 0.0), ("Neg", -np.inf)])
def test_max_pool(before: str, fill: float) -> None:
    source = graph(
        f"(float[1,2,6,6] x) => (float[1,2,?,?] y) {{ r = {before}(x) p = Pad(r, a, f) "
        "y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (p) }",
        constants={"a": SPATIAL, "f": np.asarray(fill, np.float32)},
    )
    assert rewritten(source, PAD_RULES, relative=0) == {before: 1, "MaxPool": 1}


REFUSED: dict[str, tuple[str, dict[str, Array], str]] = {
    "value": ("p = Pad(x, a, f) y = Conv(p, w)", {"f": np.asarray(1, np.float32)}, "the padding value is 1.0, not 0"),
    "mode": (
        'p = Pad <mode="edge"> (x, a) y = Conv(p, w)',
        {},
        "the padding is edge, not constant",
    ),
    "channels": (
        "p = Pad(x, a) y = Conv(p, v)",
        {"a": pads(0, 1, 0, 0, 0, 0, 0, 0), "v": np.ones((1, 3, 1, 1), np.float32)},
        "it pads batch or channels, or crops",
    ),
    "crop": (
        "p = Pad(x, a) y = Conv(p, w)",
        {"a": pads(0, 0, -1, 0, 0, 0, 0, 0)},
        "it pads batch or channels, or crops",
    ),
    "max pool of anything": (
        "p = Pad(x, a) y = MaxPool <kernel_shape=[3,3]> (p)",
        {},
        "zeros around data that can be negative are no −∞",
    ),
    "max pool of one": (
        "p = Pad(x, a, f) y = MaxPool <kernel_shape=[3,3]> (p)",
        {"f": np.asarray(1, np.float32)},
        "the padding value is 1.0, not −∞",
    ),
    "wide": (
        "r = Relu(x) p = Pad(r, a) y = MaxPool <kernel_shape=[2,2]> (p)",
        {"a": pads(0, 0, 2, 2, 0, 0, 2, 2)},
        "a window can lie in the padding alone",
    ),
    "average of its own padding": (
        "p = Pad(x, a) y = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (p)",
        {},
        "the pool does not count its own padding",
    ),
    "average rounding up": (
        "p = Pad(x, a) y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (p)",
        {},
        "the pool rounds its size up",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, constants, reason = REFUSED[name]
    used = {"a": SPATIAL, "w": W} | constants
    used = {key: value for key, value in used.items() if f" {key}" in body.replace("(", " ").replace(",", " ")}
    source = graph(f"(float[1,2,6,6] x) => (float y) {{ {body} }}", constants=used)
    assert refused(source, PAD_RULES) == [reason]
