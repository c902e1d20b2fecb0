"""The rules of agreement: what passes, what fails, what is worth a warning."""

from __future__ import annotations

import numpy as np

from edgec.artifact import IoBinding
from edgec.errors import Severity
from edgec.runners.compare import OutputCheck, OutputValues, check_output
from edgec.tensors import Array, DType, QParams, TensorSpec

RNG = np.random.default_rng(0)
EXACT = RNG.normal(size=(1, 1000)).astype(np.float32)
STEP = 0.05
Q = QParams.per_tensor(STEP, 0)


def binding(dtype: DType = DType.FLOAT32, q: QParams | None = None) -> IoBinding:
    source = TensorSpec(name="y", shape=(1, 1000), dtype=dtype)
    inside = TensorSpec(name="y", shape=(1, 1000), dtype=dtype if q is None else DType.INT8, qparams=q)
    return IoBinding(source=source, artifact=inside)


def judge(
    precision: str, raw: Array, reference: Array, *, exact: Array = EXACT, io: IoBinding | None = None, step: float = 0
) -> tuple[OutputCheck, list[str]]:
    values = OutputValues(
        binding=io or binding(), raw=[raw], reference=[reference], exact=[exact], step=step if step else None
    )
    check, findings = check_output(values, precision)
    assert check.passed == (not any(f.severity == Severity.ERROR for f in findings))
    return check, [finding.code for finding in findings]


def shifted(steps: int, share: float) -> tuple[Array, Array]:
    """int8 numbers of EXACT, and the same with a share of them moved by some steps."""
    reference = Q.quantize(EXACT, DType.INT8)
    raw = reference.copy()
    raw[0, : int(share * 1000)] += np.int8(steps)
    return raw, reference


def test_float_within_its_tolerance() -> None:
    peak = np.abs(EXACT).max()
    assert judge("float32", EXACT + np.float32(0.5e-4 * peak), EXACT)[1] == []
    assert judge("float32", EXACT + np.float32(2e-4 * peak), EXACT)[1] == ["validate/amplified-rounding"]
    assert judge("float32", EXACT + np.float32(2e-3 * peak), EXACT)[1] == ["validate/disagreement"]
    tiny = EXACT * np.float32(1e-9 / peak)
    assert judge("float32", tiny + np.float32(5e-7), tiny, exact=tiny)[0].passed
    assert judge("float16", EXACT + np.float32(2e-4 * peak), EXACT)[1] == []


def test_nan_never_passes() -> None:
    raw = EXACT.copy()
    raw[0, 3] = np.nan
    for precision in ("float32", "float16", "dynamic"):
        assert "validate/disagreement" in judge(precision, raw, EXACT)[1]


def test_int8_outputs_are_compared_in_steps() -> None:
    for share, steps, passes in ((1.0, 1, True), (1.0, 2, True), (0.009, 9, True), (0.5, 20, False)):
        raw, reference = shifted(steps, share)
        check, codes = judge("int8", raw, Q.dequantize(reference), io=binding(q=Q))
        assert ("validate/disagreement" not in codes) == passes, (share, steps)
        assert check.steps is not None
        assert check.steps.largest == steps


def test_a_last_layer_of_16_bits_behind_8_is_compared_in_steps_of_8() -> None:
    fine = QParams.per_tensor(STEP / 256, 0)
    inside = TensorSpec(name="y", shape=(1, 1000), dtype=DType.INT16, qparams=fine)
    wide = IoBinding(source=TensorSpec(name="y", shape=(1, 1000), dtype=DType.FLOAT32), artifact=inside)
    reference = fine.quantize(EXACT, DType.INT16)
    for moved, mixed, whole in ((1, True, True), (2 * 256, True, False), (20 * 256, False, False)):
        for precision, passes in (("int8", mixed), ("int16x8", whole)):
            raw = reference + np.int16(moved)
            codes = judge(precision, raw, fine.dequantize(reference), io=wide)[1]
            assert ("validate/disagreement" not in codes) == passes, (moved, precision)


def test_a_kernel_coarser_than_steps_of_16_bits_is_a_warning() -> None:
    """A Softmax of 16 bits in TensorFlow Lite Micro is off by up to 16 of its 32768 steps."""
    fine = QParams.per_tensor(2.0**-15, 0)
    inside = TensorSpec(name="y", shape=(1, 1000), dtype=DType.INT16, qparams=fine)
    wide = IoBinding(source=TensorSpec(name="y", shape=(1, 1000), dtype=DType.FLOAT32), artifact=inside)
    exact = np.full((1, 1000), 0.5, np.float32)  # its reference is exact
    for moved, expected in ((10, "validate/amplified-rounding"), (100, "validate/disagreement")):
        raw = fine.quantize(exact, DType.INT16)
        raw[0, :100] += np.int16(moved)
        assert judge("int16x8", raw, exact, exact=exact, io=wide)[1][0] == expected


def test_float_outputs_made_of_steps_are_compared_in_steps_too() -> None:
    raw, reference = shifted(20, 0.5)
    check, codes = judge("int8", Q.dequantize(raw), Q.dequantize(reference), step=STEP)
    assert check.steps is not None
    assert check.steps.within_2 == 0.5
    assert "validate/disagreement" in codes
    raw, reference = shifted(2, 1.0)
    assert "validate/disagreement" not in judge("int8", Q.dequantize(raw), Q.dequantize(reference), step=STEP)[1]


def test_amplified_roundings_are_a_warning_while_the_output_is_as_near_to_float_as_the_reference() -> None:
    noise = RNG.normal(scale=8 * STEP, size=EXACT.shape).astype(np.float32)
    reference, raw = (Q.quantize(EXACT + n, DType.INT8) for n in (noise, RNG.permutation(noise[0])[None]))
    check, codes = judge("int8", raw, Q.dequantize(reference), io=binding(q=Q))
    assert check.steps is not None
    assert check.steps.within_2 < 0.99
    assert "validate/amplified-rounding" in codes
    assert "validate/disagreement" not in codes


def test_systematic_shift_within_the_steps_is_a_warning() -> None:
    raw, reference = shifted(2, 1.0)
    check, codes = judge("int8", raw, Q.dequantize(reference), io=binding(q=Q))
    assert codes == ["validate/fidelity-drop"]
    assert check.sqnr_db < check.reference_sqnr_db - 0.5


def test_a_model_that_came_quantized_is_its_own_reference() -> None:
    reference = Q.dequantize(Q.quantize(EXACT, DType.INT8))
    raw, far = (Q.quantize(reference, DType.INT8) + np.int8(n) for n in (1, 4))
    assert judge("int8", raw, reference, io=binding(q=Q), exact=reference)[1] == []
    assert judge("int8", far, reference, io=binding(q=Q), exact=reference)[1] == ["validate/disagreement"]


def test_noise_that_a_float32_build_may_have_is_no_drop_of_fidelity() -> None:
    reference = EXACT * np.float32(1 + 1e-7)
    assert judge("int8", EXACT * np.float32(1 + 1e-5), reference)[1] == []  # 100 dB, where the reference has 138
    assert judge("int8", EXACT * np.float32(1 + 1e-3), reference)[1] == ["validate/fidelity-drop"]


def test_int8_with_a_float_tail_may_differ_as_long_as_it_is_no_worse() -> None:
    noise = RNG.normal(scale=0.05, size=EXACT.shape).astype(np.float32)
    # Other noise of the same size: 23 dB from the reference, as near to float as it.
    other = RNG.permutation(noise[0])[None]
    assert judge("int8", EXACT + other, EXACT + noise)[1] == []
    assert "validate/disagreement" in judge("int8", EXACT + 4 * noise, EXACT + noise)[1]


def test_dynamic_has_a_floor() -> None:
    noise = RNG.normal(size=EXACT.shape).astype(np.float32)
    assert judge("dynamic", EXACT + np.float32(0.1) * noise, EXACT)[1] == []
    assert judge("dynamic", EXACT + np.float32(0.5) * noise, EXACT)[1] == [
        "validate/disagreement",
        "validate/low-fidelity",
    ]


def test_low_fidelity_of_a_faithful_artifact_is_a_warning() -> None:
    collapsed = Q.dequantize(Q.quantize(EXACT * np.float32(0.2), DType.INT8))
    check, codes = judge("int8", Q.quantize(collapsed, DType.INT8), collapsed, io=binding(q=Q))
    assert check.passed
    assert codes == ["validate/low-fidelity"]


def test_silent_outputs_give_no_warning() -> None:
    zero = np.zeros_like(EXACT)
    assert judge("int8", np.zeros_like(EXACT, np.int8), zero, exact=zero, io=binding(q=Q))[1] == []


def test_indices_must_be_equal_in_float_precisions() -> None:
    index = np.arange(1000, dtype=np.int64)[None]
    io = binding(DType.INT64)
    assert judge("float32", index, index, exact=index, io=io)[1] == []
    off = index + (index == 5)
    assert judge("float32", off, index, exact=index, io=io)[1] == ["validate/disagreement"]
    assert judge("int8", off, index, exact=index, io=io)[1] == []


def test_goldens_without_a_batch_axis_and_of_other_sizes_are_joined() -> None:
    io = binding()
    arrays = [np.ones((n,), np.float32) for n in (2, 3)]
    spec = TensorSpec(name="y", shape=(-1,), dtype=DType.FLOAT32)
    values = OutputValues(
        binding=IoBinding(source=spec, artifact=spec), raw=arrays, reference=arrays, exact=arrays, step=None
    )
    check, findings = check_output(values, "float32")
    assert check.passed
    assert findings == []
    assert io.perm is None


def test_the_noise_of_a_few_numbers_is_luck() -> None:
    """A score, three goldens of it: 5 dB lower means nothing there, and is a fault over a thousand values."""
    error = np.float32(0.03) * np.asarray([[1.0, -1.0, 1.0]], np.float32)
    scores = np.asarray([[1.0, 0.9, 1.1]], np.float32)

    def codes(times: float, copies: int) -> list[str]:
        exact = np.tile(scores, (1, copies))
        noise = np.tile(error, (1, copies))
        return judge("int8", exact + np.float32(times) * noise, exact + noise, exact=exact)[1]

    assert codes(-1.8, 1) == []
    assert codes(-1.8, 300) == ["validate/disagreement", "validate/fidelity-drop"]
    assert codes(-10, 1) == ["validate/disagreement", "validate/fidelity-drop"]
    assert codes(-1.2, 300) == ["validate/fidelity-drop"] and codes(-1.2, 30) == []


def test_scores_that_are_gone_fail_beside_boxes_that_are_right() -> None:
    """Four rows of boxes in hundreds, two of scores below one: together 50 dB would be left."""
    exact = np.concatenate([RNG.uniform(0, 300, (1, 4, 50)), RNG.uniform(0, 1, (1, 2, 50))], axis=1).astype(np.float32)
    spec = TensorSpec(name="y", shape=exact.shape, dtype=DType.FLOAT32)
    boxes, scores = ((np.s_[0:1, a:b, 0:50],) for a, b in ((0, 4), (4, 6)))
    reference = exact + np.float32(0.01) * RNG.normal(size=exact.shape).astype(np.float32)
    gone = reference.copy()
    gone[:, 4:] = 0

    def judged(raw: Array, *, apart: bool, step: float | None = None) -> tuple[OutputCheck, list[tuple[str, str]]]:
        values = OutputValues(
            binding=IoBinding(source=spec, artifact=spec),
            raw=[raw],
            reference=[reference],
            exact=[exact],
            step=step,
            kinds=(boxes, scores) if apart else (),
        )
        check, findings = check_output(values, "int8")
        return check, [(f.code, f.where) for f in findings if f.severity == Severity.ERROR]

    assert judged(reference, apart=True)[1] == []
    for step in (None, 1.2):
        assert judged(gone, apart=False, step=step)[0].passed
    check, errors = judged(gone, apart=True)
    assert errors == [("validate/disagreement", "output y[:,4:6,:]")]
    assert not check.passed and check.name == "y" and check.sqnr_db < 1
