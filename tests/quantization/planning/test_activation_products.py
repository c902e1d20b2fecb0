"""Products of two activations: where int8 pays for them, and the ranges that their kernels take."""

from __future__ import annotations

import pytest

from edgec.quantization.planning.plan import make_plan, scheme_of, tensors_to_observe
from edgec.quantization.types import QuantPlan
from edgec.targets.load import load_target
from edgec.tensors import DType
from tests.support.plans import kernel, statistics, typed, with_scheme

ATTENTION = typed(
    """(float[4,8] q, float[8,4] k, float[4,8] v) => (float[4,8] y) {
    a = MatMul(q, k) s = Softmax(a) y = MatMul(s, v) }"""
)
EXTENTS = {"q": (-1.0, 3.0), "k": (0.0, 2.0), "v": (-4.0, 1.0), "a": (-9.0, 9.0), "s": (0.0, 0.02), "y": (-1.0, 1.0)}
INTEL = load_target("intel-cpu")


def plan_of(target: object = INTEL, backend: str = "openvino") -> QuantPlan:
    return make_plan(ATTENTION, statistics(EXTENTS), target, backend, "int8", range_method="minmax")  # type: ignore[arg-type]


def zero_point(plan: QuantPlan, name: str) -> int:
    return plan.activations[name].qparams.zero_point[0]


def test_openvinos_kernel_takes_no_zero_points() -> None:
    plan = plan_of()
    assert {n.scheme for name, n in plan.nodes.items() if name.startswith("MatMul")} == {"int8"}
    assert zero_point(plan, "q") == zero_point(plan, "v") == 128
    assert zero_point(plan, "k") == 128, "the second operand is signed, whatever its values"
    assert zero_point(plan, "s") == 0, "the first may be unsigned"
    assert plan.activations["q"].qparams.scale[0] == pytest.approx(3 / 127, rel=1e-6)
    assert plan.activations["v"].qparams.scale[0] == pytest.approx(4 / 128, rel=1e-6)


def test_a_scheme_whose_kernel_takes_zero_points_keeps_them() -> None:
    plan = plan_of(with_scheme("openvino", name="intel-cpu", symmetric_products=False))
    assert zero_point(plan, "q") == 64 and zero_point(plan, "k") == 0


def test_signed_operands_are_centred_on_0() -> None:
    plan = plan_of(with_scheme("openvino", name="intel-cpu", activation_dtype=DType.INT8))
    assert {zero_point(plan, name) for name in "qkvs"} == {0}


def test_a_softmax_has_the_range_that_was_seen() -> None:
    """Its values are small where there are many: 256 steps up to 1 would make nothing of them."""
    assert "s" in tensors_to_observe(ATTENTION, scheme_of(INTEL, "openvino"), backend="openvino")
    plan = plan_of()
    assert plan.activations["s"].qparams.scale[0] == pytest.approx(0.02 / 255, rel=1e-6)
    assert "all that calibration saw" in plan.activations["s"].reason


def test_a_softmax_whose_scale_the_runtime_fixes_is_not_observed() -> None:
    ops = scheme_of(INTEL, "tflite").int8_ops | {"MatMul:activations"}
    target = with_scheme("tflite", name="intel-cpu", int8_ops=ops)
    assert "s" not in tensors_to_observe(ATTENTION, scheme_of(target, "tflite"))
    assert plan_of(target, "tflite").activations["s"].qparams.scale == (1 / 256,)


@pytest.mark.parametrize(("columns", "scheme"), [(16, "int8"), (64, "float32")])
def test_products_that_are_little_of_the_work_stay_float(columns: int, scheme: str) -> None:
    """10 % is where int8 begins to pay: 4 × 4 × 4 multiplications beside 4 × 4 × `columns` and then the same again."""
    model = typed(
        """(float[4,4] x, float[4,4] z) => (float[4,4] y) {
        a = MatMul(x, w) b = MatMul(a, u) y = MatMul(b, z) }""",
        {"w": kernel(4, columns), "u": kernel(columns, 4)},
    )
    extents = dict.fromkeys("xzaby", (-1.0, 1.0))
    plan = make_plan(model, statistics(extents), INTEL, "openvino", "int8", range_method="minmax")
    assert plan.nodes["MatMul_y"].scheme == scheme and plan.nodes["MatMul_a"].scheme == "int8"
