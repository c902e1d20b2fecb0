"""Spend what a target allows on accuracy: float, or int8 weights alone, where they take most noise out per microsecond.

1. Noise of different roundings adds up at the output, so what a value's rounding does there is measured with it alone,
   and what a mix does is the sum. Values that an operator only moves are rounded once, together.
2. A value is not rounded when neither its writer nor a reader is int8. A reader with int8 weights beside float data
   rounds it at run time, about as much; so it rounds once more what an int8 kernel wrote. One that widens its weights
   rounds nothing, and a kernel that may write float writes it where no int8 one reads.
3. A step frees one value: its readers leave int8, and its writer, which may stay where it may write float. Of all steps
   that the allowance (of estimated latency, and of the weights' bytes) still covers, the one that takes most noise away
   for its share of it comes next: of the time or of the bytes, whichever it takes more of. A layer that is small and
   quick leaves room for others.
4. Noise above the usual budget may take more of both, until it is half of that; what was not measured counts. Where
   weights are widened, readers may then keep them in int8 and take no bytes; what they take longer is within the
   allowance by itself, whatever others save.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from edgec.errors import Finding, Severity
from edgec.graph.model import Model, const_of
from edgec.graph.traits import weight_of, within_inputs
from edgec.graph.work import multiplications
from edgec.metrics import MAX_DB
from edgec.quantization.calibration.range_choice import RangeChoice
from edgec.quantization.mix.alone import noise_alone
from edgec.quantization.mix.costs import Costs, costs_of
from edgec.quantization.planning.groups import Groups
from edgec.quantization.planning.neighbours import Neighbours, settle
from edgec.quantization.planning.plan import make_plan, scheme_of
from edgec.quantization.planning.plan_weights_only import MIN_ELEMENTS, dynamic_reason
from edgec.quantization.planning.units import cut
from edgec.quantization.types import STATIC, NodeScheme, QuantPlan, Statistics
from edgec.targets.profile import Target
from edgec.targets.scheme import Scheme
from edgec.tensors import Array

#: Values whose noise is measured at most: those that are cheapest to free.
MAX_MEASURED = 40
_FEWEST = 8

#: Multiplications that measuring may take in all: of a large model fewer samples are looked at, and fewer values.
_WORK = 4e10

#: So many bytes more may always go into weights: a small model's last layer is a few.
_BYTES = 16 << 10

#: Signal to noise below which a model is lost (rule 4): the usual budget.
LOST_DB = 20.0
_LOST_NOISE = 10 ** (-LOST_DB / 10)

#: Where it stops being lost: weights' roundings come on top, and a few samples do not tell exactly.
_SAVED_NOISE = _LOST_NOISE / 2

#: Bytes that may then go into weights, and how many times the allowance of latency: a table of features in different
#: units costs its first layer, and with it the model, and nobody asks how fast a model is that int8 has ruined.
_RESCUE_BYTES, _RESCUE_TIMES = 64 << 10, 3
_RESCUE_MEASURED = 6

#: A step takes at least this share of the noise away; what takes less than this share of the allowance counts as free.
_MIN_GAIN = 0.004
_FREE = 0.003


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Nodes that leave int8, by name, each with the reason."""

    float_nodes: Mapping[str, str] = field(default_factory=dict)
    dynamic_nodes: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.float_nodes or self.dynamic_nodes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """Values that are rounded together: who writes and who reads them."""

    values: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]

    def roundings(
        self, schemes: Mapping[str, NodeScheme], coarse: Collection[NodeScheme] = STATIC, *, writes: bool, widens: bool
    ) -> int:
        """How often the values are rounded (rule 2), where `coarse` are the schemes whose data counts as rounded.

        `writes` is False where kernels leave what they give in float, `widens` True where they widen int8 weights.
        """
        written = writes and any(schemes.get(w) in coarse for w in self.writers)
        before = written or any(schemes.get(r) in coarse for r in self.readers)
        at_run_time = not widens and any(schemes.get(r) == "dynamic" for r in self.readers)
        return before + (at_run_time and (written or not before))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """Nodes with other schemes, what that costs, and the noise it takes away."""

    changes: Mapping[str, NodeScheme]
    seconds: float
    size: int
    gain: float = 0.0


def _has_int8(schemes: Mapping[str, NodeScheme]) -> bool:
    """Whether anything is left of an int8 model."""
    return any(form in STATIC or form == "dynamic" for form in schemes.values())


class Allowance:
    """One model's plan, and what may be spent on it."""

    def __init__(self, model: Model, plan: QuantPlan, target: Target, backend: str, costs: Costs) -> None:
        self.model, self.plan, self.costs = model, plan, costs
        scheme = scheme_of(target, backend)
        self._neighbours = Neighbours(cut(model, scheme, scheme.int8_ops, backend).units)
        self._units = {n.name or "": unit.nodes for unit in self._neighbours.units for n in unit.nodes}
        self._scheme = scheme
        self.schemes: dict[str, NodeScheme] = {name: node.scheme for name, node in plan.nodes.items()}
        self._touching = costs.touching()
        self.seconds = costs.total_seconds(self.schemes)
        self.size = costs.total_bytes(self.schemes)
        self.groups = rounded_together(model, plan, scheme)
        self._read: dict[str, list[int]] = {}
        for i, rounded in enumerate(self.groups):
            for name in rounded.readers:
                self._read.setdefault(name, []).append(i)

    def choose(self, noise: Mapping[int, float], whole: float = 0.0) -> Mixture:
        """What to take out of int8, given the noise of groups by their position (rule 3), and that of the model."""
        schemes = dict(self.schemes)
        total = sum(noise.values()) or 1.0
        others = max(whole - total, 0.0)
        reasons: dict[str, str] = {}
        refused: set[tuple[str, ...]] = set()
        rescue, widened_s = False, 0.0
        while True:
            at = self.costs.total_seconds(schemes), self.costs.total_bytes(schemes)
            now = self._total(noise, schemes)
            lost = now + others > (_SAVED_NOISE if rescue else _LOST_NOISE)  # rule 4
            more_b = self._most_bytes() if lost else self._more_bytes()
            limit_s = self.seconds * (1 + self._most_share(lost))
            rescue = rescue or lost
            steps = (s for i in noise for s in self._steps(i, schemes, rescue))
            steps = (s for s in steps if tuple(sorted(s.changes)) not in refused)
            judged = (replace(s, gain=now - self._total(noise, {**schemes, **s.changes})) for s in steps)
            fits = [
                s
                for s in judged
                if s.gain >= _MIN_GAIN * total
                and at[0] + s.seconds <= limit_s
                and at[1] + s.size <= self.size + more_b
                and self.seconds + widened_s + self._widened_seconds(s, schemes) <= limit_s
            ]
            if not fits:
                break
            best = max(fits, key=lambda s: (s.gain / self._share(s, more_b), sorted(s.changes)))
            settled = self._settled({**schemes, **best.changes})
            cost = self.costs.total_seconds(settled) - at[0]
            if at[0] + cost > limit_s or not _has_int8(settled):
                refused.add(tuple(sorted(best.changes)))
                continue
            why = (
                f"rounding here makes {100 * best.gain / total:.1f} % of the noise, "
                f"and leaving it out costs {max(100 * cost / self.seconds, 0):.1f} % of the estimated latency"
            )
            widened_s += self._widened_seconds(best, schemes)
            schemes = settled
            reasons.update(dict.fromkeys(best.changes, why))
        return Mixture(
            float_nodes={n: why for n, why in reasons.items() if schemes[n] == "float32"},
            dynamic_nodes={n: why for n, why in reasons.items() if schemes[n] == "dynamic"},
        )

    def _widened_seconds(self, step: _Step, schemes: Mapping[str, NodeScheme]) -> float:
        """What products that leave int8 take longer as their weights are widened; 0 where none are (rule 4)."""
        if not self._scheme.widened_weights:
            return 0.0
        known = self.costs.seconds
        left = [n for n, form in step.changes.items() if form == "dynamic" and (n, form) in known]
        return sum(known[n, "dynamic"] - known[n, schemes[n]] for n in left)

    def _settled(self, schemes: dict[str, NodeScheme]) -> dict[str, NodeScheme]:
        """With what the planner takes out of int8 itself, as nothing int8 is left around it."""
        units = self._neighbours.units
        out = [i for i, unit in enumerate(units) if schemes.get(unit.head.name or "") not in STATIC]
        alone = {n.name or "" for i in settle(self._neighbours, out) for n in units[i].nodes}
        return {**schemes, **dict.fromkeys(alone, "float32")}

    def without_int8_data(self) -> Mixture:
        """Every kernel without int8 data, where the allowance covers that; nothing where weights are widened for it."""
        if self._scheme.widened_weights or not self._scheme.dynamic_ops:
            return Mixture()
        schemes = dict(self.schemes)
        for name, scheme in self.schemes.items():
            if scheme in STATIC:
                schemes.update(self._leave(name, True))
        seconds, size = self.costs.total_seconds(schemes), self.costs.total_bytes(schemes)
        if seconds > self.seconds * (1 + self._scheme.accuracy_allowance) or size > self.size + self._more_bytes():
            return Mixture()
        if not _has_int8(schemes):
            return Mixture()  # weights too small for it: that would be float32
        why = f"no int8 data anywhere: {100 * (seconds / self.seconds - 1):+.1f} % of the estimated latency"
        changed = [name for name, scheme in self.schemes.items() if scheme in STATIC]
        return Mixture(
            float_nodes={n: why for n in changed if schemes[n] == "float32"},
            dynamic_nodes={n: why for n in changed if schemes[n] == "dynamic"},
        )

    def worth_measuring(self, *, lost: bool) -> list[int]:
        """Positions of the groups that a step within the allowance frees, the cheapest first; more where much is."""
        share = self._most_share(lost)
        found = []
        for i in range(len(self.groups)):
            fits = [
                s.seconds
                for s in self._steps(i, self.schemes)
                if s.seconds <= share * self.seconds and s.size <= self._most_bytes()
            ]
            if fits:
                found.append((min(fits), i))
        return [i for _, i in sorted(found)[: MAX_MEASURED * (_RESCUE_MEASURED if lost else 1)]]

    def _most_share(self, lost: bool) -> float:
        """Of the latency, what may be spent (rule 4)."""
        return self._scheme.accuracy_allowance * (_RESCUE_TIMES if lost else 1)

    def _share(self, step: _Step, more_bytes: float) -> float:
        """What a step takes of the allowance (rule 3)."""
        seconds = step.seconds / (self._scheme.accuracy_allowance * self.seconds)
        return max(seconds, step.size / more_bytes, _FREE)

    def _more_bytes(self) -> float:
        return max(_BYTES, self._scheme.accuracy_allowance * self.size)

    def _most_bytes(self) -> float:
        return max(_RESCUE_BYTES, self._more_bytes())

    def _total(self, noise: Mapping[int, float], schemes: Mapping[str, NodeScheme]) -> float:
        writes, widens = self._scheme.int8_outputs, bool(self._scheme.widened_weights)
        return sum(n * self.groups[i].roundings(schemes, writes=writes, widens=widens) for i, n in noise.items())

    def _steps(self, group: int, schemes: Mapping[str, NodeScheme], rescue: bool = True) -> list[_Step]:
        """The ways to free a group: int8 weights alone or float, for what writes it and for what reads it (3, 4)."""
        rounded = self.groups[group]
        forms: tuple[NodeScheme, ...] = ("dynamic", "float32")
        writes = forms if self._scheme.int8_outputs else (*forms, "int8")
        reads = forms if rescue or not self._scheme.widened_weights else forms[1:]
        found = {}
        for write, read in itertools.product(writes, reads):
            changes: dict[str, NodeScheme] = {}
            for names, form in ((rounded.writers if write != "int8" else (), write), (rounded.readers, read)):
                for name in names:
                    if schemes.get(name) in STATIC:
                        changes.update(self._leave(name, form == "dynamic"))
            changes = self._with_sources(changes, schemes)
            if changes:
                found[tuple(sorted(changes.items()))] = changes
        return [
            _Step(
                changes=changes,
                seconds=seconds,
                size=size,
            )
            for changes in found.values()
            for seconds, size in [self.costs.difference(schemes, changes, self._touching)]
        ]

    def _with_sources(self, changes: dict[str, NodeScheme], schemes: Mapping[str, NodeScheme]) -> dict[str, NodeScheme]:
        """The changes, and operators without weights that write what the changed ones read, while that is cheaper."""
        queue = list(changes)
        while queue:
            for group in self._read.get(queue.pop(), ()):
                rounded = self.groups[group]
                around = [n for n in (*rounded.writers, *rounded.readers) if {**schemes, **changes}.get(n) in STATIC]
                if not around or any(self._has_weights(n) for n in around):
                    continue
                wider = {**changes, **{k: v for n in around for k, v in self._leave(n, False).items()}}
                before = self.costs.difference(schemes, changes, self._touching)[0]
                if self.costs.difference(schemes, wider, self._touching)[0] <= before:
                    changes, queue = wider, [*queue, *around]
        return changes

    def _has_weights(self, name: str) -> bool:
        nodes = self._units.get(name)
        return nodes is not None and weight_of(nodes[0]) is not None

    def _leave(self, name: str, dynamic: bool) -> dict[str, NodeScheme]:
        """A node's whole kernel without int8 data."""
        nodes = self._units.get(name)
        if nodes is None:
            return {name: "float32"}
        head, *fused = nodes
        form: NodeScheme = "dynamic" if dynamic and self._can_be_dynamic(head) else "float32"
        return {head.name or "": form, **{n.name or "": "float32" for n in fused}}

    def _can_be_dynamic(self, head: ir.Node) -> bool:
        position = weight_of(head)
        weight = None if position is None else const_of(head.inputs[position])
        return weight is not None and weight.size >= MIN_ELEMENTS and not dynamic_reason(head, self._scheme)


def rounded_together(model: Model, plan: QuantPlan, scheme: Scheme) -> tuple[Rounded, ...]:
    """The plan's values, those together that operators hand on unchanged and in the same parameters (rule 1)."""
    groups = Groups()
    values = {v.name or "": v for n in model.nodes() for v in n.outputs}
    values.update({v.name or "": v for v in model.graph.inputs})
    for name in plan.activations:
        groups.add(name)
    for node in model.nodes():
        if plan.nodes[node.name or ""].scheme not in STATIC or node.op_type not in scheme.same_scale_ops:
            continue
        names = [v.name or "" for v in (*node.inputs, *node.outputs) if v is not None and v.name in plan.activations]
        if within_inputs(node) and names and len({plan.activations[n].qparams for n in names}) == 1:
            groups.join(names)
    found = []
    for members in groups.sets().values():
        writers = [p.name or "" for n in members if (p := values[n].producer()) is not None]
        readers = [u.name or "" for n in members for u, _ in values[n].uses()]
        found.append(
            Rounded(values=tuple(members), writers=tuple(dict.fromkeys(writers)), readers=tuple(dict.fromkeys(readers)))
        )
    return tuple(found)


def mixer(target: Target, backend: str) -> Mixer | None:
    """What mixes int8 plans for a target; None where it allows nothing, or computes in integers from end to end."""
    if target.io_dtype != "float32" or not scheme_of(target, backend).accuracy_allowance:
        return None
    return Mixer(target, backend)


@dataclass(frozen=True, slots=True)
class Mixer:
    """Finds a plan's mixture, and makes the plan with it."""

    target: Target
    backend: str

    def find(
        self, model: Model, plan: QuantPlan, feeds: Sequence[Mapping[str, Array]], *, sqnr_db: float = MAX_DB
    ) -> Mixture:
        """The mixture for a plan of `model`, from a few samples; empty when nothing pays.

        `sqnr_db` is how it does as it is: where its noise is above the usual budget, more is looked at.
        """
        lost = sqnr_db < LOST_DB
        allowance = self._allowance(model, plan)
        if allowance is None:
            return Mixture()
        runs = _WORK / max(sum(multiplications(node) for node in model.nodes()), 1)
        feeds = feeds[: max(1, int(runs / _FEWEST))]
        measured = allowance.worth_measuring(lost=lost)[: max(_FEWEST, int(runs / max(len(feeds), 1)))]
        noise = noise_alone(model, plan, [allowance.groups[i].values for i in measured], feeds)
        return allowance.choose(dict(zip(measured, noise, strict=True)), 10 ** (-sqnr_db / 10))

    def light(self, model: Model, plan: QuantPlan) -> Mixture:
        """int8 weights alone for all products, and float for the rest; empty where that takes longer than allowed."""
        allowance = self._allowance(model, plan)
        return Mixture() if allowance is None else allowance.without_int8_data()

    def _allowance(self, model: Model, plan: QuantPlan) -> Allowance | None:
        """What may be spent; None without coefficients, or for a plan that is not of int8 data."""
        costs = costs_of(model, self.target, self.backend)
        if costs is None or not plan.activations or any(n.scheme == "int16x8" for n in plan.nodes.values()):
            return None
        return Allowance(model, plan, self.target, self.backend, costs)

    def plan(
        self,
        model: Model,
        stats: Statistics | None,
        method: RangeChoice,
        mixture: Mixture,
        reverted: Mapping[str, NodeScheme] | None = None,
    ) -> QuantPlan:
        """The plan with a mixture's nodes, and its reasons in it; `reverted` goes before the mixture."""
        made = make_plan(
            model,
            stats,
            self.target,
            self.backend,
            "int8",
            range_method=method,
            float_nodes=[n for n in mixture.float_nodes if n not in (reverted or {})],
            dynamic_nodes=[n for n in mixture.dynamic_nodes if n not in (reverted or {})],
            reverted=reverted,
        )
        reasons = {**mixture.float_nodes, **{n: f"int8 weights alone: {r}" for n, r in mixture.dynamic_nodes.items()}}
        nodes = {
            name: node if node.scheme in STATIC else replace(node, reason=reasons.get(name, node.reason))
            for name, node in made.nodes.items()
        }
        return replace(made, nodes=nodes, findings=_told(made, mixture, scheme_of(self.target, self.backend)))


def _told(plan: QuantPlan, mixture: Mixture, scheme: Scheme) -> tuple[Finding, ...]:
    """The plan's findings; that nothing is int8 any more is said as what it is: a choice, of which weights remain."""
    if not mixture.dynamic_nodes or any(node.scheme in STATIC for node in plan.nodes.values()):
        return plan.findings
    why = "this target's runtime multiplies them as fast beside float data"
    if scheme.widened_weights:
        why = "data in 8 bits loses much, and in float costs little here"
    said = Finding(
        code="quant/weights-alone",
        message=f"only weights are int8: {why}",
        severity=Severity.INFO,
        hint="--effort fast, or accuracy_allowance = 0.0 in a profile of your own, quantizes data as well",
    )
    return (*(f for f in plan.findings if f.code != "quant/nothing-quantized"), said)
