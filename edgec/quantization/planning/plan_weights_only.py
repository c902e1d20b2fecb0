"""Plans that touch weights alone: dynamic range (int8 weights, float data) and float16 storage."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import onnx_ir as ir

from edgec.graph.model import Model, attr, const_of
from edgec.graph.traits import Kind, is_float, trait_of, weight_of
from edgec.quantization.planning.units import Unit, anchor_reason
from edgec.quantization.planning.weights import plan_float16, plan_weight
from edgec.quantization.types import NodePlan, NodeScheme, QuantPlan, TensorPlan
from edgec.quantization.use_keys import collapse, lookup
from edgec.targets.scheme import Scheme

#: Smaller weights are not worth a kernel that dequantizes.
MIN_ELEMENTS = 1024

#: Lookup tables: stored in 16 bits like weights, and looked up before they are widened.
_TABLES = frozenset({"Gather"})


def plan_dynamic(model: Model, scheme: Scheme, float_nodes: Collection[str]) -> QuantPlan:
    """int8 weights for the operators that quantize their input at run time (`dynamic_ops`)."""

    def decide(node: ir.Node) -> TensorPlan | str:
        if reason := dynamic_reason(node, scheme):
            return reason
        plan = plan_weight(Unit(nodes=(node,), kind=Kind.ANCHOR), scheme, None, None)
        return plan or "its weights cannot be quantized"

    return _plan(model, "dynamic", "int8 weights, its input is quantized at run time", decide, float_nodes)


def dynamic_reason(node: ir.Node, scheme: Scheme) -> str:
    """Why a node cannot run with int8 weights beside float data; empty when it can."""
    if node.op_type not in scheme.dynamic_ops:
        return f"the target has no dynamic-range kernel for {node.op_type}"
    if reason := anchor_reason(node, ()):
        return reason
    if attr(node, "group", 1) > 1 and not scheme.dynamic_grouped:
        return "the target has no fast dynamic-range kernel for grouped convolutions"
    return ""


def with_float16(model: Model, plan: QuantPlan, nodes: Collection[str]) -> QuantPlan:
    """A plan in which float nodes store their weights in float16 where these are large enough to pay."""
    if not nodes:
        return plan
    halves = plan_float16_weights(model, [n.name or "" for n in model.nodes() if n.name not in nodes])
    # A weight that an int8 node reads under the same key has its integers there: then both keep what they have.
    weights = {key: entry for key, entry in halves.weights.items() if key not in plan.weights}
    chosen = {
        n.name or "": halves.nodes[n.name or ""]
        for n in model.nodes()
        if halves.nodes[n.name or ""].scheme == "float16"
        and any(lookup(weights, v.name or "", n.name or "") for v in n.inputs if v is not None)
    }
    return replace(plan, nodes={**plan.nodes, **chosen}, weights={**plan.weights, **weights})


def plan_float16_weights(model: Model, float_nodes: Collection[str]) -> QuantPlan:
    """float16 storage for weights and lookup tables; arithmetic stays float32."""

    def decide(node: ir.Node) -> TensorPlan | str:
        position = _stored(node)
        if position is None or not is_float(node.inputs[position]):
            return "it has no float32 weights"
        value = node.inputs[position]
        assert value is not None
        return plan_float16(value) or "its weights exceed what float16 holds"

    return _plan(model, "float16", "its weights are stored in float16", decide, float_nodes)


def _stored(node: ir.Node) -> int | None:
    if node.op_type in _TABLES:
        return 0 if const_of(node.inputs[0]) is not None else None
    trait = trait_of(node)
    return weight_of(node) if trait is not None and trait.kind is Kind.ANCHOR else None


def _plan(
    model: Model,
    scheme: NodeScheme,
    reason: str,
    decide: Callable[[ir.Node], TensorPlan | str],
    float_nodes: Collection[str],
) -> QuantPlan:
    weights: dict[tuple[str, str], TensorPlan] = {}
    nodes: dict[str, NodePlan] = {}
    for node in model.nodes():
        name = node.name or ""
        position = _stored(node)
        value = None if position is None else node.inputs[position]
        constant = const_of(value)
        outcome: TensorPlan | str = "asked to stay float"
        if name not in float_nodes:
            small = constant is not None and constant.size < MIN_ELEMENTS
            outcome = f"its weights have fewer than {MIN_ELEMENTS} elements" if small else decide(node)
        if isinstance(outcome, str) or value is None:
            nodes[name] = NodePlan(scheme="float32", reason=str(outcome))
            continue
        weights[value.name or "", name] = outcome
        nodes[name] = NodePlan(scheme=scheme, reason=reason)
    return QuantPlan(weights=collapse(weights), nodes=nodes)
