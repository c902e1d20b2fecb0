"""Which form a build takes: the precision that was asked for, mended until it keeps its budget, or the first good one.

1. A budget of the user's holds for the quantized model, and for what the backend makes of it, in its runtime.
2. A precision that misses its budget, the user's or the default one, has nodes reverted (`mixing`), as many as it
   takes: whether what is left of it has any sense is for the race with float to say.
3. Nothing that misses a budget of the user's is built, unless that was asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from edgec.backends.base import Precision
from edgec.errors import EdgecError, Finding, Severity
from edgec.pipeline.forms import Build, Form
from edgec.pipeline.precision import HAS_INT8_WEIGHTS, NO_CLASSES, Candidates, low_fidelity, only_classes
from edgec.pipeline.speed import slower_than_float
from edgec.quantization.calibration.doctor import without_ranges
from edgec.quantization.mix.mixed import Point
from edgec.quantization.run.apply import has_qdq


def choose(work: Build, options: Candidates) -> Form:
    """The first candidate that keeps the accuracy and is not slower than float; a single one is taken as it is.

    Raises `EdgecError` (quant/budget-missed).
    """
    if len(options.precisions) == 1:
        form = _asked(work, options.precisions[0])
        work.why = options.why + (f"; {_reverted(form)}" if form.mixed and form.mixed.reverted else "")
    else:
        form = _first_good(work, options.precisions)
    if form.plan is not None:
        if form.statistics is not None and not form.plan.activations:
            work.findings[:] = without_ranges(work.findings, form.statistics.samples)
        work.findings += form.plan.findings
    return form


def _asked(work: Build, precision: Precision) -> Form:
    """A precision that was asked for, mended until it keeps a budget that was asked for too."""
    form = work.form(precision)
    if not work.budget.asked:
        work.findings += low_fidelity(precision, form.fidelity, work.facts)
        return _told_if_slow(work, form)
    form, good, words = _mended(work, form)
    if not good:
        _refuse(work, form, words)
    return _told_if_slow(work, form)


def _mended(work: Build, form: Form) -> tuple[Form, bool, str]:
    """Rules 1 and 2: the form, whether it keeps the budget, and the figures in words."""
    form, good, words = _proven(work, form)
    if good or (work.effort == "fast" and not work.budget.asked):
        return form, good, words
    mixed = work.mix(form)
    if mixed.mixed is None or not mixed.mixed.met:
        return mixed, False, words
    found, good, now = _proven(work, mixed)
    return found, good, f"{now} with {_reverted(found)}; everywhere it would keep only {words}"


def _proven(work: Build, form: Form) -> tuple[Form, bool, str]:
    """Rule 1."""
    good, words = work.keeps_budget(form.fidelity)
    if not good or not work.proves or form.precision not in HAS_INT8_WEIGHTS:
        return form, good, words
    with work.clock.stage("judge"):
        found = work.there(form.precision, form.model)
    good, there = work.keeps_budget(found)
    return replace(form, there=found), good, words if good else f"{words}, but {there} in its runtime"


def _refuse(work: Build, form: Form, words: str, before: Sequence[str] = ()) -> None:
    """Rule 3: raise, or say it as a warning. What was tried goes with it; `before` tells of other precisions."""
    said = "; ".join([*before, f"{form.precision} gives only {words}, and the budget is {work.budget.words}"])
    tried = () if form.mixed is None else form.mixed.frontier[1:]
    if tried:
        said += f"; {len(tried)} mixes were tried, and none keeps it"
    elif form.plan is None:
        said += "; the model comes quantized, and stays as it is"
    elif form.precision not in HAS_INT8_WEIGHTS:
        said += "; nodes are reverted one by one where weights are int8"
    elif not work.facts.scheme.revert_to:
        said += f"; {work.target.id} computes in {form.precision} alone, so no node can be reverted"
    elsewhere = not before and len(work.facts.precisions) > 1
    way_out = "" if work.budget.ship_anyway else "; --ship-anyway builds it as is"
    error = EdgecError(
        "quant/budget-missed",
        said,
        where=work.model.name,
        hint=f"ask for less, {'take --precision auto, ' if elsewhere else ''}or give more typical samples{way_out}",
        findings=[_as_finding(point, work.target.id) for point in tried],
    )
    if not work.budget.ship_anyway:
        raise error
    work.findings.append(replace(error.finding, severity=Severity.WARNING))


def _as_finding(point: Point, target: str) -> Finding:
    """A mix that was tried in vain, for whoever asks what there is to have."""
    taken = "" if point.estimated_ms is None else f"; estimated {point.estimated_ms:.3g} ms on {target}"
    message = f"{point.reverted} nodes reverted: {point.words}{taken}"
    return Finding(code="quant/mix-tried", message=message, severity=Severity.INFO)


def _told_if_slow(work: Build, form: Form) -> Form:
    """The form, after a word where int8 was asked for and float would be faster."""
    if form.precision == "int8" and work.stop_after is None and form.plan is not None:
        speeds = work.speeds(form, ("float32",))
        if speeds.slower(form.precision, "float32"):
            work.findings.append(slower_than_float(form.precision, speeds.kind))
    return form


def _first_good(work: Build, precisions: Sequence[Precision]) -> Form:
    tried: list[str] = []
    spare: list[Form] = []
    classes = False
    for place, precision in enumerate(precisions[:-1]):
        form, good, words = _mended(work, work.form(precision))
        if not good:
            tried.append(f"{precision} gives only {words}")
            classes = classes or (not work.budget.asked and only_classes(form.fidelity))
        elif precision in HAS_INT8_WEIGHTS and not has_qdq(form.model):
            tried.append(f"{precision} finds nothing to quantize (no products with weights, as in a forest)")
        else:
            speeds = work.speeds(form, precisions[place + 1 :])
            rival = speeds.rival(precision)
            if not rival:
                work.why = "; ".join([*tried, f"{precision} keeps {words}"])
                break
            tried.append(f"{precision} keeps {words} but runs slower than {rival} ({speeds.kind})")
            if not speeds.slower(precision, "float32"):
                spare.append(form)
    else:
        form = spare[0] if spare else _last(work, precisions[-1], tried)
        work.why = "; ".join([*tried, f"{form.precision} is left"])
    work.findings += told(form, tried, words, classes=classes)
    return form


def _last(work: Build, precision: Precision, before: Sequence[str]) -> Form:
    """The last candidate; a budget of the user's holds for it too, where it is no float."""
    if not work.budget.asked or precision not in HAS_INT8_WEIGHTS:
        return work.form(precision)
    form, good, words = _mended(work, work.form(precision))
    if not good:
        _refuse(work, form, words, before)
    return form


def told(form: Form, tried: Sequence[str], words: str, *, classes: bool = False) -> list[Finding]:
    """What was built and why, where that is not the target's first precision from end to end.

    `classes`: what was tried before missed the default budget for first classes alone.
    """
    mixed = form.mixed is not None and form.mixed.met
    if tried:
        message = f"{form.precision}{' in part' if mixed else ''} was built, because {'; '.join(tried)}"
        hint = "more typical samples may bring it back; --precision NAME builds it all the same"
        hint += f"; {NO_CLASSES}" if classes else ""
        return [Finding(code="quant/fell-back", message=message, severity=Severity.WARNING, hint=hint)]
    if not mixed:
        return []
    hint = "the report lists them; a budget of your own (--min-sqnr, --max-drop) decides otherwise"
    message = f"built in {form.precision} that keeps {words}, too little"
    return [Finding(code="quant/mixed", message=message, severity=Severity.INFO, hint=hint)]


def _reverted(form: Form) -> str:
    """How many nodes mixed precision took out of the form's own, and what they run in."""
    if form.mixed is None or form.plan is None:
        return ""
    counts = Counter(form.mixed.reverted.values())
    forms = ", ".join(f"{counts[name]} to {name}" for name in sorted(counts))
    return f"{len(form.mixed.reverted)} of {len(form.plan.nodes)} nodes reverted for accuracy ({forms})"
