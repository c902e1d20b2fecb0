"""Judge an application at three cut points, each on the device's own input to it, and name the guilty one.

1. Preprocessing: against the sample prepared as the bundle's manifest says, or the recipe that comes with the data.
2. The model: against its run here on what the device fed it, with the kernels that ran there. To the bit in int8 with
   the same kernels; float within rounding; other kernels by the largest score and noise.
3. Postprocessing: against the class that the device's own outputs mean (`answers`); an answer that is no class against
   the application's own function, run here.
A stage that nothing can be said of is not judged, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgec.artifact import IoBinding
from edgec.errors import Finding, Severity
from edgec.metrics import relative_error, sqnr_db, top1_agreement
from edgec.pipeline.proof.answers import answered, judge_answers, scores_of
from edgec.pipeline.proof.dumps import NOTHING, Dump
from edgec.pipeline.proof.fitting import EQUAL_DB, EXPLAINED_DB, Diagnosis, diagnose
from edgec.quantization.data.recipe import InputSteps
from edgec.tensors import Array

#: What float kernels of other processors leave, and what other int8 kernels may.
FLOAT_RELATIVE, OTHER_DB, SAME_WINNER_DB = 1e-3, 10.0, 3.0
#: Samples on which a fault's cause is looked for: enough to tell coincidence, few enough for large pictures.
DIAGNOSED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One cut point. `passed` is None where it was not judged, and `why` says why not, or what is wrong."""

    stage: str
    passed: bool | None
    why: str = ""
    samples: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; findings are told elsewhere."""
        return {key: value for key, value in asdict(self).items() if key != "findings"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """One sample as it should be fed, an array for each input; `variants` are the same under other preparations."""

    pre: Sequence[Array]
    variants: Mapping[str, Sequence[Array]] = field(default_factory=dict)


def failed_stages(dumps: Sequence[Dump]) -> list[Stage]:
    """A stage that raised an exception on the device is guilty by its own word."""
    names = {"preprocess": "preprocessing", "run": "model", "postprocess": "postprocessing"}
    stages = []
    for key, stage in names.items():
        bad = [d for d in dumps if d.problem.get("stage") == key]
        if bad:
            why = f"it fails on {len(bad)} of {len(dumps)} samples: {bad[0].problem.get('message', '')}"
            stages.append(guilty(stage, why, len(dumps), where=bad[0].name))
    return stages


def judge_preprocessing(
    dumps: Sequence[Dump],
    expected: Mapping[str, Expected],
    inputs: Sequence[IoBinding],
    steps: Mapping[str, InputSteps | None],
) -> Stage:
    """Rule 1. `expected` and `steps` are by sample and by input."""
    known = [dump for dump in dumps if dump.pre and dump.name in expected]
    if not known:
        return Stage(stage="preprocessing", passed=None, why="the application wrote no inputs of a known sample")
    worst = Diagnosis(db=float("inf"))
    told: dict[str, Diagnosis] = {}
    where = ""
    for number, dump in enumerate(known):
        wanted = expected[dump.name]
        for i, binding in enumerate(inputs):
            variants = {k: v[i] for k, v in wanted.variants.items()} if number < DIAGNOSED else {}
            found = diagnose(binding, wanted.pre[i], dump.pre[i], steps.get(binding.source.name), variants)
            if found.faults:
                told.setdefault("; ".join(found.faults), found)
            if found.db < worst.db:
                worst, where = found, f"{dump.name}, input {binding.source.name}"
    facts = {"worst_db": round(worst.db, 1)}
    if told:
        # What explains best is what it is; noise on single samples gives other words.
        best = max(told, key=lambda text: told[text].explained_db or 0.0)
        return guilty("preprocessing", best, len(known), where=where, facts=facts)
    if worst.db >= EQUAL_DB:
        return Stage(stage="preprocessing", passed=True, samples=len(known), facts=facts)
    if worst.db >= EXPLAINED_DB:
        finding = Finding(
            code="validate/preprocessing-differs",
            message=f"the device's inputs differ a little from the bundle's preparation: {worst.db:.1f} dB",
            severity=Severity.WARNING,
            where=where,
            hint="another resize filter or JPEG decoder does that; calibrate with the device's inputs if it matters",
        )
        return Stage(stage="preprocessing", passed=True, samples=len(known), facts=facts, findings=(finding,))
    why = f"the inputs are others than the bundle's preparation gives ({worst.db:.1f} dB); no usual mistake explains it"
    return guilty("preprocessing", why, len(known), where=where, facts=facts)


def judge_model(
    dumps: Sequence[Dump],
    here: Mapping[str, Sequence[Array] | str],
    outputs: Sequence[IoBinding],
    *,
    exact: bool,
) -> Stage:
    """Rule 2. `here` has this machine's raw outputs by sample, or why there are none; `exact` asks for equal bits."""
    known = [dump for dump in dumps if dump.raw and not isinstance(here.get(dump.name, ""), str)]
    if not known:
        reasons = [str(v) for v in here.values() if isinstance(v, str)]
        why = reasons[0] if reasons else "the application wrote no inputs with their outputs"
        return Stage(stage="model", passed=None, why=why)
    equal, worst, where = 0, "", ""
    for dump in known:
        answers = here[dump.name]
        assert not isinstance(answers, str)
        for binding, got, wanted in zip(outputs, dump.raw, answers, strict=True):
            if got.dtype == wanted.dtype and got.shape == wanted.shape and got.tobytes() == wanted.tobytes():
                equal += 1
                continue
            stale = _whose(got, binding, outputs, here, dump.name)
            problem = stale or _difference(binding, wanted, got, exact=exact)
            if problem and not worst:
                worst, where = problem, f"{dump.name}, output {binding.source.name}"
    facts = {"equal_share": round(equal / (len(known) * len(outputs)), 4)}
    if worst:
        return guilty("model", worst, len(known), where=where, facts=facts)
    return Stage(stage="model", passed=True, samples=len(known), facts=facts)


def _whose(
    got: Array,
    binding: IoBinding,
    outputs: Sequence[IoBinding],
    here: Mapping[str, Sequence[Array] | str],
    name: str,
) -> str:
    """What an output is when it is another sample's, to the bit; empty when it is none's."""
    place = list(outputs).index(binding)
    for other, answers in here.items():
        if other != name and not isinstance(answers, str) and answers[place].tobytes() == got.tobytes():
            return f"these are the outputs of another sample ({other}): stale, or read before the run was over"
    return ""


def _difference(binding: IoBinding, wanted: Array, got: Array, *, exact: bool) -> str:
    """What is wrong with one output on the same input; empty for rounding."""
    if got.shape != wanted.shape:
        return f"the output has shape {got.shape} where the model gives {wanted.shape}"
    if got.dtype != wanted.dtype:
        what = "it is dequantized already" if got.dtype.kind == "f" and wanted.dtype.kind in "iu" else ""
        return f"the output is {got.dtype} where the model gives {wanted.dtype}" + (f": {what}" if what else "")
    real, here = binding.to_source(got), binding.to_source(wanted)
    db = sqnr_db(here, real)
    if exact:
        return (
            f"on the same input the model gives other values here ({db:.1f} dB): another model file, or stale outputs"
        )
    if binding.artifact.qparams is None and relative_error(here, real) <= FLOAT_RELATIVE:
        return ""
    top = top1_agreement(here, real)
    if db >= OTHER_DB or (db >= SAME_WINNER_DB and top == 1.0):
        return ""
    return f"on the same input the model gives other values here ({db:.1f} dB)"


def judge_postprocessing(
    dumps: Sequence[Dump],
    outputs: Sequence[IoBinding],
    labels: Sequence[str],
    own: Mapping[str, Any],
) -> Stage:
    """Rule 3. `own` has what the application's function gives here for the device's outputs, by sample."""
    known = [dump for dump in dumps if dump.raw and dump.post is not NOTHING]
    if not known:
        return Stage(stage="postprocessing", passed=None, why="the application wrote no answers with their outputs")
    classes = [answered(dump.post) for dump in known]
    scores = [scores_of(outputs, dump.raw) for dump in known]
    if all(c is not None for c in classes) and all(s is not None for s in scores):
        rows = [s for s in scores if s is not None]
        judged = judge_answers([c for c in classes if c is not None], rows, labels)
        if judged is not None:
            share, mistake = judged
            facts = {"right_share": share}
            if share == 1.0 and not mistake:
                return Stage(stage="postprocessing", passed=True, samples=len(known), facts=facts)
            said = f"{1 - share:.0%} of the answers are not what the outputs mean" + (f": {mistake}" if mistake else "")
            return guilty("postprocessing", said, len(known), facts=facts)
    compared = [dump for dump in known if dump.name in own]
    if compared:
        wrong = [dump for dump in compared if not _same_answer(dump.post, own[dump.name])]
        if wrong:
            why = f"the same function gives other answers here, on {len(wrong)} of {len(compared)} samples"
            return guilty("postprocessing", why, len(compared), where=wrong[0].name)
        why = "the answers are no classes: compared with the application's own function here"
        return Stage(stage="postprocessing", passed=True, samples=len(compared), why=why)
    why = "the answers are no classes of the outputs' scores, and the application's function is not at hand"
    return Stage(stage="postprocessing", passed=None, why=why)


def _same_answer(one: Any, other: Any) -> bool:
    """Equal, numbers within rounding."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_answer(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_answer, one, other))
    if isinstance(one, float) or isinstance(other, float):
        return bool(np.isclose(one, other, rtol=FLOAT_RELATIVE, atol=1e-6, equal_nan=True))
    return bool(one == other)


_HINTS = {
    "preprocessing": "make the application prepare its inputs as `edgec inspect` shows, or build with the right recipe",
    "model": "run the bundle's own model file, copy its outputs before the next run, and look at the runtime's version",
    "postprocessing": "take the class of the largest score, and the labels in the order of `edgec inspect`",
}


def guilty(stage: str, why: str, samples: int, *, where: str = "", facts: Mapping[str, Any] | None = None) -> Stage:
    """A stage with its fault."""
    finding = Finding(code=f"validate/{stage}", message=why, where=where or stage, hint=_HINTS[stage])
    return Stage(stage=stage, passed=False, why=why, samples=samples, facts=facts or {}, findings=(finding,))
