"""Cut the graph into units: what one kernel runs, with no rounding inside.

A unit is a head operator, then a bias addition (after a product with a constant matrix), then a fused
activation, as far as the scheme and the graph allow. The rest of the planner decides about units, not nodes.
Every node that is not in a unit stays float, and the reason is kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, attr, const_of, shape_of
from edgec.graph.traits import (
    Kind,
    bias_of,
    clip_bounds,
    data_inputs,
    is_float,
    is_vector_bias,
    trait_of,
    weight_of,
)
from edgec.graph.work import PRODUCTS, multiplications
from edgec.targets.scheme import Scheme

#: In `int8_ops`: products of two activations run in int8 as well.
ACTIVATION_PRODUCT = "MatMul:activations"

#: A constant this far below zero that is added or selected masks positions out: no scale holds it beside data.
MASK = -1e4

#: Clip bounds that a kernel of the backend applies while it writes its output; any others need a node of their own.
FUSED_BOUNDS: dict[str, frozenset[tuple[float, float]]] = {
    "tflite": frozenset({(0.0, math.inf), (0.0, 6.0), (-1.0, 1.0)}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """One kernel's worth of nodes: `nodes[0]` is the head. `bias_add` is the fused addition of a bias."""

    nodes: tuple[ir.Node, ...]
    kind: Kind
    bias_add: ir.Node | None = None

    @property
    def head(self) -> ir.Node:
        """The operator that reads the unit's data."""
        return self.nodes[0]

    @property
    def tail(self) -> ir.Node:
        """The operator that writes the unit's outputs."""
        return self.nodes[-1]

    def data(self) -> tuple[ir.Value, ...]:
        """The values that are computed at run time and read by the head."""
        return tuple(v for v in self._data() if const_of(v) is None)

    def constants(self) -> tuple[ir.Value, ...]:
        """The constants that the head treats as data."""
        return tuple(v for v in self._data() if const_of(v) is not None)

    def _data(self) -> list[ir.Value]:
        values = (self.head.inputs[i] for i in data_inputs(self.head))
        return [v for v in values if v is not None]

    def outputs(self) -> tuple[ir.Value, ...]:
        """The values that the unit writes."""
        return tuple(self.tail.outputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The units in graph order, those with int8 weights beside float data, and for each other node (by name) why."""

    units: tuple[Unit, ...]
    reasons: dict[str, str] = field(default_factory=dict)
    weights_only: tuple[Unit, ...] = ()


def cut(
    model: Model,
    scheme: Scheme,
    ops: Collection[str],
    backend: str,
    float_nodes: Collection[str] = (),
    dynamic_nodes: Collection[str] = (),
) -> Cut:
    """Cut the main graph. `ops` are the operators that have a quantized kernel; `dynamic_nodes` have int8 weights."""
    if ACTIVATION_PRODUCT in ops and not _products_weigh(model, scheme):
        ops = [op for op in ops if op != ACTIVATION_PRODUCT]
    units: list[Unit] = []
    reasons: dict[str, str] = {}
    weights_only: list[Unit] = []
    taken: set[str] = set()
    for node in model.nodes():
        name = node.name or ""
        if name in taken:
            continue
        reason = "asked to stay float" if name in float_nodes else _why_not(node, ops)
        if reason:
            reasons[name] = reason
            continue
        if name in dynamic_nodes or is_small(node, scheme):
            weights_only.append(Unit(nodes=(node,), kind=Kind.ANCHOR))
            continue
        unit = _grow(node, scheme, backend, float_nodes)
        taken.update(n.name or "" for n in unit.nodes)
        units.append(unit)
    return Cut(units=tuple(units), reasons=reasons, weights_only=tuple(weights_only))


def is_activation_product(node: ir.Node) -> bool:
    """True for a matrix product of two values that are both computed at run time."""
    return node.op_type == "MatMul" and all(const_of(v) is None for v in node.inputs)


def _products_weigh(model: Model, scheme: Scheme) -> bool:
    """True where products of two activations are as much of the model's work as the scheme wants for int8 to pay."""
    work = {n.name or "": multiplications(n) for n in model.nodes() if n.op_type in PRODUCTS}
    theirs = sum(work[n.name or ""] for n in model.nodes() if is_activation_product(n))
    return theirs >= scheme.int8_product_share * sum(work.values())


def is_small(node: ir.Node, scheme: Scheme) -> bool:
    """True for a convolution with fewer output positions than int8 data pays for."""
    if node.op_type != "Conv" or node.outputs[0].shape is None:
        return False
    positions = shape_of(node.outputs[0])[2:]
    return -1 not in positions and math.prod(positions) < scheme.int8_min_positions


def _why_not(node: ir.Node, ops: Collection[str]) -> str:
    """Why a node cannot be the head of a unit; empty when it can."""
    trait = trait_of(node)
    if trait is None or node.op_type not in ops:
        return f"the target has no quantized kernel for {node.op_type}"
    positions = data_inputs(node)
    values = [node.inputs[i] for i in positions]
    if not values or not all(is_float(v) for v in (*values, *node.outputs)):
        return "its data is not float32"
    if all(const_of(v) is not None for v in values):
        return "it reads constants only"
    if trait.kind is Kind.ANCHOR:
        return anchor_reason(node, ops)
    if node.op_type in ("Add", "Mul", "Where", "Sum") and any(_masks(v) for v in values):
        return "it masks positions with a huge negative constant, which leaves no resolution for the data"
    return "" if all(_is_finite(v) for v in values) else "its constant has infinite values"


def anchor_reason(node: ir.Node, ops: Collection[str]) -> str:
    """Why an operator with weights cannot have them in int8; empty when it can."""
    weight = weight_of(node)
    if weight is None:
        if node.op_type == "MatMul" and ACTIVATION_PRODUCT in ops:
            return ""
        return "its weights are computed at run time"
    if not is_float(node.inputs[weight]):
        return "its weights are not float32"
    if not _is_finite(node.inputs[weight]):
        return "its weights have infinite values"
    bias = bias_of(node)
    if bias is not None and const_of(node.inputs[bias]) is None:
        return "its bias is computed at run time"
    if bias is not None and not _is_finite(node.inputs[bias]):
        return "its bias has infinite values"
    return _gemm_reason(node) if node.op_type == "Gemm" else ""


def _gemm_reason(node: ir.Node) -> str:
    if attr(node, "transA", 0):
        return "its data input is transposed"
    if attr(node, "alpha", 1.0) != 1.0 or (len(node.inputs) > 2 and attr(node, "beta", 1.0) != 1.0):
        return "its alpha or beta is not 1"
    weight, bias = const_of(node.inputs[1]), bias_of(node)
    channels = 0 if weight is None else weight.shape[0 if attr(node, "transB", 0) else 1]
    if bias is not None and not is_vector_bias(node.inputs[bias], channels):
        return "its bias has not one number an output channel"
    return ""


def _is_finite(value: ir.Value | None) -> bool:
    constant = const_of(value)
    return constant is None or bool(np.isfinite(constant).all())


def _masks(value: ir.Value | None) -> bool:
    constant = const_of(value)
    return constant is not None and constant.size > 0 and float(constant.min()) <= MASK


def _grow(head: ir.Node, scheme: Scheme, backend: str, float_nodes: Collection[str]) -> Unit:
    """Add the bias addition and the fused activation behind a head."""
    trait = trait_of(head)
    assert trait is not None
    nodes, bias_add = [head], None
    follower = _only_reader(head)
    if follower is not None and follower.name not in float_nodes and _adds_bias(head, follower):
        nodes.append(follower)
        bias_add = follower
        follower = _only_reader(follower)
    if trait.fuses and follower is not None and follower.name not in float_nodes:
        bounds = FUSED_BOUNDS.get(backend)
        fits = follower.op_type != "Clip" or bounds is None or clip_bounds(follower) in bounds
        if follower.op_type in scheme.fused_activations and fits and follower.inputs[0] is nodes[-1].outputs[0]:
            nodes.append(follower)
    return Unit(nodes=tuple(nodes), kind=trait.kind, bias_add=bias_add)


def _only_reader(node: ir.Node) -> ir.Node | None:
    """The one node of the same graph that reads the only output of `node`, once; None when there are others."""
    if len(node.outputs) != 1 or node.outputs[0].is_graph_output():
        return None
    uses = tuple(node.outputs[0].uses())
    if len(uses) != 1 or uses[0][0].graph is not node.graph:
        return None
    return uses[0][0]


def _adds_bias(head: ir.Node, follower: ir.Node) -> bool:
    """True for a product with a constant matrix followed by the addition of one number a column."""
    weight = weight_of(head)
    if head.op_type != "MatMul" or weight is None or follower.op_type != "Add":
        return False
    matrix = const_of(head.inputs[weight])
    if matrix is None or matrix.ndim != 2:
        return False
    vector = bias_add_input(follower, head.outputs[0])
    return is_vector_bias(vector, matrix.shape[1]) and _is_finite(vector)


def bias_add_input(addition: ir.Node, product: ir.Value) -> ir.Value | None:
    """The operand of a bias addition that is not the product."""
    first, second = addition.inputs[0], addition.inputs[1]
    return second if first is product else first
