"""Layer and RMS normalisations come back as one operator."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.passes.fuse_norms import LayerNorm, PlainLayerNorm, RmsNorm
from edgec.tensors import Array
from tests.support.graphs import graph
from tests.support.rewriting import refused, rewritten

CONSTANTS: dict[str, Array] = {
    "g": np.linspace(0.5, 1.5, 8, dtype=np.float32),
    "b": np.linspace(-1, 1, 8, dtype=np.float32),
    "e": np.asarray(1e-5, np.float32),
    "two": np.asarray(2, np.float32),
    "axes": np.asarray([-1], np.int64),
}
NORMAL = (
    "m = ReduceMean(x, axes) c = Sub(x, m) q = Pow(c, two) v = ReduceMean(q, axes) "
    "w = Add(v, e) d = Sqrt(w) n = Div(c, d)"
)


def test_layer_norm() -> None:
    source = graph(
        f"(float[2,3,8] x) => (float[2,3,8] y) {{ {NORMAL} s = Mul(n, g) y = Add(s, b) }}", constants=CONSTANTS
    )
    assert rewritten(source, [LayerNorm()], relative=2e-6) == {"LayerNormalization": 1}


def test_layer_norm_squares_by_product_and_reciprocal() -> None:
    body = (
        "m = ReduceMean(x, axes) c = Sub(x, m) q = Mul(c, c) v = ReduceMean(q, axes) "
        "w = Add(e, v) d = Sqrt(w) r = Reciprocal(d) n = Mul(r, c) s = Mul(g, n) y = Add(b, s)"
    )
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y) {{ {body} }}", constants=CONSTANTS)
    assert rewritten(source, [LayerNorm()], relative=2e-6) == {"LayerNormalization": 1}


def test_plain_layer_norm() -> None:
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] n) {{ {NORMAL} }}", constants=CONSTANTS)
    assert rewritten(source, [PlainLayerNorm()], relative=2e-6) == {"LayerNormalization": 1}


def test_means_over_channels_are_refused() -> None:
    constants = CONSTANTS | {"axes": np.asarray([1], np.int64)}
    source = graph(
        f"(float[2,8,8] x) => (float[2,8,8] y) {{ {NORMAL} s = Mul(n, g) y = Add(s, b) }}", constants=constants
    )
    assert refused(source, [LayerNorm()]) == ["the means do not run over the same last axes"]


def test_scale_of_another_shape_is_refused() -> None:
    constants = CONSTANTS | {"g": np.ones((3, 8), np.float32)}
    source = graph(
        f"(float[2,3,8] x) => (float[2,3,8] y) {{ {NORMAL} s = Mul(n, g) y = Add(s, b) }}", constants=constants
    )
    assert refused(source, [LayerNorm()]) == ["scale does not have the shape of the normalised axes"]


RMS = "q = Mul(x, x) v = ReduceMean(q, axes) w = Add(v, e) d = Sqrt(w) n = Div(x, d) y = Mul(n, g)"


def test_rms_norm_from_opset_23() -> None:
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y) {{ {RMS} }}", opset=23, constants=CONSTANTS)
    assert rewritten(source, [RmsNorm()], relative=2e-6) == {"RMSNormalization": 1}


@pytest.mark.parametrize("opset", [21, 22])
def test_rms_norm_before_is_refused(opset: int) -> None:
    source = graph(f"(float[2,3,8] x) => (float[2,3,8] y) {{ {RMS} }}", opset=opset, constants=CONSTANTS)
    assert refused(source, [RmsNorm()]) == [f"opset {opset} has no RMSNormalization"]
