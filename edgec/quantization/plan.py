"""Decide what runs in int8, with which scales, and why: a pure function of model, statistics and target.

int8 and int16x8: cut the graph into units, leave to float what gains nothing from int8 (`neighbours`), give the rest
its scales (`assign`); what cannot get one is left out, and the decision is made again until nothing changes.
dynamic: int8 weights beside float data. float16: weights stored in 16 bits. float32: nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model, const_of
from edgec.graph.traits import Kind, within_inputs
from edgec.quantization.assign import assign
from edgec.quantization.assignment import Assignment, Numbers
from edgec.quantization.neighbours import Neighbours, settle
from edgec.quantization.plan_weights_only import plan_dynamic, plan_float16_weights
from edgec.quantization.range_choice import RangeMethod
from edgec.quantization.ranges import NATURAL, Ranges
from edgec.quantization.types import NodePlan, NodeScheme, QuantPlan, Statistics, TensorPlan
from edgec.quantization.units import Unit, cut
from edgec.quantization.use_keys import collapse
from edgec.quantization.weights import bias_value, plan_bias, plan_weight
from edgec.targets.profile import PrecisionName, Target
from edgec.targets.scheme import Scheme
from edgec.tensors import DType


def make_plan(
    model: Model,
    stats: Statistics | None,
    target: Target,
    backend: str,
    precision: PrecisionName,
    *,
    range_method: RangeMethod = "percentile",
    float_nodes: Collection[str] = (),
    dynamic_nodes: Collection[str] = (),
) -> QuantPlan:
    """The plan for a canonical model. `float_nodes` are names of nodes to leave in float whatever the scheme says,
    `dynamic_nodes` of products with weights that a static plan gives int8 weights beside float data.

    Raises `EdgecError`: `target/no-backend`, or `quant/no-statistics` when int8 is asked for without calibration.
    """
    scheme = scheme_of(target, backend)
    if precision == "float32":
        return _all_float(model, "float32 was asked for")
    if precision == "dynamic":
        return plan_dynamic(model, scheme, float_nodes)
    if precision == "float16":
        return plan_float16_weights(model, float_nodes)
    if stats is None:
        raise EdgecError(
            "quant/no-statistics",
            f"{precision} needs the ranges of the activations, and there are none",
            hint="give calibration data with --calibration, or ask for --precision dynamic",
        )
    kind = _numbers(scheme, precision)
    io_float = target.io_dtype == "float32"
    decision = _Decision(model, kind, backend, float_nodes, dynamic_nodes, io_float=io_float)
    method: RangeMethod = "minmax" if kind.dtype is DType.INT16 else range_method  # 16 bits need no clipping
    return decision.plan(Ranges(stats, method), precision)


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
    """The last round: which units are live, their parameters, and why the others are not."""

    live: frozenset[int]
    assignment: Assignment
    reasons: Mapping[int, str]
    findings: tuple[Finding, ...]


class _Decision:
    """The steps of one static plan."""

    def __init__(
        self,
        model: Model,
        numbers: Numbers,
        backend: str,
        float_nodes: Collection[str],
        dynamic_nodes: Collection[str] = (),
        *,
        io_float: bool,
    ) -> None:
        scheme = numbers.scheme
        ops = scheme.int16_ops if numbers.dtype is DType.INT16 else scheme.int8_ops
        self.model = model
        self.numbers = numbers
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
            written = unit.outputs() if self.numbers.scheme.int8_outputs else ()
            for value in (*unit.data(), *written):
                producer = value.producer()
                known = producer is not None and (producer.op_type in NATURAL or self._hands_on(producer))
                if not known:
                    names[value.name or ""] = None
        return tuple(names)

    def _hands_on(self, producer: ir.Node) -> bool:
        return producer.op_type in self.numbers.scheme.same_scale_ops and within_inputs(producer)

    def _fixed_at_outputs(self) -> dict[int, str]:
        """A probability that leaves the model in float anyway stays float: a step of 1/256 would erase small ones."""
        found: dict[int, str] = {}
        for i, unit in enumerate(self.cut.units):
            if unit.tail.op_type in self.numbers.scheme.fixed_output and self._only_outputs(unit):
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

    def settle(self, ranges: Ranges) -> _Settled:
        """Exclude units until every live one has its scales."""
        excluded = dict(self.excluded)
        findings: list[Finding] = []
        while True:
            demoted = settle(self.neighbours, excluded)
            live = frozenset(range(len(self.cut.units))) - excluded.keys() - demoted.keys()
            assignment = assign(self.neighbours, live, ranges, self.numbers)
            refused = dict(assignment.refused) or self._refuse_weights(live, assignment)
            if not refused:
                findings += assignment.findings
                return _Settled(live, assignment, {**demoted, **excluded}, tuple(dict.fromkeys(findings)))
            findings += [f for f in assignment.findings if f.code != "quant/concat-ranges"]
            excluded.update(refused)

    def _refuse_weights(self, live: Iterable[int], assignment: Assignment) -> dict[int, str]:
        refused = {}
        for i in live:
            unit = self.cut.units[i]
            if unit.kind is Kind.ANCHOR and not _is_product(unit) and self._weight(unit, assignment) is None:
                refused[i] = "its output range is too narrow for the kernel to rescale to"
        return refused

    def _weight(self, unit: Unit, assignment: Assignment) -> TensorPlan | None:
        data = assignment.activations[unit.data()[0].name or ""].qparams
        output = assignment.activations.get(unit.outputs()[0].name or "")
        written = output.qparams if output else None
        return plan_weight(unit, self.numbers.scheme, data, written, dtype=self.numbers.dtype)

    def plan(self, ranges: Ranges, precision: PrecisionName) -> QuantPlan:
        """All decisions of the last round, by name."""
        settled = self.settle(ranges)
        weights = dict(settled.assignment.constants)
        biases: dict[tuple[str, str], TensorPlan] = {}
        for i in sorted(settled.live):
            unit = self.cut.units[i]
            if unit.kind is not Kind.ANCHOR or _is_product(unit):
                continue
            weight = self._weight(unit, settled.assignment)
            assert weight is not None
            weights[_weight_name(unit), unit.head.name or ""] = weight
            data = settled.assignment.activations[unit.data()[0].name or ""].qparams
            bias, plan = bias_value(unit), plan_bias(unit, data, weight.qparams)
            if bias is not None and plan is not None:
                biases[bias.name or "", (unit.bias_add or unit.head).name or ""] = plan
        for unit in self.cut.weights_only:
            if (weight := plan_weight(unit, self.numbers.scheme, None, None)) is not None:
                weights[_weight_name(unit), unit.head.name or ""] = weight
        scheme: NodeScheme = "int16x8" if precision == "int16x8" else "int8"
        plan_ = QuantPlan(
            activations=self._written(settled),
            weights=collapse(weights),
            biases=collapse(biases),
            nodes=self._nodes(settled, scheme),
            findings=settled.findings,
        )
        return plan_ if settled.live else replace(plan_, findings=(*settled.findings, _nothing_quantized(precision)))

    def _written(self, settled: _Settled) -> dict[str, TensorPlan]:
        """Activations in graph order."""
        order = {v.name or "": None for v in self.model.graph.inputs}
        order.update({v.name or "": None for n in self.model.nodes() for v in n.outputs})
        plans = settled.assignment.activations
        return {name: plans[name] for name in order if name in plans}

    def _nodes(self, settled: _Settled, scheme: NodeScheme) -> dict[str, NodePlan]:
        found = {name: NodePlan(scheme="float32", reason=why) for name, why in self.cut.reasons.items()}
        for i, unit in enumerate(self.cut.units):
            for node in unit.nodes:
                if i not in settled.live:
                    plan = NodePlan(scheme="float32", reason=settled.reasons[i])
                elif node is unit.head:
                    plan = NodePlan(scheme=scheme, reason=_WHY[unit.kind])
                else:
                    plan = NodePlan(scheme=scheme, reason=f"part of the kernel of {unit.head.name!r}")
                found[node.name or ""] = plan
        for unit in self.cut.weights_only:
            name = unit.head.name or ""
            why = "asked for" if name in self.asked else "it has too few output positions for int8 data to pay"
            found[name] = NodePlan(scheme="dynamic", reason=f"int8 weights alone: {why}")
        return {n.name or "": found[n.name or ""] for n in self.model.nodes()}


_WHY = {
    Kind.ANCHOR: "the target has a quantized kernel for it",
    Kind.LIGHT: "quantized values reach it and quantized operators read it",
    Kind.MOVER: "it hands quantized values on",
}


def _is_product(unit: Unit) -> bool:
    """True for a product of two values neither of which is a weight."""
    return len(unit.data()) + len(unit.constants()) > 1


def _weight_name(unit: Unit) -> str:
    value = next(v for v in unit.head.inputs[1:2] if v is not None and const_of(v) is not None)
    return value.name or ""


def _nothing_quantized(precision: str) -> Finding:
    return Finding(
        code="quant/nothing-quantized",
        message=f"no operator of the model runs in {precision} on this target",
        severity=Severity.WARNING,
        hint="the plan's node table gives the reason for each; --precision float32 says what is built",
    )
