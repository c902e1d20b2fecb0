"""One build under way: precisions tried, judged and raced, and what the chosen one computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgec.artifact import Artifact
from edgec.backends.base import Backend, CompileOptions, Precision
from edgec.bundle.golden import Golden
from edgec.errors import Finding, Severity
from edgec.graph.indices import index_limits, known_texts
from edgec.graph.model import Model, dtype_of
from edgec.pipeline import measure
from edgec.pipeline.budget import Budget
from edgec.pipeline.estimates import estimate_artifact
from edgec.pipeline.mixing import Ground, mix
from edgec.pipeline.precision import HAS_INT8_WEIGHTS, NEEDS_CALIBRATION, Candidates, lower_in_runtime
from edgec.pipeline.speed import Speeds, estimated, measured, raceable
from edgec.pipeline.stages import Clock
from edgec.quantization.calibration.calibrate import calibrate as run_calibration
from edgec.quantization.calibration.range_choice import RangeChoice, RangeMethod
from edgec.quantization.data.samples import SampleSource
from edgec.quantization.measures.fidelity import features
from edgec.quantization.measures.kinds import kinds_in
from edgec.quantization.mix.allowance import Mixture, mixer
from edgec.quantization.mix.mixed import Mixed
from edgec.quantization.planning.plan import make_plan, tensors_to_observe
from edgec.quantization.repair.even import evener
from edgec.quantization.repair.ladder import FIRST_RANGES, Climb, Effort, Rung, climb
from edgec.quantization.run.apply import apply_plan, has_qdq
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.run_time import as_run
from edgec.quantization.types import NodeScheme, QuantPlan, Statistics
from edgec.runners.base import run_artifact, stream_artifact
from edgec.runners.compare import STEPS_OF_16_BITS
from edgec.targets.profile import BackendFacts, Target
from edgec.tensors import Array, DType, Kind

#: Samples that judge a precision, and samples that travel in the bundle as goldens.
_JUDGE_SAMPLES = 100
#: Fewer judge where inputs and outputs are large: they are held in memory together.
_JUDGE_BYTES = 256 << 20
_GOLDENS = 3

IoLayout = Literal["auto", "source", "nhwc"]


@dataclass(slots=True)
class Form:
    """One precision tried: the legalized float model, its plan, its QDQ form and how that compares with float.

    `there` is how its artifact does in its runtime, where a budget of the user's asked for that.
    """

    precision: Precision
    legal: Model
    plan: QuantPlan | None
    model: Model
    fidelity: dict[str, Any]
    ladder: tuple[Rung, ...] = ()
    ranges: RangeChoice = "auto"
    mixed: Mixed | None = None
    statistics: Statistics | None = None
    mixture: Mixture = field(default_factory=Mixture)
    there: dict[str, Any] | None = None


@dataclass(slots=True)
class Build:
    """State of one build. Each method is a stage and leaves its product in a field."""

    target: Target
    backend_name: str
    facts: BackendFacts
    backend: Backend
    clock: Clock
    stop_after: str | None
    output: Path
    io_layout: IoLayout
    effort: Effort
    model: Model
    samples: SampleSource | None
    findings: list[Finding] = field(default_factory=list)
    ranges: RangeMethod | None = None
    labels: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    statistics: Statistics | None = None
    feeds: list[dict[str, Array]] = field(default_factory=list)
    float_outputs: list[dict[str, Array]] = field(default_factory=list)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    race: Speeds | None = None
    budget: Budget = field(default_factory=Budget)
    judged: tuple[Model, list[dict[str, Array]]] | None = None
    #: What outputs hold of different kinds, by name.
    kinds: dict[str, tuple[Kind, ...]] = field(default_factory=dict)

    def prepare_references(self) -> None:
        """The inputs that judge fidelity, and what the float model makes of them."""
        made: list[dict[str, Array]] = []
        if self.samples is None:
            limits, texts = index_limits(self.model), known_texts(self.model)
            made = measure.random_feeds(self.model.inputs(), _GOLDENS, limits=limits, texts=texts)
        known = made if self.samples is None else self.samples
        asked, read = itertools.tee(itertools.islice(known, _JUDGE_SAMPLES))
        held = 0
        broken: list[tuple[dict[str, Array], dict[str, Array]]] = []
        for feed, outputs in zip(asked, Executor(self.model).run_all(read), strict=True):
            if any(np.isnan(array).any() for array in outputs.values() if array.dtype.kind == "f"):
                broken.append((feed, outputs))
                continue
            self.feeds.append(feed)
            self.float_outputs.append(outputs)
            held += sum(array.nbytes for array in (*feed.values(), *outputs.values()))
            if held > _JUDGE_BYTES and len(self.feeds) >= _GOLDENS:
                break
        if broken:
            self.findings.append(_not_judged(len(broken), len(self.feeds)))
        if not self.feeds:
            self.feeds, self.float_outputs = [f for f, _ in broken], [o for _, o in broken]
        self.kinds = kinds_in(self.model.graph.outputs, self.float_outputs)

    def form(self, precision: Precision) -> Form:
        """Legalize, calibrate, plan and apply one precision."""
        with self.clock.stage("legalize"):
            legal = self.backend.legalize(self.model, self.target, precision)
        if has_qdq(legal):
            return Form(precision, legal, None, legal, self._fidelity(legal))
        statistics = self._calibrate(legal, precision) if precision in NEEDS_CALIBRATION else None
        climbed = self._climb(legal, statistics, precision)
        fidelity = self._fidelity(climbed.model) if precision != "float32" else measure.fidelity([], [])
        legal, statistics = climbed.evened or (legal, statistics)
        return Form(
            precision,
            legal,
            climbed.plan,
            climbed.model,
            fidelity,
            climbed.rungs,
            climbed.ranges,
            statistics=statistics,
            mixture=climbed.mixture,
        )

    def _climb(self, legal: Model, statistics: Statistics | None, precision: Precision) -> Climb:
        """Plan and apply, and climb the repair ladder where there is data to learn from."""

        def make(model: Model, seen: Statistics | None, method: RangeChoice) -> QuantPlan:
            return self._plan(model, seen, precision, method)

        repaired = self.samples is not None and self.effort != "fast" and precision in HAS_INT8_WEIGHTS
        with self.clock.stage("quantize"):
            if not repaired:
                return climb(legal, make, statistics, (), effort="fast", ranges=self.ranges)
            plan = make(legal, statistics, self.ranges or FIRST_RANGES)
        with self.clock.stage("repair") as report:
            even = mix_in = None
            if precision == "int8" and statistics is not None:
                even = evener(legal, statistics, self.feeds)
                mix_in = mixer(self.target, self.backend_name)
            return climb(
                legal,
                make,
                statistics,
                self.feeds,
                effort=self.effort,
                ranges=self.ranges,
                plan=plan,
                weight_bits=self.facts.scheme.weight_bits,
                even=even,
                mix=mix_in,
                rows=not self.facts.scheme.widened_weights,
                progress=report,
            )

    def _plan(
        self,
        legal: Model,
        statistics: Statistics | None,
        precision: Precision,
        method: RangeChoice,
        reverted: Mapping[str, NodeScheme] | None = None,
        *,
        mixture: Mixture | None = None,
    ) -> QuantPlan:
        if mixture and (mix_in := mixer(self.target, self.backend_name)) is not None:
            return mix_in.plan(legal, statistics, method, mixture, reverted)
        return make_plan(
            legal,
            statistics,
            self.target,
            self.backend_name,
            precision,
            range_method=method,
            reverted=reverted,
        )

    def keeps_budget(self, fidelity: dict[str, Any]) -> tuple[bool, str]:
        """Whether fidelity is within the user's budget, or the default one, and the numbers in words."""
        return self.budget.keeps(fidelity)

    def mix(self, form: Form) -> Form:
        """The form with its most harmful nodes reverted, as few as the budget needs; itself when that fails."""
        if form.plan is None or form.precision not in HAS_INT8_WEIGHTS or not self.facts.scheme.revert_to:
            return form
        if self.samples is None and not self.budget.asked:
            return form  # made-up inputs are no reason to take nodes out
        make = partial(self._plan, form.legal, form.statistics, form.precision, form.ranges, mixture=form.mixture)
        data = [self.samples, None if self.budget.task is None else self.budget.task.samples]
        digests = [source.digest if source else "made up" for source in data]
        # The ladder may have left int8 weights alone of an int8 plan: then it is those that nodes leave.
        schemes = {node.scheme for node in form.plan.nodes.values()}
        usual: NodeScheme = form.precision if form.precision in schemes else "dynamic"
        ground = Ground(target=self.target, backend=self.backend_name, usual=usual)
        with self.clock.stage("mix") as report:
            found = mix(
                form.legal,
                form.plan,
                make,
                self.feeds,
                self.budget,
                self._outcome,
                partial(self.there, form.precision) if self.proves else None,
                ground=ground,
                data_digests=digests,
                progress=report,
            )
        if not found.met:
            return replace(form, mixed=found)
        self.artifacts.pop(form.precision, None)
        return replace(form, plan=found.plan, model=found.model, fidelity=self._fidelity(found.model), mixed=found)

    @property
    def proves(self) -> bool:
        """Whether what the backend makes of a model has to keep the budget too: where a user set one."""
        return self.budget.asked and self.stop_after != "quantize"

    def there(self, precision: Precision, model: Model) -> dict[str, Any]:
        """How what the backend makes of a model does in its runtime, with the task's metric where there is one."""
        artifact = self.backend.compile(model, self.target, self._how(precision))
        found = self._measured(list(_run_all(artifact, self.feeds)))
        task = self.budget.task
        return found if task is None else {**found, "task": task.measure(partial(_run_all, artifact))}

    def part_way(self, options: Candidates, stage: str) -> Model | Statistics | None:
        """What `--stop-after legalize` or `calibrate` gives, of the first candidate; None when it has no such stage."""
        precision = options.precisions[0]
        with self.clock.stage("legalize"):
            legal = self.backend.legalize(self.model, self.target, precision)
        if stage == "legalize":
            return legal
        needed = precision in NEEDS_CALIBRATION and not has_qdq(legal)
        return self._calibrate(legal, precision) if needed else None

    def _calibrate(self, legal: Model, precision: Precision) -> Statistics:
        assert self.samples is not None
        wanted = tensors_to_observe(legal, self.facts.scheme, precision=precision, backend=self.backend_name)
        with self.clock.stage("calibrate") as report:
            self.statistics = run_calibration(legal, self.samples, tensors=wanted, progress=report)
        self.findings += [f for f in self.statistics.findings if f not in self.findings]
        return self.statistics

    def _measured(self, outputs: measure.Outputs) -> dict[str, Any]:
        return measure.fidelity(self.float_outputs, outputs, features=features(self.model), kinds=self.kinds)

    def _fidelity(self, quantized: Model) -> dict[str, Any]:
        with self.clock.stage("judge"):
            return self._outcome(quantized)

    def _outcome(self, quantized: Model) -> dict[str, Any]:
        found = self._measured(self._outputs(quantized))
        return (
            found
            if self.budget.task is None
            else {**found, "task": self.budget.task.measure(Executor(quantized).run_all)}
        )

    def _outputs(self, model: Model) -> list[dict[str, Array]]:
        """What a model makes of the judging inputs, with what kernels round at run time; the last model's are kept."""
        if self.judged is None or self.judged[0] is not model:
            self.judged = model, list(Executor(as_run(model, self.facts.scheme)).run_all(self.feeds))
        return self.judged[1]

    def compile(self, form: Form) -> Artifact:
        """The artifact of a form, compiled once."""
        if form.precision not in self.artifacts:
            with self.clock.stage("compile"):
                how = self._how(form.precision)
                self.artifacts[form.precision] = self.backend.compile(form.model, self.target, how)
        return self.artifacts[form.precision]

    def _how(self, precision: Precision) -> CompileOptions:
        return CompileOptions(precision=precision, io_layout=self.io_layout, as_given=has_qdq(self.model))

    def speeds(self, form: Form, others: Sequence[Precision]) -> Speeds:
        """How fast the form is beside float; and beside `others` where products that those run well stay in float."""
        if not raceable(self.target, self.facts):
            known = dict(estimated(self.model, self.target, self.backend_name).ms)
            if form.mixed is not None and form.mixed.reverted and form.precision in known:
                made = estimate_artifact(self.compile(form), self.target)
                known[form.precision] = made["latency_ms"]["typical"] if made else known[form.precision]
            self.race = Speeds(kind="estimate", ms={p: known[p] for p in (form.precision, "float32") if p in known})
            return self.race
        schemes = {} if form.plan is None else form.plan.nodes
        kinds = {n.name or "": n.op_type for n in form.legal.nodes()}
        left = any(schemes[n].scheme == "float32" and kinds.get(n) in self.facts.scheme.dynamic_ops for n in schemes)
        racers: dict[str, Artifact] = {form.precision: self.compile(form)}
        for other in others:
            if other in self.facts.precisions and (left or other == "float32"):
                racers[other] = self._unrepaired(other)
        if len(racers) == 1:
            return Speeds(kind="measured", ms={})
        with self.clock.stage("race"):
            found = measured(racers, self.feeds[0])
        self.race = Speeds(kind="measured", ms={**({} if self.race is None else self.race.ms), **found.ms})
        return found

    def _unrepaired(self, precision: Precision) -> Artifact:
        """A form that needs no data, as it is before repairs: those change its weights, and not its speed."""
        if precision in self.artifacts or precision == "float32":
            return self.artifacts.get(precision) or self.compile(self.form(precision))
        with self.clock.stage("compile"):
            legal = self.backend.legalize(self.model, self.target, precision)
            model = apply_plan(legal, self._plan(legal, None, precision, "auto"))
            return self.backend.compile(model, self.target, self._how(precision))

    def goldens(self, form: Form, artifact: Artifact) -> tuple[list[Golden], dict[str, Any], dict[str, Any]]:
        """Run the artifact on the judging inputs; goldens to keep, its fidelity, its agreement with the QDQ model."""
        references = self._outputs(form.model)
        raw_in = [{b.artifact.name: b.to_artifact(feed[b.source.name]) for b in artifact.inputs} for feed in self.feeds]
        raw_out = run_artifact(artifact, raw_in)
        outputs = [{b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs} for raw in raw_out]
        kept = [
            Golden(inputs=i, raw_inputs=ri, raw_outputs=ro, reference_outputs=r, float_outputs=f)
            for i, ri, ro, r, f in zip(self.feeds, raw_in, raw_out, references, self.float_outputs, strict=True)
        ][:_GOLDENS]
        fidelity = self._measured(outputs)
        fidelity["reference_sqnr_db"] = form.fidelity.get("sqnr_db")
        if (task := (form.there or form.fidelity).get("task")) is not None:
            fidelity["task"] = task
        quantized = form.precision in NEEDS_CALIBRATION
        if quantized:
            values = min((x.size for x in self.float_outputs[0].values()), default=0) * len(outputs)
            self.findings += lower_in_runtime(fidelity, form.fidelity.get("sqnr_db"), values)
        agreement = measure.agreement(references, outputs, output_steps(form)) if quantized else {}
        return kept, fidelity, agreement


def _not_judged(broken: int, good: int) -> Finding:
    """Samples of which the float model itself makes no numbers."""
    if good:
        message = f"the float model gives NaN for {broken} of {broken + good} samples: they judge nothing"
    else:
        message = f"the float model gives NaN for every one of {broken} samples: accuracy figures say nothing"
    return Finding(
        code="calibration/no-numbers",
        message=message,
        severity=Severity.WARNING,
        hint="look for broken samples (NaN, infinities), or a logarithm or root of what it cannot take",
    )


def _run_all(artifact: Artifact, feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """An artifact's outputs for each set of inputs, in the source's terms in and out."""
    raw = ({b.artifact.name: b.to_artifact(feed[b.source.name]) for b in artifact.inputs} for feed in feeds)
    for found in stream_artifact(artifact, raw):
        yield {b.source.name: b.to_source(found[b.artifact.name]) for b in artifact.outputs}


def output_steps(form: Form) -> dict[str, float]:
    """The quantization step of every output that comes straight from integers; of 8 bits wherever those are inside."""
    steps: dict[str, float] = {}
    for value in form.model.graph.outputs:
        producer = value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear" and len(producer.inputs) > 1:
            stored, scale = (
                producer.inputs[0],
                producer.inputs[1].const_value if producer.inputs[1] is not None else None,
            )
            if stored is not None and scale is not None and scale.size == 1:
                wide = dtype_of(stored) is DType.INT16 and form.precision == "int8"
                steps[value.name or ""] = float(scale.numpy().reshape(())) * (STEPS_OF_16_BITS if wide else 1)
    return steps
