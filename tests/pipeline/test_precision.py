"""Which precision a build takes: asked for, preferred, or fallen back to."""

from __future__ import annotations

import pytest

from edgec.errors import EdgecError
from edgec.pipeline.precision import (
    AUTO_MIN_SQNR_DB,
    COLLAPSE_SQNR_DB,
    backend_facts,
    candidates,
    check_ranges,
    keeps_accuracy,
    low_fidelity,
    lower_in_runtime,
)
from edgec.targets.load import list_targets, load_target
from edgec.targets.profile import Target

PI = load_target("raspberrypi4")


def resolve(asked: str, *, calibrated: bool, target: Target = PI, backend: str | None = None) -> tuple[str, ...]:
    name, facts = backend_facts(target, backend)
    return candidates(asked, target, name, facts, calibrated=calibrated).precisions


def test_what_is_asked_for_is_the_only_candidate() -> None:
    assert resolve("float16", calibrated=False) == ("float16",)
    assert resolve("int8", calibrated=True) == ("int8",)


def test_auto_follows_the_target_down_to_float32() -> None:
    order = resolve("auto", calibrated=True)
    assert order[0] == "int8" and order[-1] == "float32"
    assert "int16x8" not in order and "float16" not in order


def test_auto_without_data_leaves_out_what_needs_it_and_says_so() -> None:
    name, facts = backend_facts(PI, None)
    found = candidates("auto", PI, name, facts, calibrated=False)
    assert "int8" not in found.precisions and "int16x8" not in found.precisions
    assert [f.code for f in found.findings] == ["calibration/none"]


def test_auto_says_nothing_of_data_where_none_is_needed() -> None:
    name, facts = backend_facts(PI, "openvino")
    plain = facts.model_copy(update={"precisions": ("float16", "float32")})
    assert candidates("auto", PI, name, plain, calibrated=False).findings == ()


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_integers_need_calibration_data(precision: str) -> None:
    with pytest.raises(EdgecError) as error:
        resolve(precision, calibrated=False)
    assert error.value.code == "calibration/missing"
    assert "--calibration" in error.value.finding.hint and "dynamic" in error.value.finding.hint


def test_an_unknown_precision_gets_a_suggestion() -> None:
    with pytest.raises(EdgecError) as error:
        resolve("flaot32", calibrated=True)
    assert error.value.code == "cli/unknown-precision" and "float32" in error.value.finding.hint


def test_a_precision_that_the_target_does_not_take() -> None:
    with pytest.raises(EdgecError) as error:
        resolve("int16x8", calibrated=True, target=load_target("intel-cpu"))
    assert error.value.code == "target/no-precision" and "float32" in error.value.finding.hint


def test_an_unknown_backend_gets_a_suggestion() -> None:
    with pytest.raises(EdgecError) as error:
        backend_facts(PI, "tflit")
    assert error.value.code == "target/no-backend" and "tflite" in error.value.finding.hint
    assert backend_facts(PI, None)[0] == PI.default_backend


@pytest.mark.parametrize(
    ("sqnr", "top1", "good"),
    [
        (None, None, True),
        (AUTO_MIN_SQNR_DB, None, True),
        (AUTO_MIN_SQNR_DB - 0.1, None, False),
        (40.0, 1.0, True),
        (40.0, 0.98, False),
        (None, 0.98, False),
    ],
)
def test_the_default_budget(sqnr: float | None, top1: float | None, good: bool) -> None:
    kept, words = keeps_accuracy({"sqnr_db": sqnr, "top1_agreement": top1})
    assert kept is good
    assert ("exact" in words) is (sqnr is None) and ("top-1" in words) is (top1 is not None)


@pytest.mark.parametrize(
    ("sqnr", "codes"),
    [
        (COLLAPSE_SQNR_DB - 1, ["quant/collapsed"]),
        (AUTO_MIN_SQNR_DB - 1, ["quant/low-fidelity"]),
        (AUTO_MIN_SQNR_DB, []),
        (None, []),
    ],
)
def test_a_loss_is_said_loudly(sqnr: float | None, codes: list[str]) -> None:
    found = low_fidelity("int8", {"sqnr_db": sqnr, "top1_agreement": None}, backend_facts(PI, None)[1])
    assert [f.code for f in found] == codes
    assert all("--precision auto" in f.hint for f in found)


def with_tflite(target: Target, **changes: object) -> Target:
    facts = target.backends["tflite"]
    scheme = facts.scheme.model_copy(update=changes)
    return target.model_copy(update={"backends": {"tflite": facts.model_copy(update={"scheme": scheme})}})


@pytest.mark.parametrize("name", list_targets())
def test_operators_of_the_shipped_profiles_are_known(name: str) -> None:
    target = load_target(name)
    for backend in target.backends:
        backend_facts(target, backend)


@pytest.mark.parametrize("key", ["int8_ops", "same_scale_ops", "fused_activations"])
def test_a_misspelt_operator_in_a_profile_is_refused(key: str) -> None:
    with pytest.raises(EdgecError) as error:
        backend_facts(with_tflite(PI, **{key: frozenset({"Cnov", "Relu"})}), None)
    assert error.value.code == "target/invalid" and f"scheme.{key}: 'Cnov'" in str(error.value)
    assert "Conv" in error.value.finding.hint


def test_integers_at_the_border_are_the_tflite_backend_s() -> None:
    target = PI.model_copy(update={"io_dtype": "int8"})
    for backend, codes in (("tflite", []), ("openvino", ["target/no-effect"])):
        name, facts = backend_facts(target, backend)
        assert [f.code for f in candidates("int8", target, name, facts, calibrated=True).findings] == codes


def test_the_budget_that_is_proposed_asks_for_more_than_there_is() -> None:
    for sqnr, proposed in ((15.0, "--min-sqnr 20"), (26.7, "--min-sqnr 32")):
        (finding,) = low_fidelity("int8", {"sqnr_db": sqnr, "top1_agreement": 0.9}, backend_facts(PI, None)[1])
        assert proposed in finding.hint


@pytest.mark.parametrize(("sqnr", "top1", "only"), [(36.1, 0.9, True), (12.0, 0.9, False), (12.0, None, False)])
def test_who_has_no_classes_is_told_how_to_say_so(sqnr: float, top1: float | None, only: bool) -> None:
    """Landmarks below and above zero look like scores of classes."""
    (finding,) = low_fidelity("int8", {"sqnr_db": sqnr, "top1_agreement": top1}, backend_facts(PI, None)[1])
    assert ("decibels alone" in finding.hint) is only


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("intel-cpu", {"--min-sqnr", "--precision auto"}),
        ("raspberrypi4", {"--min-sqnr", "--precision auto"}),  # its int16x8 kernels are slower than float
        ("cortex-m4", {"--min-sqnr", "--precision auto", "int16x8"}),
        ("coral-edgetpu", set[str]()),
    ],
)
def test_a_loss_names_the_ways_out_that_the_target_has(name: str, offered: set[str]) -> None:
    (finding,) = low_fidelity("int8", {"sqnr_db": 15.0}, backend_facts(load_target(name), None)[1])
    assert {way for way in ("--min-sqnr", "--precision auto", "int16x8") if way in finding.hint} == offered
    assert "typical samples" in finding.hint


def test_ways_to_choose_ranges() -> None:
    assert check_ranges(None) is None and check_ranges("mse") == "mse"
    with pytest.raises(EdgecError) as error:
        check_ranges("entrpy")
    assert error.value.code == "cli/unknown-ranges" and "entropy" in error.value.finding.hint


@pytest.mark.parametrize(
    ("found", "promised", "values", "said"),
    [
        (31.0, 43.0, 1000, True),
        (41.8, 43.0, 100_000, True),
        (42.4, 43.0, 100_000, False),
        (30.27, 31.23, 66, False),  # of few values nobody knows decibels as well
        (31.0, 43.0, 66, True),
        (90.0, 120.0, 100_000, False),  # float32 itself is no nearer
        (None, 43.0, 1000, False),
        (31.0, None, 1000, False),
    ],
)
def test_a_runtime_that_keeps_less_than_was_promised(
    found: float | None, promised: float | None, values: int, *, said: bool
) -> None:
    findings = lower_in_runtime({"sqnr_db": found, "samples": 100}, promised, values)
    assert [f.code for f in findings] == (["quant/lower-in-runtime"] if said else [])
