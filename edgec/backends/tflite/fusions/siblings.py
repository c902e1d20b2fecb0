"""Products of one input with several matrices whose rows are heads: one product, one reshape, one SPLIT.

FULLY_CONNECTED(x, Wᵢ) → RESHAPE […, H, E], i = 1 … n, becomes FULLY_CONNECTED(x, [W₁; …; Wₙ]) → RESHAPE […, n·H, E]
→ SPLIT along n·H. What follows the heads (a transpose, as a rule) can then happen once, before the SPLIT.
Before layout is assigned, for float results: integers would have to agree on a scale.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgec.backends.tflite.fusions.splits import MAX_PARTS, reshape
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, int32
from edgec.tensors import QParams


def merge_products(graph: Graph) -> None:
    """Merge sibling products, in place."""
    consumers = graph.consumers()
    groups: dict[tuple[object, ...], list[tuple[Op, Op]]] = {}
    for op in graph.ops:
        found = _heads(graph, consumers, op)
        if found is not None:
            groups.setdefault(found[0], []).append((op, found[1]))
    made: dict[Op, list[Op]] = {}
    for members in groups.values():
        for start in range(0, len(members), MAX_PARTS):
            part = members[start : start + MAX_PARTS]
            if len(part) < 2:
                continue
            made.update((op, []) for pair in part for op in pair)
            made[part[0][0]] = _merged([op for op, _ in part], [view for _, view in part])
    graph.ops = [new for op in graph.ops for new in made.get(op, [op])]


def _heads(graph: Graph, consumers: dict[Tensor, list[Op]], op: Op) -> tuple[tuple[object, ...], Op] | None:
    """What siblings must have in common, and the RESHAPE into heads behind a product."""
    if op.kind != "FULLY_CONNECTED" or len(op.inputs) < 3:
        return None
    if op.options.get("fusedActivationFunction", "NONE") != "NONE":
        return None
    x, w, bias = op.inputs[0], op.inputs[1], op.inputs[2]
    y = op.outputs[0]
    readers = consumers.get(y, [])
    if x is None or w is None or w.data is None or bias is None or bias.data is None or bias.storage is not None:
        return None
    if x.storage is not None or y.storage is not None or y in graph.outputs or len(readers) != 1:
        return None
    (view,) = readers
    if view.kind != "RESHAPE" or view.outputs[0].storage is not None:
        return None
    if w.storage is not None and (w.storage.qparams.axis != 0 or any(w.storage.qparams.zero_point)):
        return None
    heads = view.outputs[0].shape
    if len(heads) != y.rank + 1 or heads[:-2] != y.shape[:-1]:
        return None
    stored = None if w.storage is None else w.storage.dtype
    keeps = bool(op.options.get("keepNumDims"))
    return (id(x), w.shape, w.data.dtype.str, stored, keeps, heads), view


def _merged(products: list[Op], views: list[Op]) -> list[Op]:
    first, view, count = products[0], views[0], len(products)
    weights = [op.inputs[1] for op in products]
    biases = [op.inputs[2].data for op in products if op.inputs[2] is not None]
    y, heads = first.outputs[0], view.outputs[0]
    rows = weights[0].shape[0] * count if weights[0] is not None else 0
    out = replace(y, name=f"{y.name}/together", shape=(*y.shape[:-1], rows))
    bias = Tensor(f"{y.name}/bias", (rows,), y.dtype, np.concatenate([b for b in biases if b is not None]))
    merged = replace(first, inputs=[first.inputs[0], _stacked(weights), bias], outputs=[out])
    axis = heads.rank - 2
    whole = replace(
        heads, name=f"{heads.name}/together", shape=(*heads.shape[:-2], heads.shape[-2] * count, heads.shape[-1])
    )
    split = Op("SPLIT", [int32("axis", axis), whole], [v.outputs[0] for v in views], {"numSplits": count}, view.origin)
    return [merged, reshape(out, whole, view.origin), split]


def _stacked(weights: list[Tensor | None]) -> Tensor:
    """Matrices one above the other; integer ones with the scales of all their rows."""
    parts = [w for w in weights if w is not None and w.data is not None]
    data = np.concatenate([w.data for w in parts if w.data is not None])
    storage = parts[0].storage
    if storage is not None:
        scales = tuple(s for w in parts if w.storage is not None for s in w.storage.qparams.scale)
        storage = Storage(storage.dtype, QParams(scale=scales, zero_point=(0,) * len(scales), axis=0))
    return Tensor(f"{parts[0].name}/together", tuple(data.shape), parts[0].dtype, data, storage)
