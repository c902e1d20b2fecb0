"""Make the type promotion of `number − tensor` visible, which the exporter forgets: 1.0 − mask with an integer mask.

The tensor is cast to the type of the result first, as torch itself does.
"""

from __future__ import annotations

import torch
from torch.fx import Node


def promote_reversed(program: torch.export.ExportedProgram) -> None:
    """Cast the tensor of every reversed subtraction that has another type than its result. Edits the program."""
    graph = program.graph_module.graph
    changed = False
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not torch.ops.aten.rsub.Scalar:
            continue
        tensor, result = node.args[0], node.meta.get("val")
        given = tensor.meta.get("val") if isinstance(tensor, Node) else None
        if given is None or result is None or given.dtype == result.dtype:
            continue
        with graph.inserting_before(node):
            cast = graph.call_function(torch.ops.aten._to_copy.default, (tensor,), {"dtype": result.dtype})
        cast.meta = {**node.meta, "val": given.to(result.dtype)}
        node.replace_input_with(tensor, cast)
        changed = True
    if changed:
        graph.lint()
        program.graph_module.recompile()
