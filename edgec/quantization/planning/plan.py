"""Decide what runs in int8, with which scales, and why: a pure function of model, statistics and target.

int8 and int16x8: cut the graph into units, leave to float what gains nothing from int8 (`neighbours`), give the rest
its scales (`assign`); what cannot get one is left out, and the decision is made again until nothing changes. Where
units of an int8 plan are asked to compute in int16, each width is assigned by itself (`widths`).
dynamic: int8 weights beside float data. float16: weights stored in 16 bits. float32: nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model, const_of
from edgec.graph.traits import Kind, data_inputs, within_inputs
from edgec.quantization.calibration.range_choice import RangeChoice
from edgec.quantization.planning.assign import assign
from edgec.quantization.planning.assignment import Assignment, Numbers
from edgec.quantization.planning.neighbours import Neighbours, settle
from edgec.quantization.planning.plan_weights_only import plan_dynamic, plan_float16_weights, with_float16
from edgec.quantization.planning.ranges import NATURAL, SPREADING, Ranges
from edgec.quantization.planning.units import Unit, cut
from edgec.quantization.planning.weights import bias_value, plan_bias, plan_weight
from edgec.quantization.planning.widths import wide_units
from edgec.quantization.types import NodePlan, NodeScheme, QuantPlan, Statistics, TensorPlan
from edgec.quantization.use_keys import collapse
from edgec.targets.profile import PrecisionName, Target
from edgec.targets.scheme import Scheme
from edgec.tensors import DType

#: How much farther the ranges of 16 bits reach than what was seen: for a bit of 16, inputs that go beyond the samples
#: are not cut off (nets with SiLU, HardSwish and attention: 31, 30 and 28 dB became 56, 61 and 61 on unseen samples).
_WIDE_ROOM = 2.0


def make_plan(
    model: Model,
    stats: Statistics | None,
    target: Target,
    backend: str,
    precision: PrecisionName,
    *,
    range_method: RangeChoice = "percentile",
    float_nodes: Collection[str] = (),
    dynamic_nodes: Collection[str] = (),
    reverted: Mapping[str, NodeScheme] | None = None,
) -> QuantPlan:
    """The plan for a canonical model. `float_nodes` are names of nodes to leave in float whatever the scheme says,
    `dynamic_nodes` of products with weights that a static plan gives int8 weights beside float data; `reverted` says
    for nodes of a static or dynamic plan what else they run in: float, float16, and in a static one also int16x8 (heads
    of units) and int8 weights alone.

    Raises `EdgecError`: `target/no-backend`, or `quant/no-statistics` when int8 is asked for without calibration.
    """
    scheme = scheme_of(target, backend)
    if precision == "float32":
        return _all_float(model, "float32 was asked for")
    asked = dict(reverted or {})
    floats = [*float_nodes, *(n for n, form in asked.items() if form in ("float16", "float32"))]
    halves = [n for n, form in asked.items() if form == "float16"]
    if precision == "dynamic":
        return _told_if_none(with_float16(model, plan_dynamic(model, scheme, floats), halves), precision)
    if precision == "float16":
        return _told_if_none(plan_float16_weights(model, float_nodes), precision)
    if stats is None:
        raise EdgecError(
            "quant/no-statistics",
            f"{precision} needs the ranges of the activations, and there are none",
            hint="give calibration data with --calibration, or ask for --precision dynamic",
        )
    kind = _numbers(scheme, precision)
    io_float = target.io_dtype == "float32"
    dynamic = [*(n for n in dynamic_nodes if n not in asked), *(n for n, form in asked.items() if form == "dynamic")]
    wide = frozenset(n for n, form in asked.items() if form == "int16x8")
    decision = _Decision(model, kind, backend, floats, dynamic, wide, io_float=io_float)
    ranges = {d: _wide(stats) if d is DType.INT16 else Ranges(stats, range_method) for d in decision.numbers}
    return with_float16(model, decision.plan(ranges), halves)


def _wide(stats: Statistics) -> Ranges:
    return Ranges(stats, "minmax", room=_WIDE_ROOM)


def tensors_to_observe(
    model: Model,
    scheme: Scheme,
    *,
    precision: PrecisionName = "int8",
    backend: str = "tflite",
    float_nodes: Collection[str] = (),
) -> tuple[str, ...]:
    """Names of the values whose ranges a plan may need, in graph order; none where only weights are quantized."""
    if precision not in ("int8", "int16x8"):
        return ()
    decision = _Decision(model, _numbers(scheme, precision), backend, float_nodes, io_float=False)
    return decision.observed()


def scheme_of(target: Target, backend: str) -> Scheme:
    """The quantization rules of a target's backend. Raises `EdgecError` when the target has no such backend."""
    for name, facts in target.backends.items():
        if name == backend:
            return facts.scheme
    raise EdgecError(
        "target/no-backend",
        f"target {target.id!r} has no backend {backend!r}",
        where=target.id,
        hint="it has: " + ", ".join(sorted(target.backends)),
    )


def _numbers(scheme: Scheme, precision: PrecisionName) -> Numbers:
    if precision == "int16x8":
        return Numbers(dtype=DType.INT16, symmetric=True, scheme=scheme)
    return Numbers(dtype=scheme.activation_dtype, symmetric=scheme.activation_symmetric, scheme=scheme)


def _all_float(model: Model, reason: str) -> QuantPlan:
    nodes = {n.name or "": NodePlan(scheme="float32", reason=reason) for n in model.nodes()}
    return QuantPlan(nodes=nodes)


@dataclass(frozen=True, slots=True)
class _Settled:
    """The last round: which units are live and in which width, the widths' parameters, and why others are not."""

    live: frozenset[int]
    dtypes: Mapping[int, DType]
    assigned: Mapping[DType, Assignment]
    reasons: Mapping[int, str]
    findings: tuple[Finding, ...]

    def of(self, unit: int) -> Assignment:
        """The parameters of a live unit's width."""
        return self.assigned[self.dtypes[unit]]


class _Decision:
    """The steps of one static plan."""

    def __init__(
        self,
        model: Model,
        numbers: Numbers,
        backend: str,
        float_nodes: Collection[str],
        dynamic_nodes: Collection[str] = (),
        wide_nodes: Collection[str] = (),
        *,
        io_float: bool,
    ) -> None:
        self.scheme = scheme = numbers.scheme
        ops = scheme.int16_ops if numbers.dtype is DType.INT16 else scheme.int8_ops
        self.model = model
        self.usual = numbers.dtype
        self.numbers = {numbers.dtype: numbers}
        if wide_nodes:
            self.numbers[DType.INT16] = _numbers(scheme, "int16x8")
        self.wide_nodes = wide_nodes
        self.cut = cut(model, scheme, ops, backend, float_nodes, dynamic_nodes)
        self.asked = frozenset(dynamic_nodes)
        self.neighbours = Neighbours(self.cut.units)
        self.excluded = self._fixed_at_outputs() if io_float else {}

    def observed(self) -> tuple[str, ...]:
        """Values of the most optimistic plan whose range nothing else tells."""
        live = set(range(len(self.cut.units))) - set(settle(self.neighbours, ()))
        names: dict[str, None] = {}
        for i in sorted(live):
            unit = self.cut.units[i]
            written = unit.outputs() if self.scheme.int8_outputs else ()
            for value in (*unit.data(), *written):
                self._observe(value, names)
        return tuple(names)

    def _observe(self, value: ir.Value, names: dict[str, None]) -> None:
        """Add what tells the range of a value: of what a mover writes, in int8 or not, that of what it reads."""
        producer = value.producer()
        if producer is not None and self._is_natural(producer):
            return
        if producer is None or not (_is_padded(producer) or self._hands_on(producer)):
            names[value.name or ""] = None
            return
        for data in (producer.inputs[i] for i in data_inputs(producer)):
            if data is not None and const_of(data) is None:
                self._observe(data, names)

    def _is_natural(self, producer: ir.Node) -> bool:
        kind = producer.op_type
        return kind in NATURAL and (kind not in SPREADING or kind in self.scheme.fixed_output)

    def _hands_on(self, producer: ir.Node) -> bool:
        return producer.op_type in self.scheme.same_scale_ops and within_inputs(producer)

    def _fixed_at_outputs(self) -> dict[int, str]:
        """A probability that leaves the model in float anyway stays float: a step of 1/256 would erase small ones."""
        found: dict[int, str] = {}
        for i, unit in enumerate(self.cut.units):
            if unit.tail.op_type in self.scheme.fixed_output and self._only_outputs(unit):
                found[i] = "its fixed int8 scale would coarsen a float output of the model for nothing"
        return found

    def _only_outputs(self, unit: Unit) -> bool:
        for value in unit.outputs():
            readers, outside = self.neighbours.readers(value)
            if outside or not (readers or value.is_graph_output()):
                return False
            movers = [self.cut.units[r] for r in readers]
            if not all(m.kind is Kind.MOVER and self._only_outputs(m) for m in movers):
                return False
        return True

    def settle(self, ranges: Mapping[DType, Ranges]) -> _Settled:
        """Exclude units until every live one has its scales."""
        excluded = dict(self.excluded)
        findings: list[Finding] = []
        while True:
            demoted = settle(self.neighbours, excluded)
            live = frozenset(range(len(self.cut.units))) - excluded.keys() - demoted.keys()
            wide = wide_units(self.neighbours, live, self.wide_nodes, self.scheme)
            dtypes = {i: DType.INT16 if i in wide else self.usual for i in live}
            assigned = {
                dtype: assign(
                    self.neighbours, {i for i in live if dtypes[i] is dtype}, ranges[dtype], numbers, others=live
                )
                for dtype, numbers in self.numbers.items()
            }
            found = _Settled(live, dtypes, assigned, {**demoted, **excluded}, ())
            refused = {i: why for a in assigned.values() for i, why in a.refused.items()} or self._refuse_weights(found)
            told = [f for a in assigned.values() for f in a.findings]
            if not refused:
                return replace(found, findings=tuple(dict.fromkeys([*findings, *told])))
            findings += [f for f in told if f.code != "quant/concat-ranges"]
            excluded.update(refused)

    def _refuse_weights(self, settled: _Settled) -> dict[int, str]:
        refused = {}
        for i in settled.live:
            unit = self.cut.units[i]
            if unit.kind is Kind.ANCHOR and not _is_product(unit) and self._weight(i, settled) is None:
                refused[i] = "its output range is too narrow for the kernel to rescale to"
        return refused

    def _weight(self, i: int, settled: _Settled) -> TensorPlan | None:
        unit, assignment = self.cut.units[i], settled.of(i)
        data = assignment.activations[unit.data()[0].name or ""].qparams
        output = assignment.activations.get(unit.outputs()[0].name or "")
        written = output.qparams if output else None
        return plan_weight(unit, self.scheme, data, written, dtype=settled.dtypes[i])

    def plan(self, ranges: Mapping[DType, Ranges]) -> QuantPlan:
        """All decisions of the last round, by name."""
        settled = self.settle(ranges)
        weights = {key: plan for a in settled.assigned.values() for key, plan in a.constants.items()}
        biases: dict[tuple[str, str], TensorPlan] = {}
        for i in sorted(settled.live):
            unit = self.cut.units[i]
            if unit.kind is not Kind.ANCHOR or _is_product(unit):
                continue
            weight = self._weight(i, settled)
            assert weight is not None
            weights[_weight_name(unit), unit.head.name or ""] = weight
            data = settled.of(i).activations[unit.data()[0].name or ""].qparams
            bias, plan = bias_value(unit), plan_bias(unit, data, weight.qparams)
            if bias is not None and plan is not None:
                biases[bias.name or "", (unit.bias_add or unit.head).name or ""] = plan
        for unit in self.cut.weights_only:
            if (weight := plan_weight(unit, self.scheme, None, None)) is not None:
                weights[_weight_name(unit), unit.head.name or ""] = weight
        activations, requantized = self._stored(settled)
        plan_ = QuantPlan(
            activations=activations,
            requantized=requantized,
            weights=collapse(weights),
            biases=collapse(biases),
            nodes=self._nodes(settled),
            findings=settled.findings,
        )
        if settled.live:
            return plan_
        return replace(plan_, findings=(*settled.findings, _nothing_quantized(_SCHEMES.get(self.usual, "int8"))))

    def _stored(self, settled: _Settled) -> tuple[dict[str, TensorPlan], dict[str, TensorPlan]]:
        """Activations in graph order: as they are written, and as those of the other width read them."""
        order = {v.name or "": v for v in self.model.graph.inputs}
        order.update({v.name or "": v for n in self.model.nodes() for v in n.outputs})
        written: dict[str, TensorPlan] = {}
        others: dict[str, TensorPlan] = {}
        for name, value in order.items():
            plans = {dtype: a.activations[name] for dtype, a in settled.assigned.items() if name in a.activations}
            if not plans:
                continue
            writer = self.neighbours.writer(value)
            # What no integer kernel wrote is best rounded to the wider type first.
            dtype = settled.dtypes.get(-1 if writer is None else writer, DType.INT16)
            first = plans.pop(dtype, None) or plans.pop(self.usual)
            written[name] = first
            if plans:
                (others[name],) = plans.values()
        return written, others

    def _nodes(self, settled: _Settled) -> dict[str, NodePlan]:
        found = {name: NodePlan(scheme="float32", reason=why) for name, why in self.cut.reasons.items()}
        for i, unit in enumerate(self.cut.units):
            for node in unit.nodes:
                if i not in settled.live:
                    plan = NodePlan(scheme="float32", reason=settled.reasons[i])
                else:
                    why = _WHY[unit.kind] if node is unit.head else f"part of the kernel of {unit.head.name!r}"
                    plan = NodePlan(scheme=_SCHEMES.get(settled.dtypes[i], "int8"), reason=why)
                found[node.name or ""] = plan
        for unit in self.cut.weights_only:
            name = unit.head.name or ""
            why = "asked for" if name in self.asked else "it has too few output positions for int8 data to pay"
            found[name] = NodePlan(scheme="dynamic", reason=f"int8 weights alone: {why}")
        return {n.name or "": found[n.name or ""] for n in self.model.nodes()}


#: What a unit runs in, by the type of its data; int8 for the 8-bit ones.
_SCHEMES: dict[DType, NodeScheme] = {DType.INT16: "int16x8"}

_WHY = {
    Kind.ANCHOR: "the target has a quantized kernel for it",
    Kind.LIGHT: "quantized values reach it and quantized operators read it",
    Kind.MOVER: "it hands quantized values on",
}


def _is_padded(node: ir.Node) -> bool:
    """Whether a node hands on what a Pad wrote, which may be −∞: what was seen of it tells nothing."""
    if node.op_type == "Pad":
        return True
    writers = [v.producer() for i in data_inputs(node) if (v := node.inputs[i]) is not None]
    return within_inputs(node) and any(w is not None and _is_padded(w) for w in writers)


def _is_product(unit: Unit) -> bool:
    """True for a product of two values neither of which is a weight."""
    return len(unit.data()) + len(unit.constants()) > 1


def _weight_name(unit: Unit) -> str:
    value = next(v for v in unit.head.inputs[1:2] if v is not None and const_of(v) is not None)
    return value.name or ""


def _told_if_none(plan: QuantPlan, precision: PrecisionName) -> QuantPlan:
    """A plan that touches weights alone, with a word where it found none."""
    return plan if plan.weights else replace(plan, findings=(*plan.findings, _nothing_quantized(precision)))


def _nothing_quantized(precision: str) -> Finding:
    return Finding(
        code="quant/nothing-quantized",
        message=f"no operator of the model runs in {precision} on this target",
        severity=Severity.WARNING,
        hint="the plan's node table gives the reason for each; --precision float32 says what is built",
    )
