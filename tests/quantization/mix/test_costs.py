"""Costs of a mix: what converts, what float and int8 take, and that nothing is said without coefficients."""

from __future__ import annotations

import pytest

from edgec.quantization.mix.costs import Costs, costs_of
from edgec.quantization.types import NodeScheme
from edgec.targets.load import load_target
from tests.support.plans import kernel, typed

TARGET = load_target("raspberrypi4")

NET = """(float[1,64,32,32] x) => (float[1,64,32,32] y)
{ a = Conv <pads = [1,1,1,1]> (x, w1) b = Relu(a) y = Conv <pads = [1,1,1,1]> (b, w2) }"""


def costs() -> Costs:
    model = typed(NET, {"w1": kernel(64, 64, 3, 3), "w2": kernel(64, 64, 3, 3, seed=1)})
    found = costs_of(model, TARGET, "tflite")
    assert found is not None
    return found


def schemes(first: NodeScheme, second: NodeScheme) -> dict[str, NodeScheme]:
    return {"Conv_a": first, "Relu_b": first if first != "dynamic" else "float32", "Conv_y": second}


def converted(mix: dict[str, NodeScheme]) -> set[str]:
    return {value.name for value in costs().values if value.converted_to(mix)}


def test_values_are_converted_where_int8_meets_float() -> None:
    assert converted(schemes("int8", "int8")) == {"x", "y"}
    assert converted(schemes("int8", "float32")) == {"x", "b"}
    assert converted(schemes("float32", "int8")) == {"b", "y"}
    assert converted(schemes("float32", "dynamic")) == set()


def test_int8_is_estimated_faster_and_smaller_and_mixes_lie_between() -> None:
    found = costs()
    order: list[dict[str, NodeScheme]] = [
        schemes("int8", "int8"),
        schemes("int8", "float32"),
        schemes("float32", "float32"),
    ]
    seconds = [found.total_seconds(mix) for mix in order]
    assert seconds == sorted(seconds) and seconds[0] < seconds[-1]
    assert [found.total_bytes(mix) // (64 * 64 * 9) for mix in order] == [2, 5, 8]
    assert found.total_bytes(schemes("int8", "dynamic")) == found.total_bytes(schemes("int8", "int8"))


def test_an_activation_fused_to_its_convolution_costs_nothing() -> None:
    assert not any(name == "Relu_b" for name, _ in costs().seconds)


@pytest.mark.parametrize("speed", [{}, None])
def test_a_target_without_coefficients_has_no_costs(speed: dict[str, object] | None) -> None:
    estimate = None if speed is None or TARGET.estimate is None else TARGET.estimate.model_copy(update={"speed": speed})
    model = typed(NET, {"w1": kernel(64, 64, 3, 3), "w2": kernel(64, 64, 3, 3, seed=1)})
    assert costs_of(model, TARGET.model_copy(update={"estimate": estimate}), "tflite") is None


def test_a_difference_is_that_of_the_totals() -> None:
    found = costs()
    forms: list[NodeScheme] = ["int8", "dynamic", "float32"]
    mixes = [schemes(first, second) for first in forms for second in forms]
    for old in mixes:
        for new in mixes:
            seconds, size = found.difference(old, new, found.touching())
            assert seconds == pytest.approx(found.total_seconds(new) - found.total_seconds(old), abs=1e-12)
            assert size == found.total_bytes(new) - found.total_bytes(old)
