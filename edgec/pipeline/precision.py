"""Which precision a build takes: the one asked for, or the target's first that keeps the accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir

from edgec.backends.base import Precision
from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.graph.traits import TRAITS
from edgec.quantization.calibration.range_choice import RANGE_METHODS, RangeMethod
from edgec.quantization.planning.units import ACTIVATION_PRODUCT
from edgec.quantization.repair.ladder import Effort
from edgec.registry import did_you_mean
from edgec.runners.compare import FLOAT_NOISE_DB, beyond_luck
from edgec.targets.profile import BackendFacts, Target
from edgec.targets.scheme import Scheme

#: Without a budget of the user's: noise a hundredth of the signal, and the same first class 99 times of 100.
AUTO_MIN_SQNR_DB = 20.0
AUTO_MIN_TOP1 = 0.99
#: Nothing in a graph tells landmarks below and above zero from the scores of classes.
NO_CLASSES = (
    f"where the largest number of an output is no class (landmarks, features), --min-sqnr {AUTO_MIN_SQNR_DB:.0f} "
    "goes by decibels alone"
)
#: Below this a quantized model says little about its float one.
COLLAPSE_SQNR_DB = 10.0

#: How much lower than promised an artifact's SQNR in its runtime may be without a warning (sound ones lose half).
RUNTIME_DROP_DB = 1.0
NEEDS_CALIBRATION = ("int8", "int16x8")
HAS_INT8_WEIGHTS = ("int8", "int16x8", "dynamic")
EFFORTS: tuple[Effort, ...] = ("fast", "balanced", "max")
_KNOWN = ("auto", "int8", "int16x8", "dynamic", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Precisions to try in order, why in that order, and what to tell the user."""

    precisions: tuple[Precision, ...]
    why: str
    findings: tuple[Finding, ...] = ()


def as_it_is(model: Model, asked: str, options: Candidates) -> Candidates:
    """The one way to build a model that comes quantized, with a word where another precision was `asked` for."""
    findings = options.findings
    wide = (ir.DataType.INT16, ir.DataType.UINT16)
    stored = {"int16x8" if value.dtype in wide else "int8" for value in _stored(model)}
    if asked != "auto" and asked not in stored:
        ignored = Finding(
            code="source/quantized-already",
            message=f"{asked} was asked for, but the model comes quantized, and is compiled with the integers it has",
            severity=Severity.WARNING,
            where=model.name,
            hint=f"export the float model that it was made of, and build that with --precision {asked}",
        )
        findings = (*findings, ignored)
    return Candidates(("int8",), "the model comes quantized and is compiled as it is", findings)


def _stored(model: Model) -> list[ir.Value]:
    """The integers that are computed at run time."""
    return [node.outputs[0] for node in model.nodes() if node.op_type == "QuantizeLinear"]


def backend_facts(target: Target, backend: str | None) -> tuple[str, BackendFacts]:
    """The backend to build with and the target's facts about it.

    Raises `EdgecError` when the target has it not, or its profile names operators that are none.
    """
    name = backend or target.default_backend
    for known, facts in target.backends.items():
        if known == name:
            _check_operators(target, name, facts.scheme)
            return name, facts
    raise EdgecError(
        "target/no-backend",
        f"target {target.id} has no backend {name!r}",
        where=target.id,
        hint=did_you_mean(name, target.backends),
    )


def _check_operators(target: Target, backend: str, scheme: Scheme) -> None:
    """A misspelt operator would stay in float without a word."""
    for key in ("int8_ops", "int16_ops", "dynamic_ops", "same_scale_ops", "fused_activations", "fixed_output"):
        wrong = sorted(set(getattr(scheme, key)) - TRAITS.keys() - {ACTIVATION_PRODUCT})
        if wrong:
            raise EdgecError(
                "target/invalid",
                f"backends.{backend}.scheme.{key}: {wrong[0]!r} is no ONNX operator that can be quantized",
                where=target.id,
                hint=did_you_mean(wrong[0], TRAITS),
            )


def candidates(asked: str, target: Target, backend: str, facts: BackendFacts, *, calibrated: bool) -> Candidates:
    """Resolve `--precision`. Raises `EdgecError` for an unknown one, or for int8 without calibration data."""
    notes = _unheard(target, backend)
    if asked not in _KNOWN:
        raise EdgecError("cli/unknown-precision", f"there is no precision {asked!r}", hint=did_you_mean(asked, _KNOWN))
    if asked != "auto":
        precision = cast(Precision, asked)
        if precision not in facts.precisions:
            raise EdgecError(
                "target/no-precision",
                f"{target.id} with {backend} does not take {precision}",
                where=target.id,
                hint="it takes: " + ", ".join(facts.precisions),
            )
        if precision in NEEDS_CALIBRATION and not calibrated:
            raise _no_samples(precision, facts.precisions)
        return Candidates((precision,), f"{precision} was asked for", notes)
    order = _of_auto(facts)
    if calibrated:
        return Candidates(tuple(order), facts.why, notes)
    kept = tuple(p for p in order if p not in NEEDS_CALIBRATION)
    if kept == tuple(order):
        return Candidates(kept, facts.why, notes)
    if not kept:
        raise _no_samples(target.id + " computes in integers alone, which", order)
    note = Finding(
        code="calibration/none",
        message="no calibration data given, so int8 is not tried",
        severity=Severity.INFO,
        hint="give --calibration with typical samples: int8 is the smallest and fastest form on this target",
    )
    return Candidates(kept, facts.why, (*notes, note))


def _of_auto(facts: BackendFacts) -> Sequence[Precision]:
    """What `auto` chooses from: float16 and int16x8 behind float32 are there to be asked for."""
    order: Sequence[Precision] = facts.precisions
    return order[: order.index("float32") + 1] if "float32" in order else order


def _unheard(target: Target, backend: str) -> tuple[Finding, ...]:
    """What the profile asks for and the backend has not."""
    if target.io_dtype == "float32" or backend == "tflite":
        return ()
    note = Finding(
        code="target/no-effect",
        message=f"io_dtype = {target.io_dtype!r} has no effect with {backend}, whose inputs and outputs stay float",
        severity=Severity.WARNING,
        where=target.id,
        hint="take --backend tflite for integers at the border",
    )
    return (note,)


def _no_samples(what: str, offered: Sequence[Precision]) -> EdgecError:
    other = next((p for p in offered if p not in NEEDS_CALIBRATION), "")
    return EdgecError(
        "calibration/missing",
        f"{what} needs calibration data: samples of what the model will see",
        hint="give --calibration with a folder of images, .npy/.npz, .jsonl, .csv, audio files or a recipe (.toml); "
        "100 typical samples are enough" + (f"; or take --precision {other}" if other else ""),
    )


def check_effort(name: str) -> Effort:
    """The effort of that name. Raises `EdgecError` (cli/unknown-effort)."""
    for effort in EFFORTS:
        if effort == name:
            return effort
    raise EdgecError("cli/unknown-effort", f"there is no effort {name!r}", hint=did_you_mean(name, EFFORTS))


def check_ranges(name: str | None) -> RangeMethod | None:
    """The way to choose ranges of that name; None leaves it to the ladder. Raises `EdgecError` (cli/unknown-ranges)."""
    for method in RANGE_METHODS:
        if method == name:
            return method
    if name is None:
        return None
    raise EdgecError(
        "cli/unknown-ranges",
        f"there is no way to choose ranges named {name!r}",
        hint=did_you_mean(name, RANGE_METHODS),
    )


def keeps_accuracy(fidelity: Mapping[str, Any], *, min_sqnr: float | None = None) -> tuple[bool, str]:
    """Whether fidelity to the float model is within the budget, and the numbers in words.

    Without `min_sqnr` (dB) the default budget holds, which asks for top-1 agreement as well.
    """
    sqnr, top1 = fidelity.get("sqnr_db"), fidelity.get("top1_agreement")
    words = "exact" if sqnr is None else f"{sqnr:.1f} dB{_worst_kind(fidelity)}"
    if top1 is not None:
        words += f", top-1 agreement {100 * top1:.1f} %"
    if min_sqnr is not None:
        return sqnr is None or sqnr >= min_sqnr, words
    good = (sqnr is None or sqnr >= AUTO_MIN_SQNR_DB) and (top1 is None or top1 >= AUTO_MIN_TOP1)
    return good, words


def _worst_kind(fidelity: Mapping[str, Any]) -> str:
    """Which kind of values in an output the decibels are of, where one holds several."""
    outputs = fidelity.get("outputs", {}).items()
    kinds = [(db, f"{name}{which}") for name, o in outputs for which, db in o.get("kinds", {}).items()]
    return next((f" ({which})" for db, which in kinds if db == fidelity["sqnr_db"]), "")


def only_classes(fidelity: Mapping[str, Any]) -> bool:
    """Whether the default budget is missed for first classes alone, where the decibels are enough."""
    return not keeps_accuracy(fidelity)[0] and keeps_accuracy({**fidelity, "top1_agreement": None})[0]


def low_fidelity(precision: Precision, fidelity: Mapping[str, Any], facts: BackendFacts) -> tuple[Finding, ...]:
    """What to say, loudly, when a precision that was asked for costs more than the default budget, and what there is
    to do on this target."""
    good, words = keeps_accuracy(fidelity)
    if good:
        return ()
    sqnr = fidelity.get("sqnr_db") or 0.0
    collapsed = sqnr < COLLAPSE_SQNR_DB
    better = AUTO_MIN_SQNR_DB if sqnr < AUTO_MIN_SQNR_DB else math.ceil(sqnr) + 5
    ways = []
    if facts.scheme.revert_to and precision in HAS_INT8_WEIGHTS:
        ways.append(f"take --min-sqnr {better:.0f} to take the worst nodes out of {precision}")
    offered = _of_auto(facts)
    if len(offered) > 1:
        ways.append("take --precision auto, which falls back as needed")
    if "int16x8" in offered and precision != "int16x8":
        ways.append("take int16x8")
    ways += ["give more typical samples", *([NO_CLASSES] if only_classes(fidelity) else [])]
    return (
        Finding(
            code="quant/collapsed" if collapsed else "quant/low-fidelity",
            message=f"{precision} {'collapses' if collapsed else 'loses accuracy'}: {words} against the float model "
            f"(budget {AUTO_MIN_SQNR_DB:.0f} dB, {100 * AUTO_MIN_TOP1:.0f} %)",
            severity=Severity.WARNING,
            hint="; ".join(ways),
        ),
    )


def lower_in_runtime(fidelity: Mapping[str, Any], promised: float | None, values: int) -> tuple[Finding, ...]:
    """What to say when the artifact in its runtime is further from the float model than the quantized model promised.

    `promised` is the quantized model's SQNR (dB) on the same samples, None where it is exact; `values` is how many
    numbers the smallest output gives over all of them: of few, decibels are known less well.
    """
    sqnr = fidelity.get("sqnr_db")
    if sqnr is None or promised is None:
        return ()
    if sqnr >= min(promised - beyond_luck(RUNTIME_DROP_DB, values), FLOAT_NOISE_DB):
        return ()
    return (
        Finding(
            code="quant/lower-in-runtime",
            message=f"the artifact in its runtime has {sqnr:.1f} dB to the float model, the quantized model promised "
            f"{promised:.1f} dB on the same {fidelity['samples']} samples",
            severity=Severity.WARNING,
            hint="the runtime computes or rounds something otherwise: take another --precision or --backend if that is "
            "too little, and please report it with the model",
        ),
    )
