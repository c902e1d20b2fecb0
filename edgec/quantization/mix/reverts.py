"""Ways out of int8, one after the other: each step reverts a kernel, or all around a value, to what the target offers.

1. Noise of different roundings adds up (`harms`). A node's weights make noise while they are int8; a value makes noise
   while an 8-bit kernel writes or reads it. int16 values and float16 weights count as exact.
2. A kernel whose data becomes int16 keeps its int8 weights (constants that are added or multiplied become int16 too);
   one with int8 weights beside float data rounds its input at run time, about as much as an 8-bit kernel did.
3. What has int8 weights beside float data in an int8 plan may leave them too.
4. Of all steps the one comes next that takes most noise away for the estimated time that it costs, conversions at its
   borders among it. So the first steps of the way are a fast mix for whatever accuracy they reach.
5. What would save time beside a step, as a conversion at its border goes, and makes no noise, is part of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from edgec.graph.model import Model, const_of
from edgec.graph.traits import Kind, weight_of
from edgec.quantization.mix.allowance import Rounded
from edgec.quantization.mix.costs import Costs, Touching
from edgec.quantization.mix.harms import Harms
from edgec.quantization.planning.plan_weights_only import MIN_ELEMENTS, dynamic_reason
from edgec.quantization.planning.units import Unit, cut
from edgec.quantization.planning.weights import plan_float16
from edgec.quantization.types import NodeScheme, QuantPlan
from edgec.targets.scheme import Scheme

#: A step takes at least this share of what is left of the noise away, and counts as this share of the time where it
#: costs less.
_MIN_GAIN = 1e-4
_FREE = 1e-4

#: What sums of noise leave to floating point.
_ROUNDING = 1e-9

_INT8_WEIGHTS = ("int8", "int16x8", "dynamic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Nodes with what they run in from here on, the share of the noise that it takes away, the seconds that it adds."""

    changes: Mapping[str, NodeScheme]
    gain: float
    seconds: float


@dataclass(slots=True)
class _Way:
    """The schemes so far, and what stands around each node."""

    schemes: dict[str, NodeScheme]
    usual: NodeScheme
    costs: Costs
    harms: Harms
    groups: Sequence[Rounded]
    writes_integers: bool
    widens: bool
    weighted: Collection[str]
    near_values: Touching = field(default_factory=dict)
    near_groups: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.near_values = self.costs.touching()
        for i, group in enumerate(self.groups):
            for name in dict.fromkeys((*group.writers, *group.readers)):
                self.near_groups.setdefault(name, []).append(i)

    def noise(self) -> float:
        """Of the whole model (rule 1)."""
        return self._noise(self.schemes, self.schemes, range(len(self.groups)))

    def leaving(self, changes: Iterable[str]) -> int:
        """How many nodes leave the usual scheme by a change."""
        return sum(self.schemes[name] == self.usual for name in changes)

    def step(self, changes: Mapping[str, NodeScheme]) -> Step | None:
        """What changing some nodes does; None where they are so already."""
        changes = {name: form for name, form in changes.items() if self.schemes[name] != form}
        if not changes:
            return None
        groups = sorted({i for name in changes for i in self.near_groups.get(name, ())})
        after = {**self._around(changes, groups), **changes}
        before = {name: self.schemes[name] for name in after}
        return Step(
            changes=changes,
            gain=self._noise(before, changes, groups) - self._noise(after, changes, groups),
            seconds=self.costs.difference(self.schemes, changes, self.near_values)[0],
        )

    def _around(self, changes: Iterable[str], groups: Iterable[int]) -> dict[str, NodeScheme]:
        names = [*changes]
        names += [n for i in groups for n in (*self.groups[i].writers, *self.groups[i].readers)]
        return {name: self.schemes[name] for name in names if name in self.schemes}

    def _noise(self, schemes: Mapping[str, NodeScheme], nodes: Iterable[str], groups: Iterable[int]) -> float:
        weights = (self.harms.weights.get(n, 0.0) for n in nodes if self._has_int8_weights(n, schemes[n]))
        values = (self.harms.values[i] * self._roundings(self.groups[i], schemes) for i in groups)
        return sum(weights) + sum(values)

    def _has_int8_weights(self, node: str, form: NodeScheme) -> bool:
        return form in _INT8_WEIGHTS and (form != "int16x8" or self.usual == form or node in self.weighted)

    def _roundings(self, group: Rounded, schemes: Mapping[str, NodeScheme]) -> int:
        """How often a value is rounded (rules 1, 2): 16 bits beside 8 count as exact."""
        return group.roundings(schemes, (self.usual,), writes=self.writes_integers, widens=self.widens)


def find_way(
    model: Model,
    plan: QuantPlan,
    scheme: Scheme,
    backend: str,
    groups: Sequence[Rounded],
    harms: Harms,
    costs: Costs,
    *,
    usual: NodeScheme = "int8",
    max_share: float = 1.0,
) -> tuple[Step, ...]:
    """The steps of rule 4, at most `max_share` of the nodes in `usual` and never all; gains as shares of all noise."""
    schemes = {name: node.scheme for name, node in plan.nodes.items()}
    weighted = {n.name or "" for n in model.nodes() if weight_of(n) is not None}
    way = _Way(schemes, usual, costs, harms, groups, scheme.int8_outputs, bool(scheme.widened_weights), weighted)
    moves = _moves(model, plan, scheme, backend, groups, usual)
    total, time = way.noise() or 1.0, costs.total_seconds(schemes) or 1.0
    quantized = sum(form == usual for form in schemes.values())
    may_leave = min(int(max_share * quantized), quantized - 1)
    left_over = total
    steps: list[Step] = []
    known: dict[int, Step | None] = {}
    while True:
        for i, move in enumerate(moves):
            if i not in known:
                known[i] = way.step(move)
        better = [
            (step, i)
            for i, step in known.items()
            if step is not None and step.gain > _MIN_GAIN * left_over and way.leaving(step.changes) <= may_leave
        ]
        if not better:
            return tuple(steps)
        best, _ = max(better, key=lambda found: (found[0].gain / max(found[0].seconds, _FREE * time), -found[1]))
        best, may_leave = _rounded_off(way, best, moves, may_leave)
        left_over -= best.gain
        steps.append(Step(changes=best.changes, gain=best.gain / total, seconds=best.seconds))
        touched = _touched(way, best.changes)
        known = {i: s for i, s in known.items() if not touched & moves[i].keys()}


def _rounded_off(way: _Way, step: Step, moves: Sequence[Mapping[str, NodeScheme]], may_leave: int) -> tuple[Step, int]:
    """Rule 5: the step taken, with what saves time beside it; and how many nodes may leave from then on."""
    while True:
        may_leave -= way.leaving(step.changes)
        way.schemes.update(step.changes)
        near = _touched(way, step.changes)
        around = (way.step(move) for move in moves if not near.isdisjoint(move))
        saving = [
            s
            for s in around
            if s is not None
            and s.seconds < 0
            and s.gain >= -_ROUNDING * step.gain
            and way.leaving(s.changes) <= may_leave
        ]
        if not saving:
            return step, may_leave
        more = min(saving, key=lambda s: s.seconds)
        both = {**step.changes, **more.changes}
        step = Step(changes=both, gain=step.gain + more.gain, seconds=step.seconds + more.seconds)


def _touched(way: _Way, changes: Iterable[str]) -> set[str]:
    """Nodes whose own steps mean something else after a change, as they share a value with what changed."""
    found = set(changes)
    for name in changes:
        for i in way.near_groups.get(name, ()):
            found.update(way.groups[i].writers, way.groups[i].readers)
        for value in way.near_values.get(name, ()):
            found.update((value.writer, *value.readers))
    return found


def _moves(
    model: Model, plan: QuantPlan, scheme: Scheme, backend: str, groups: Sequence[Rounded], usual: NodeScheme
) -> list[dict[str, NodeScheme]]:
    """Every kernel, and everything around a value, in every form that the target offers."""
    if usual == "dynamic":
        grown: Sequence[Unit] = [Unit(nodes=(node,), kind=Kind.ANCHOR) for node in model.nodes()]
    else:
        ops = scheme.int16_ops if usual == "int16x8" else scheme.int8_ops
        grown = cut(model, scheme, ops, backend).units
    units = {n.name or "": unit for unit in grown for n in unit.nodes if plan.nodes[n.name or ""].scheme == usual}
    alone = {n.name or "": n for n in model.nodes() if plan.nodes[n.name or ""].scheme == "dynamic"}
    units.update({name: Unit(nodes=(node,), kind=Kind.ANCHOR) for name, node in alone.items()})  # rule 3
    found: dict[tuple[tuple[str, NodeScheme], ...], dict[str, NodeScheme]] = {}
    around = [{name: unit} for name, unit in units.items() if weight_of(unit.head) is not None]
    around += [{n: units[n] for n in (*g.writers, *g.readers) if n in units} for g in groups]
    for form in scheme.revert_to:
        for members in around:
            changes: dict[str, NodeScheme] = {}
            for unit in members.values():
                changes.update(_reverted(unit, form, scheme, usual))
            changes = {name: new for name, new in changes.items() if plan.nodes[name].scheme in (usual, "dynamic")}
            if changes:
                found.setdefault(tuple(sorted(changes.items())), changes)
    return list(found.values())


def _reverted(unit: Unit, form: NodeScheme, scheme: Scheme, usual: NodeScheme) -> dict[str, NodeScheme]:
    """A whole kernel in another form; empty where it cannot have that."""
    head = unit.head
    if form == "int16x8":
        able = usual == "int8" and head.op_type in scheme.int16_ops
        return {n.name or "": form for n in unit.nodes} if able else {}
    weight = _weight(head)
    if form == "dynamic" and (weight is None or dynamic_reason(head, scheme)):
        return {}
    if form == "float16" and (weight is None or plan_float16(weight) is None):
        form = "float32"  # nothing to store in 16 bits: it computes in float either way
    return {head.name or "": form, **{n.name or "": "float32" for n in unit.nodes[1:]}}


def _weight(head: ir.Node) -> ir.Value | None:
    """The constant weight, where it is large enough for a form of its own."""
    position = weight_of(head)
    value = None if position is None else head.inputs[position]
    constant = const_of(value)
    return value if constant is not None and constant.size >= MIN_ELEMENTS else None
