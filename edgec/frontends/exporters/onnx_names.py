"""Tidy what tf2onnx wrote: the source's own names, each node's layer, and what it could not translate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from refusal import SourceError

ORIGIN_KEY = "edgec.origin"


def refuse_foreign(proto: Any) -> None:
    """Operators that tf2onnx passed through untranslated, all at once."""
    import onnx.defs

    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    functions = {f.name for f in proto.functions}
    foreign: dict[str, list[str]] = {}
    for node in every_node(proto.graph):
        if (node.domain not in ("", "ai.onnx") or node.op_type not in known) and node.op_type not in functions:
            foreign.setdefault(node.op_type, []).append(origin(node.name))
    if foreign:
        listing = "; ".join(f"{kind} ({', '.join(where[:3])})" for kind, where in sorted(foreign.items()))
        raise SourceError(
            "source/unsupported-operator",
            f"{len(foreign)} TensorFlow operator(s) have no counterpart in ONNX: {listing}",
            "replace those layers in the model, or export the part of it that the device runs",
        )


def write_out(graph: Any) -> None:
    """Operators that tf2onnx passes through and ONNX can say: erfc(x) = 1 + erf(−x)."""
    import numpy as np
    import onnx

    constants = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    nodes = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                write_out(attribute.g)
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        name, source = node.output[0], made_by.get(node.input[0])
        factor = next((i for i in source.input if i in constants), None) if source and source.op_type == "Mul" else None
        if source is not None and factor is not None:  # as it stands in GELU: the sign goes into the factor
            other = next((i for i in source.input if i != factor), factor)
            constant = onnx.numpy_helper.from_array(-constants[factor], f"{name}/factor")
            graph.initializer.append(constant)
            negative = onnx.helper.make_node("Mul", [other, constant.name], [f"{name}/negative"])
        else:
            negative = onnx.helper.make_node("Neg", [node.input[0]], [f"{name}/negative"])
        one = onnx.numpy_helper.from_array(np.asarray(1, np.float32), f"{name}/one")
        graph.initializer.append(one)
        erf = onnx.helper.make_node("Erf", [f"{name}/negative"], [f"{name}/erf"])
        total = onnx.helper.make_node("Add", [f"{name}/erf", one.name], [name])
        for new in (negative, erf, total):
            new.name = f"{node.name}/{new.op_type}"
            nodes.append(new)
    del graph.node[:]
    graph.node.extend(nodes)


def every_node(graph: Any) -> Iterator[Any]:
    """Nodes of a graph and of the graphs inside of them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g)


def origin(name: str) -> str:
    """The layer's path from a TensorFlow node's name, without what calls and freezing put before it."""
    parts = [p for p in name.split("/") if not re.fullmatch(r"(Stateful)?PartitionedCall(_\d+)?|Identity(_\d+)?", p)]
    parts = [re.sub(r"__\d+$", "", p) for p in parts]
    return "/".join(p for p in parts if p)


def finish(proto: Any, inputs: dict[str, tuple[str, Any]], outputs: dict[str, str]) -> None:
    """Rule 2, and each node's layer."""
    import onnx

    graph = proto.graph
    for node in every_node(graph):
        # A node that tf2onnx made keeps its layer in what it is named after.
        layer = next((o for n in (node.name, *node.output) if "/" in (o := origin(n.partition(":")[0]))), "")
        if layer:
            entry = node.metadata_props.add()
            entry.key, entry.value = ORIGIN_KEY, layer
    renames = {old: name for old, (name, _) in inputs.items()} | outputs
    taken = set(renames.values())
    names = {v for node in every_node(graph) for v in (*node.input, *node.output)} | {v.name for v in graph.initializer}
    for name in names & taken - set(renames):
        renames[name] = free_name(name, names | taken)
    rename(graph, renames)
    tidy_dimensions(graph)
    held = {value.name: value for value in graph.input}
    ordered = []
    for name, spec in inputs.values():
        if name not in held:
            kind = onnx.helper.np_dtype_to_tensor_dtype(spec.dtype.as_numpy_dtype().dtype)
            held[name] = onnx.helper.make_tensor_value_info(name, kind, spec.shape.as_list())
        ordered.append(held[name])
    del graph.input[:]
    graph.input.extend(ordered)
    by_name = {value.name: value for value in graph.output}
    del graph.output[:]
    graph.output.extend(by_name[name] for name in outputs.values())


def free_name(name: str, taken: set[str]) -> str:
    """A name like this one that nothing has."""
    number = 1
    while f"{name}__{number}" in taken:
        number += 1
    return f"{name}__{number}"


def rename(graph: Any, names: dict[str, str]) -> None:
    """Rename values in a graph and the graphs inside."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for fields in (node.input, node.output):
            for i, name in enumerate(fields):
                fields[i] = names.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g, names)


def tidy_dimensions(graph: Any) -> None:
    """Free dimensions lose the names that tf2onnx invents: they mean nothing to the user."""
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param.startswith("unk_"):
                dim.ClearField("dim_param")
