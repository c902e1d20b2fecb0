"""The accuracy that a build must keep: signal to noise, a metric on labelled data, or both; else the default."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.pipeline.precision import keeps_accuracy
from edgec.quantization.data.labels import labels_of
from edgec.quantization.data.recipe import Recipe
from edgec.quantization.data.samples import SampleSource, open_samples
from edgec.quantization.measures.task_metrics import METRICS, Metric, code_of, load_metric
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array, TensorSpec

#: Labelled samples that are evaluated at most, spread over all of them.
MAX_SAMPLES = 1000

#: Of fewer samples chance says too little.
_FEWEST = 16

#: The outputs of each set of inputs, in their order.
RunAll = Callable[[Iterable[Mapping[str, Array]]], Iterable[Mapping[str, Array]]]

_PERCENT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A metric on labelled data: what the float model reaches, and how much of it may be lost."""

    metric_name: str
    digest: str
    metric: Metric
    specs: Sequence[TensorSpec]
    samples: SampleSource
    labels: Sequence[Any]
    max_drop: float
    reference: float

    def measure(self, run: RunAll) -> dict[str, Any]:
        """The metric of what `run` runs, and what it lost, JSON-ready."""
        value = evaluate(run, self.specs, self.samples, self.labels, self.metric)
        return {
            "name": self.metric_name,
            "float": round(self.reference, 6),
            "value": round(value, 6),
            "drop": round(self.reference - value, 6),
            "max_drop": self.max_drop,
        }


def in_words(value: float, reference: float) -> str:
    """A metric's value as shown: in percent where float's, the `reference`, is a share, else the number itself."""
    return f"{100 * value:.2f} %" if 0 <= reference <= 1 else f"{value:.6g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What was asked for. Without any of it the default budget of `auto` holds, and nothing is refused."""

    min_sqnr: float | None = None
    task: Task | None = None
    ship_anyway: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def asked(self) -> bool:
        """True when the user set a budget."""
        return self.min_sqnr is not None or self.task is not None

    @property
    def measures(self) -> str:
        """What a measurement for this budget depends on beside model and samples."""
        return "" if self.task is None else self.task.digest

    @property
    def words(self) -> str:
        """The budget as a sentence's part."""
        parts = [] if self.min_sqnr is None else [f"{self.min_sqnr:g} dB"]
        if self.task is not None:
            share = 0 <= self.task.reference <= 1
            most = f"{100 * self.task.max_drop:g} points" if share else f"{self.task.max_drop:g}"
            parts.append(f"at most {most} of {self.task.metric_name} lost")
        return " and ".join(parts)

    def keeps(self, fidelity: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether fidelity (with its `task`, where there is one) is within the budget, and the figures in words."""
        found = fidelity.get("task")  # a float form has none: it is the reference
        if self.task is None or found is None:
            return keeps_accuracy(fidelity, min_sqnr=self.min_sqnr)
        good, words = keeps_accuracy(fidelity, min_sqnr=-np.inf if self.min_sqnr is None else self.min_sqnr)
        shown = {key: in_words(found[key], found["float"]) for key in ("value", "float")}
        words += f", {found['name']} {shown['value']} where float has {shown['float']}"
        # The figures are rounded to a millionth: less than a sample of a million.
        return good and found["drop"] <= self.task.max_drop + 1e-6, words


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOptions:
    """A budget as the command line gives it, before anything is opened."""

    min_sqnr: float | None = None
    max_drop: str | None = None
    metric: str | None = None
    evaluation: str | Path | None = None
    ship_anyway: bool = False


def check_options(options: BudgetOptions) -> None:
    """Refuse a budget that cannot be, before anything is read.

    Raises `EdgecError`: `quant/max-drop`, `quant/metric`, `quant/min-sqnr`, `cli/no-effect`.
    """
    if options.min_sqnr is not None and not math.isfinite(options.min_sqnr):
        raise EdgecError(
            "quant/min-sqnr", f"cannot take {options.min_sqnr} dB", hint="give a number, as in --min-sqnr 30"
        )
    if options.max_drop is not None:
        parse_drop(options.max_drop)
        load_metric(options.metric or "top1")
    elif options.metric is not None or options.evaluation is not None:
        given = "a metric is given" if options.metric is not None else "labelled data is given to evaluate on"
        raise EdgecError(
            "quant/max-drop",
            f"{given}, but not how much of {'it' if options.metric is not None else 'a metric'} may be lost",
            hint="add --max-drop, as in --max-drop 0.5%",
        )
    elif options.ship_anyway and options.min_sqnr is None:
        raise EdgecError(
            "cli/no-effect",
            "--ship-anyway has no effect without an accuracy budget: nothing is held back then",
            hint="leave it out, or give a budget with --min-sqnr or --max-drop",
        )


def open_budget(
    options: BudgetOptions, model: Model, calibration: str | Path | None, usual: Recipe | None = None
) -> Budget:
    """The budget, with the float model measured where there is a metric.

    Labels come with `evaluation`, or with the calibration data; `usual` is the source's own preprocessing.
    Raises `EdgecError`: what `check_options` raises,
    `calibration/no-labels`, `calibration/missing`.
    """
    check_options(options)
    plain = Budget(min_sqnr=options.min_sqnr, ship_anyway=options.ship_anyway)
    if options.max_drop is None:
        return plain
    drop, name = parse_drop(options.max_drop), options.metric or "top1"
    metric = load_metric(name)
    place = options.evaluation or calibration
    if place is None:
        raise EdgecError(
            "calibration/missing",
            "--max-drop needs labelled data",
            hint="give it with --evaluation, or as --calibration",
        )
    samples = open_samples(place, model.inputs(), count=MAX_SAMPLES, usual=usual)
    labels = labels_of(samples)
    outputs, wanted = _outputs(Executor(model).run_all, model.inputs(), samples, labels)
    reference = metric(outputs, wanted)
    if name not in METRICS and (again := metric(outputs, wanted)) != reference:
        raise EdgecError(
            "quant/metric",
            f"the metric gave {reference:.6g} and then {again:.6g} for the same outputs",
            where=name,
            hint="it must give the same number each time: draw nothing at random, or with a fixed seed",
        )
    task = Task(
        metric_name=name,
        digest=digest_of(name, labels),
        metric=metric,
        specs=model.inputs(),
        samples=samples,
        labels=labels,
        max_drop=drop,
        reference=reference,
    )
    return replace(plain, task=task, findings=(*_in_other_units(task), *_no_better_than_chance(task, outputs, wanted)))


def _in_other_units(task: Task) -> tuple[Finding, ...]:
    """A metric in percent, or a loss: `0.5%` is of a metric that goes from 0 to 1."""
    if 0 <= task.reference <= 1:
        return ()
    found = Finding(
        code="quant/metric-units",
        message=f"the float model's {task.metric_name} is {task.reference:.6g}, not between 0 and 1: of it at most "
        f"{task.max_drop:g} may be lost",
        severity=Severity.WARNING,
        where=task.metric_name,
        hint="where it counts percent, return a hundredth of it; otherwise --max-drop is in the metric's own units",
    )
    return (found,)


def _no_better_than_chance(
    task: Task, outputs: Sequence[dict[str, Array]], labels: Sequence[Any]
) -> tuple[Finding, ...]:
    """Labels of other samples are right by chance: a metric that likes them as well judges nothing."""
    count = len(labels)
    if count < _FEWEST:
        return ()
    try:
        guessed = task.metric(outputs, [labels[i] for i in np.random.default_rng(0).permutation(count)])
    except EdgecError:
        return ()  # labels that fit no sample but their own
    luck = 1 / math.sqrt(count) if task.metric_name in METRICS else 0.0
    if task.reference > guessed + luck:
        return ()
    found = Finding(
        code="quant/metric-chance",
        message=f"the float model's {task.metric_name} is {task.reference:.4g}, and {guessed:.4g} with the labels "
        "shuffled: it says nothing of accuracy",
        severity=Severity.WARNING,
        where=task.samples.description,
        hint="check that the labels stand in the order of the samples, and number the classes as the model does",
    )
    return (found,)


def digest_of(metric: str, labels: Sequence[Any]) -> str:
    """A digest of what a metric's values depend on: its name, the code of one of the user's own, and the labels."""
    parts = [metric, code_of(metric), *(repr(np.asarray(x).tolist() if np.ndim(x) else x) for x in labels)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def parse_drop(text: str) -> float:
    """`0.5%` and `0.005` are the same: half a point of a metric that goes from 0 to 1. Raises `quant/max-drop`."""
    match = _PERCENT.fullmatch(text)
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value < 1:
        raise EdgecError(
            "quant/max-drop",
            f"cannot take {text!r} for what may be lost of a metric",
            hint="write 0.5% (or 0.005) for half a point",
        )
    return value


def evaluate(
    run: RunAll, specs: Sequence[TensorSpec], samples: SampleSource, labels: Sequence[Any], metric: Metric
) -> float:
    """The metric over all labelled samples of a model that `run` runs."""
    return metric(*_outputs(run, specs, samples, labels))


def _outputs(
    run: RunAll, specs: Sequence[TensorSpec], samples: SampleSource, labels: Sequence[Any]
) -> tuple[list[dict[str, Array]], list[Any]]:
    """The outputs of each sample, and its label."""
    outputs: list[dict[str, Array]] = []
    wanted: list[Any] = []
    asked, read = itertools.tee(samples.numbered())
    for (numbers, feed), found in zip(asked, run(feed for _, feed in read), strict=True):
        batch = _batch(specs, feed, len(numbers))
        for place, number in enumerate(numbers):
            outputs.append({k: _of_sample(v, place, batch) for k, v in found.items()})
            wanted.append(labels[number])
    return outputs, wanted


def _batch(specs: Sequence[TensorSpec], feed: Mapping[str, Array], size: int) -> int:
    """How many samples the feed's first axis holds."""
    return size if any(feed[s.name].ndim and feed[s.name].shape[0] == size for s in specs) else 1


def _of_sample(value: Array, place: int, batch: int) -> Array:
    """One sample's part of an output, without the batch axis."""
    return value[place] if value.ndim > 1 and value.shape[0] == batch else value
