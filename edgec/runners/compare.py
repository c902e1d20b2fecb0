"""Judge what a runtime computed: against the reference of the same precision, and against the float model.

Rules
1. float32, float16: within a relative error of the reference (largest difference over largest value), or within
   `FLOAT_NOISE` in absolute terms: beside values that vanish, such as a sigmoid's, no relative error means anything.
   Up to `ILL_CONDITIONED` times the relative error is a warning: models exist in which the order of additions shows.
2. int8, int16x8, where the output is made of quantization steps: a share of the values within 2 steps of the QDQ
   model in the reference runtime. Deep models amplify single roundings: where the output is about as good
   against the float model as the reference is, fewer values within 2 steps are a warning. Where only the last
   operators of an int8 model have 16 bits, a step is one of 8 bits: what went before is no finer. Steps of int16x8 are
   finer than some kernels (Softmax interpolates a table): there noise that no 8 bits reach is a warning as well.
3. int8, int16x8, where float operators come last: nearly equal to the reference, or about as good against the
   float model as the reference is.
4. dynamic: the runtime quantizes activations itself, which the reference does not; a floor in decibels.
5. Worth a warning: an SQNR to float that is lower than the reference's (int8, int16x8), or low in itself (any). Where
   a float32 build would pass with as much noise, all of it is float rounding, and no warning; where the float model is
   the reference itself, as of a model that came quantized, rules 2 and 3 have said all.
   Noise over n values is known to about 20 / ln 10 / √n dB beside another: less than three times that is luck
   (rules 2, 3 and 5). A score of one number, three goldens of it, says next to nothing.
6. An output that holds several kinds of values (boxes and scores) is judged kind by kind; the worst one speaks for it.
7. Outputs that are not floats in the source model (indices): equal to the reference, for the float precisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.artifact import IoBinding
from edgec.errors import Finding, Severity
from edgec.metrics import (
    MAX_DB,
    StepDifferences,
    cosine,
    max_abs,
    relative_error,
    sqnr_db,
    step_differences,
    top1_agreement,
)
from edgec.tensors import CARRIED, Array, DType, Kind, of_kind, written


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """What still counts as agreement; None where the rule does not apply."""

    relative: float | None = None
    share_within_2: float | None = None
    agreement_db: float | None = None
    beside_steps_db: float | None = None


#: By precision. 40 dB beside steps: noise a hundred times below the signal is rounding, not another result.
TOLERANCES = {
    "float32": Tolerance(relative=1e-4),
    "float16": Tolerance(relative=1e-3),
    "int8": Tolerance(share_within_2=0.99, agreement_db=40.0),
    "int16x8": Tolerance(share_within_2=0.99, agreement_db=40.0, beside_steps_db=60.0),
    "dynamic": Tolerance(agreement_db=10.0),
}
#: Rule 1: what float32 arithmetic leaves on values of order 1, and how much more a warning covers.
FLOAT_NOISE = 1e-6
ILL_CONDITIONED = 10.0
#: Rule 5: how much lower than the reference's, and how low, an SQNR to float may be without a warning.
SQNR_DROP_DB = 0.5
#: Rule 5: what a float32 artifact's relative error is as noise.
FLOAT_NOISE_DB = -20 * math.log10(TOLERANCES["float32"].relative or 1)
#: Rules 2 and 3: how much lower is a fault. A few goldens of a model that amplifies roundings vary by a decibel or two.
FAULT_DB = 3.0
LOW_SQNR_DB = 10.0
#: Rule 5: three standard errors of the difference between two levels of noise, each measured on one value.
LUCK_DB = 3 * 20 / math.log(10)
#: Rule 2: how many steps of 16 bits one of 8 bits is.
STEPS_OF_16_BITS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputCheck:
    """One output over all goldens, in the source model's terms.

    `steps`, `relative_error`, `reference_max_abs`, `agreement_db` compare with the reference of the same
    precision; `sqnr_db`, `cosine`, `max_abs`, `top1_agreement` with the float model, `reference_sqnr_db`
    being what the reference itself reaches.
    """

    name: str
    passed: bool
    steps: StepDifferences | None
    relative_error: float
    agreement_db: float
    sqnr_db: float
    reference_sqnr_db: float
    cosine: float
    max_abs: float
    reference_max_abs: float
    top1_agreement: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputValues:
    """One output over all goldens: a list entry a golden; `raw` in the artifact's terms, the others in the source's.

    `kinds` are what the output holds of different kinds of values, in the source's terms.
    """

    binding: IoBinding
    raw: Sequence[Array]
    reference: Sequence[Array]
    exact: Sequence[Array]
    step: float | None = None
    kinds: Sequence[Kind] = ()


def check_output(values: OutputValues, precision: str) -> tuple[OutputCheck, list[Finding]]:
    """Compare one output and say what is wrong with it."""
    values = _before_narrowing(values)
    name = values.binding.source.name
    for raw, reference in zip(values.raw, values.reference, strict=True):
        source = values.binding.to_source(raw) if raw.ndim == len(values.binding.artifact.shape) else raw
        if source.shape != reference.shape:
            return _misshapen(name, source, reference)
    sources = [values.binding.to_source(raw) for raw in values.raw]
    whole = _Pair(actual=_join(sources), reference=_join(values.reference), exact=_join(values.exact))
    if not values.kinds:
        steps = None if values.binding.source.dtype == DType.STRING else _steps(values, precision, whole)
        return _judged(name, whole, steps, precision, is_float=values.binding.source.dtype.is_float)
    found = []
    for kind in values.kinds:  # rule 6
        parts = ([of_kind(value, kind) for value in side] for side in (sources, values.reference, values.exact))
        actual, reference, exact = map(_flat, parts)
        pair = _Pair(actual=actual, reference=reference, exact=exact)
        where = name + written(kind, values.reference[0].shape)
        found.append(_judged(where, pair, _steps_of(values, precision, pair), precision, is_float=True))
    worst = min((check for check, _ in found), key=lambda check: (check.passed, check.sqnr_db))
    top1 = top1_agreement(whole.exact, whole.actual)
    return replace(worst, name=name, top1_agreement=top1), [finding for _, own in found for finding in own]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """What was computed, what the reference of the same precision makes of it, and what float does; all goldens."""

    actual: Array
    reference: Array
    exact: Array


def _judged(
    name: str, values: _Pair, steps: StepDifferences | None, precision: str, *, is_float: bool
) -> tuple[OutputCheck, list[Finding]]:
    actual, reference, exact = values.actual, values.reference, values.exact
    if actual.dtype.kind not in "biuf":
        actual, reference, exact = _as_numbers(actual, reference, exact)
    measured = OutputCheck(
        name=name,
        passed=True,
        steps=steps,
        relative_error=relative_error(reference, actual),
        agreement_db=sqnr_db(reference, actual),
        sqnr_db=sqnr_db(exact, actual),
        reference_sqnr_db=sqnr_db(exact, reference),
        cosine=cosine(exact, actual),
        max_abs=max_abs(exact, actual),
        reference_max_abs=max_abs(reference, actual),
        top1_agreement=top1_agreement(exact, actual),
    )
    problem = _disagreement(measured, precision, count=exact.size, is_float=is_float)
    findings = [_error(name, problem)] if problem else _roundings(measured, precision) if is_float else []
    findings += _warnings(measured, precision, exact) if is_float else []
    return _with_verdict(measured, passed=not problem), findings


def _as_numbers(*texts: Array) -> list[Array]:
    """Equal strings are equal numbers, so that what counts differences counts them too."""
    numbers = {text: float(i) for i, text in enumerate(dict.fromkeys(s for array in texts for s in array.flat), 1)}
    return [np.asarray([numbers[s] for s in array.flat], np.float32).reshape(array.shape) for array in texts]


def _before_narrowing(values: OutputValues) -> OutputValues:
    """An output of a type that a wider one carries is compared in the wide one: a step of bfloat16 is 0.4 %."""
    binding = values.binding
    if binding.source.dtype not in CARRIED:
        return values
    wide = replace(binding.source, dtype=binding.artifact.dtype)
    return replace(values, binding=replace(binding, source=wide))


def beyond_luck(decibels: float, count: int) -> float:
    """How much lower an SQNR over so many values has to be to mean something, at least `decibels`."""
    return max(decibels, LUCK_DB / math.sqrt(max(count, 1)))


def _disagreement(check: OutputCheck, precision: str, *, count: int, is_float: bool) -> str:
    """Why the output, of so many values, does not agree with the reference; empty when it does."""
    tolerance = TOLERANCES[precision]
    as_good = check.sqnr_db >= check.reference_sqnr_db - beyond_luck(FAULT_DB, count)
    if not is_float:  # rule 7
        wrong = tolerance.relative is not None and check.relative_error > 0
        return f"values differ from the reference, by up to {check.max_abs:g} from the float model's" if wrong else ""
    if tolerance.relative is not None:  # rule 1
        if check.relative_error <= ILL_CONDITIONED * tolerance.relative or check.reference_max_abs <= FLOAT_NOISE:
            return ""
        return f"relative error {check.relative_error:.2g} to the reference, allowed is {tolerance.relative:g}"
    if tolerance.share_within_2 is not None and check.steps is not None:  # rule 2
        if check.steps.within_2 >= tolerance.share_within_2 or as_good:
            return ""
        if tolerance.beside_steps_db is not None and check.agreement_db >= tolerance.beside_steps_db:
            return ""
        share = f"{check.steps.within_2:.2%} of the values within 2 steps of the reference"
        return f"{share}, {tolerance.share_within_2:.0%} are required (largest difference {check.steps.largest} steps)"
    if tolerance.agreement_db is None or check.agreement_db >= tolerance.agreement_db:  # rules 3 and 4
        return ""
    if tolerance.share_within_2 is not None and as_good:  # rule 3
        return ""
    return f"{check.agreement_db:.1f} dB to the reference, {tolerance.agreement_db:g} dB are required"


def _warnings(check: OutputCheck, precision: str, exact: Array) -> list[Finding]:
    if not exact.any():  # no signal, no signal-to-noise ratio
        return []
    findings = []
    quantized = TOLERANCES[precision].share_within_2 is not None
    drop = beyond_luck(SQNR_DROP_DB, exact.size)
    noisy = check.reference_sqnr_db < MAX_DB
    if quantized and noisy and check.sqnr_db < min(check.reference_sqnr_db - drop, FLOAT_NOISE_DB):
        findings.append(
            Finding(
                code="validate/fidelity-drop",
                message=f"{check.sqnr_db:.1f} dB to the float model, the reference of the same precision has "
                f"{check.reference_sqnr_db:.1f} dB",
                severity=Severity.WARNING,
                where=f"output {check.name}",
                hint="the runtime rounds otherwise than the reference; a decibel or two is ordinary in deep models, "
                "more is a fault: please report it with the model",
            )
        )
    if check.sqnr_db < LOW_SQNR_DB:
        findings.append(
            Finding(
                code="validate/low-fidelity",
                message=f"only {check.sqnr_db:.1f} dB to the float model, over the goldens' {exact.size} values",
                severity=Severity.WARNING,
                where=f"output {check.name}",
                hint="check the calibration data, or build with --min-sqnr or in a wider precision",
            )
        )
    return findings


def _roundings(check: OutputCheck, precision: str) -> list[Finding]:
    """Warnings of rules 1 and 2."""
    tolerance = TOLERANCES[precision]
    message = ""
    relative, share = tolerance.relative, tolerance.share_within_2
    if relative is not None and check.relative_error > relative and check.reference_max_abs > FLOAT_NOISE:
        message = f"relative error {check.relative_error:.2g} to the reference, {relative:g} is usual"
    if share is not None and check.steps is not None and check.steps.within_2 < share:
        message = f"only {check.steps.within_2:.1%} of the values within 2 steps of the reference"
    if not message:
        return []
    return [
        Finding(
            code="validate/amplified-rounding",
            message=message,
            severity=Severity.WARNING,
            where=f"output {check.name}",
            hint="single roundings that the model amplifies, or those of a kernel that is coarser than the steps; the "
            "float model's values are large beside them",
        )
    ]


def _steps(values: OutputValues, precision: str, whole: _Pair) -> StepDifferences | None:
    binding = values.binding
    if binding.artifact.qparams is not None and not (binding.artifact.dtype == DType.INT16 and precision == "int8"):
        expected = [binding.to_artifact(value) for value in values.reference]
        return step_differences(_join(expected), _join(values.raw))
    return _steps_of(values, precision, whole)


def _steps_of(values: OutputValues, precision: str, pair: _Pair) -> StepDifferences | None:
    """The same from values alone, of the whole output or of a part of it."""
    quantized, step = values.binding.artifact, values.step
    if quantized.qparams is not None:
        step = quantized.qparams.scale[0]
        step *= STEPS_OF_16_BITS if quantized.dtype == DType.INT16 and precision == "int8" else 1
    return None if step is None else step_differences(pair.reference, pair.actual, step=step)


def _join(arrays: Sequence[Array]) -> Array:
    """All goldens along the batch axis; a new first axis where there is no batch."""
    return np.concatenate(arrays) if arrays[0].ndim >= 2 and len({a.shape[1:] for a in arrays}) == 1 else _flat(arrays)


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _misshapen(name: str, actual: Array, reference: Array) -> tuple[OutputCheck, list[Finding]]:
    check = OutputCheck(
        name=name,
        passed=False,
        steps=None,
        relative_error=float(np.finfo(np.float32).max),
        agreement_db=-300.0,
        sqnr_db=-300.0,
        reference_sqnr_db=-300.0,
        cosine=0.0,
        max_abs=float(np.finfo(np.float32).max),
        reference_max_abs=float(np.finfo(np.float32).max),
        top1_agreement=None,
    )
    return check, [_error(name, f"shape {actual.shape} where {reference.shape} is expected")]


def _error(name: str, problem: str) -> Finding:
    return Finding(
        code="validate/disagreement",
        message=problem,
        where=f"output {name}",
        hint="the artifact does not compute what the model says; please report it with the model",
    )


def _with_verdict(check: OutputCheck, *, passed: bool) -> OutputCheck:
    return replace(check, passed=passed)
