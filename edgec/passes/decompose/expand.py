"""Replace operators by what they are made of: an own rule where there is one, else the body that ONNX defines.

An own rule exists where ONNX has no body, or one that computes shapes at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from edgec.errors import EdgecError
from edgec.graph.edit import Editor, all_values, remove_dead
from edgec.graph.model import ORIGIN_KEY, Model, label, origin
from edgec.graph.verify import verify
from edgec.passes.base import Pass, run_passes
from edgec.passes.body_shapes import BodyShapes
from edgec.passes.decompose.ml import ML_RULES
from edgec.passes.decompose.own import OWN_RULES, OwnRule
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.shapes import schema_of, type_proto
from edgec.passes.upgrade_opset import adapt

_DOMAIN = "edgec.body"
#: Domains whose operators ONNX defines.
_KNOWN_DOMAINS = frozenset({"", "ai.onnx.preview", "ai.onnx.ml"})
#: Rounds: what a rule makes may be wanted itself, and a rule may wait for the shapes that another one makes.
_MAX_ROUNDS = 32
#: Own rules by domain.
_OWN: dict[str, dict[str, OwnRule]] = {"": OWN_RULES, "ai.onnx.ml": ML_RULES}


def decompose(model: Model, wanted: Container[str] | Callable[[ir.Node], bool]) -> Model:
    """A new model in which no wanted node is left that can be taken apart; the source is left as it is.

    `wanted` lists operator types, or says yes to a node. What a rule makes is taken apart again when it is wanted
    itself. Shapes are inferred anew, and constant parts folded.
    """
    result = model.clone()
    want = wanted if callable(wanted) else lambda node: node.op_type in wanted
    clean: tuple[Pass, ...] = (FoldConstants(), Eliminate(), BodyShapes())
    stuck: set[str] = set()
    for _ in range(_MAX_ROUNDS):
        nodes = [
            node
            for node in result.ir.graph.all_nodes()
            if node.domain in _KNOWN_DOMAINS and (node.name or "") not in stuck and want(node)
        ]
        if not nodes:
            break
        editor = Editor(result)
        bodies = done = 0
        for node in nodes:
            rule = _OWN.get(node.domain, {}).get(node.op_type)
            if rule is not None and rule(node, editor):
                done += 1
                continue
            if _call_body(node, result, bodies):
                bodies += 1
            else:
                stuck.add(node.name or "")
        if bodies:
            _inline(result)
        remove_dead(result.ir)
        run_passes(result, clean, rounds=2)
        if done + bodies:
            stuck = set()  # shapes that were unknown may be known now
    verify(result.ir)
    return result


def can_decompose(op_type: str, opset: int, domain: str = "") -> bool:
    """True when there is an own rule, or ONNX defines a body for the operator (`opset` is its domain's)."""
    schema: Any = schema_of(domain, op_type, opset) if domain in _KNOWN_DOMAINS else None
    return op_type in _OWN.get(domain, {}) or (
        schema is not None and (schema.has_function or schema.has_context_dependent_function)
    )


def _call_body(node: ir.Node, model: Model, count: int) -> bool:
    """Turn the node into a call of a function of this model that holds its body; False when ONNX defines none."""
    opset = model.opset if node.domain == "" else model.ir.opset_imports.get(node.domain, 1)
    body = _body(node, opset)
    if body is None:
        return False
    schema = schema_of(node.domain, node.op_type, opset)
    assert schema is not None
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        if name not in node.attributes and default.type != onnx.AttributeProto.UNDEFINED:
            node.attributes[name] = ir.serde.deserialize_attribute(default)
    _complete(body, node, model)
    body.domain, body.name = _DOMAIN, f"{node.op_type}_{count}"
    versions = {entry.domain: entry.version for entry in body.opset_import}
    function = ir.serde.deserialize_function(body)
    function.opset_imports[""] = model.opset
    _bring_up(function, versions.get("", model.opset), model)
    model.ir.functions[function.identifier()] = function
    model.ir.opset_imports.setdefault(_DOMAIN, 1)
    if not node.metadata_props.get(ORIGIN_KEY) and (where := origin(node)):
        node.metadata_props[ORIGIN_KEY] = where
    node.domain, node.op_type = _DOMAIN, body.name
    return True


def _body(node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    schema: Any = schema_of(node.domain, node.op_type, opset)  # onnx's stubs lack the function methods
    if schema is None:
        return None
    data: bytes
    if schema.has_function:
        known = [v for v in schema.function_opset_versions if v <= opset]
        if known:
            data = schema.get_function_with_opset_version(max(known))
            return _function(data)
    if schema.has_context_dependent_function:
        known = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
        if known:
            types = [
                onnx.TypeProto().SerializeToString() if v is None else type_proto(v).SerializeToString()
                for v in node.inputs
            ]
            proto = ir.serde.serialize_node(node)
            data = schema.get_context_dependent_function_with_opset_version(
                max(known), proto.SerializeToString(), types
            )
            return _function(data) if data else None
    return None


def _complete(body: onnx.FunctionProto, node: ir.Node, model: Model) -> None:
    """Make a body that was written for this very node a function of its own.

    1. What it computes only when asked for, and was not asked for here, is no output.
    2. What it reads from outside (through a subgraph of the node) is an input, and the subgraph no attribute.
    """
    made = {name for inner in body.node for name in inner.output}
    kept = [name for name in body.output if name in made or name in body.input]
    if len(kept) < len(body.output):  # rule 1
        missing = [i for i, name in enumerate(body.output) if name not in kept]
        for index in reversed(missing):
            if index < len(node.outputs):
                _drop_output(node, index)
        del body.output[:]
        body.output.extend(kept)
    if not any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return
    known = made | set(body.input) | {""}
    outside = dict.fromkeys(name for inner in body.node for name in inner.input if name not in known)  # rule 2
    values = {v.name: v for v in all_values(model.ir) if v.name in outside}
    node.resize_inputs(len(body.input))
    for name in outside:
        body.input.append(name)
        node.resize_inputs(len(node.inputs) + 1)
        node.replace_input_with(len(node.inputs) - 1, values[name])
    for name in [n for n, a in node.attributes.items() if a.type == ir.AttributeType.GRAPH]:
        del node.attributes[name]
    for name in list(body.attribute):
        if name not in node.attributes:
            body.attribute.remove(name)


def _drop_output(node: ir.Node, index: int) -> None:
    """Take one unused output away: the ones after it move up."""
    for later in range(index, len(node.outputs) - 1):
        a, b = node.outputs[later], node.outputs[later + 1]
        b.replace_all_uses_with(a, replace_graph_outputs=True)
        a.type, a.shape, a.name, b.name = b.type, b.shape, b.name, None
    node.resize_outputs(len(node.outputs) - 1)


def _function(data: bytes) -> onnx.FunctionProto:
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    return proto


def _bring_up(function: ir.Function, version: int, model: Model) -> None:
    """Bodies are written at older opsets: bring their nodes to the model's."""
    if version >= model.opset:
        return
    for node in list(function):
        adapt(node, version, _FunctionEditor(model, function))


class _FunctionEditor(Editor):
    """Functions hold no initializers, so constants become Constant nodes at the start."""

    def __init__(self, model: Model, function: ir.Function) -> None:
        super().__init__(model)
        self._function = function

    def const(self, array: object, name: str) -> ir.Value:
        """A Constant node of the function."""
        value = super().const(array, name)  # type: ignore[arg-type]  # as the base class takes it
        tensor = value.const_value
        del self.graph.initializers[value.name or ""]
        node = self.node("Constant", [], {"value": tensor}, name=f"{name}/node")
        self._function.insert_before(self._function[0], node)
        return node.outputs[0]


def _inline(model: Model) -> None:
    before = {node.name for node in model.ir.graph.all_nodes()}
    try:
        InlinePass()(model.ir)
    except Exception as error:  # a body that onnx_ir cannot inline is our bug, whatever it raises
        raise EdgecError("internal/decompose", f"an ONNX function body cannot be inlined: {error}") from error
    model.ir.opset_imports.pop(_DOMAIN, None)
    editor = Editor(model)
    taken = {node.name or "" for node in model.ir.graph.all_nodes() if node.name in before}
    names: set[str] = set()
    for node in model.ir.graph.all_nodes():
        if node.name in before and node.name not in names:
            names.add(node.name or "")
            continue
        wanted, count = node.name or f"{label(node)}", 2
        name = wanted
        while name in names or name in taken:
            name, count = f"{wanted}_{count}", count + 1
        node.name = name
        names.add(name)
    seen: set[str] = set()
    for graph in model.ir.graphs():
        for value in [*graph.inputs, *graph.initializers.values(), *(o for n in graph for o in n.outputs)]:
            if value.name is None or value.name in seen:
                value.name = editor.unique(value.name or "value")
            seen.add(value.name)
