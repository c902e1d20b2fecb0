"""Compute once what is computed twice: nodes with the same operator, attributes and inputs become one.

Small constants with equal contents count as the same input. Nodes with subgraphs and random ones stay.
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from edgec.graph.edit import remove_dead
from edgec.graph.model import Model

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_SMALL_BYTES = 256


class CommonSubexpressions:
    """See the module."""

    name = "common-subexpressions"

    def run(self, model: Model) -> bool:
        """Merge equal nodes of the main graph; True when some were."""
        seen: dict[Hashable, ir.Node] = {}
        constants: dict[int, Hashable] = {}
        changed = False
        for node in model.nodes():
            key = _key(node, constants)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is node or any(output.is_graph_output() for output in node.outputs):
                continue
            for old, new in zip(list(node.outputs), first.outputs, strict=True):
                old.replace_all_uses_with(new)
            model.graph.remove(node, safe=True)
            changed = True
        if changed:
            remove_dead(model.ir)
        return changed


def _key(node: ir.Node, constants: dict[int, Hashable]) -> Hashable | None:
    if node.op_type in _RANDOM and node.domain == "":
        return None
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type in (
            ir.AttributeType.INTS,
            ir.AttributeType.FLOATS,
            ir.AttributeType.STRINGS,
        ):
            attributes.append((name, tuple(attribute.value)))
        elif attribute.type in (
            ir.AttributeType.INT,
            ir.AttributeType.FLOAT,
            ir.AttributeType.STRING,
        ):
            attributes.append((name, attribute.value))
        else:
            return None
    inputs = tuple(_identity(value, constants) for value in node.inputs)
    return (node.op_identifier(), len(node.outputs), inputs, tuple(attributes))


def _identity(value: ir.Value | None, constants: dict[int, Hashable]) -> Hashable:
    if value is None:
        return None
    known = constants.get(id(value))
    if known is None:
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None and tensor.nbytes <= _SMALL_BYTES and value.dtype != ir.DataType.STRING:
            known = (tensor.dtype, tuple(tensor.shape), tensor.tobytes())
        else:
            known = id(value)
        constants[id(value)] = known
    return known
