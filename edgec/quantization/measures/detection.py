"""Mean average precision of a detector whose outputs are boxes and scores.

Outputs: boxes [..., N, 4] as x1, y1, x2, y2; scores [..., N] or [..., N, classes]; where scores have no classes, an
output of N class numbers if there is one. A label is {"boxes": [[x1, y1, x2, y2], …], "classes": [k, …]} in the
same units; `classes` may be left out where there is one. Raw heads go through `--metric module:function`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgec.errors import EdgecError
from edgec.tensors import Array

#: Overlap from which a box is found, and from which of two boxes of a class the weaker is dropped.
MATCH = 0.5
SUPPRESS = 0.6

#: Scores below are not looked at, and no more boxes of a class than this.
LOWEST = 0.01
MOST = 100

_Boxes = tuple[Array, Array, Array]  # boxes, scores, classes


def mean_average_precision_of_boxes(outputs: Sequence[Mapping[str, Array]], labels: Sequence[Any]) -> float:
    """Average precision at an overlap of a half, averaged over the classes of the labels."""
    found = [_boxes(output) for output in outputs]
    wanted = [_wanted(label) for label in labels]
    kinds = np.unique(np.concatenate([classes for _, classes in wanted])) if wanted else np.zeros(0)
    if kinds.size == 0:
        raise EdgecError("quant/metric", "no label has a box", hint="give samples with something to detect")
    return float(np.mean([_precision(found, wanted, int(kind)) for kind in kinds]))


def _boxes(output: Mapping[str, Array]) -> _Boxes:
    """What one sample's outputs hold, by their shapes."""
    values = [np.asarray(v) for v in output.values()]
    boxes = next((v.reshape(-1, 4) for v in values if v.ndim >= 2 and v.shape[-1] == 4), None)
    if boxes is not None:
        count = len(boxes)
        rest = [v for v in values if v.size and v.size % count == 0 and not (v.ndim >= 2 and v.shape[-1] == 4)]
        scores = next((v for v in rest if v.dtype.kind == "f"), None)
        if scores is not None:
            table = scores.reshape(count, -1).astype(np.float64)
            kinds = np.argmax(table, axis=1)
            numbers = next((v for v in rest if v is not scores and v.size == count), None)
            if table.shape[1] == 1 and numbers is not None:
                kinds = numbers.reshape(-1).astype(np.int64)
            return boxes.astype(np.float64), table.max(axis=1), kinds
    raise EdgecError(
        "quant/metric",
        "the outputs are no boxes [N, 4] with scores: " + ", ".join(f"{k} {v.shape}" for k, v in output.items()),
        hint="decode them in a function of your own: --metric file.py:function",
    )


def _wanted(label: Any) -> tuple[Array, Array]:
    try:
        boxes = np.asarray(label["boxes"], np.float64).reshape(-1, 4)
        classes = np.asarray(label.get("classes", [0] * len(boxes)), np.int64).reshape(len(boxes))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EdgecError(
            "quant/metric", f"a label holds no boxes: {error}", hint='{"boxes": [[x1, y1, x2, y2]], "classes": [0]}'
        ) from error
    return boxes, classes


def _precision(found: Sequence[_Boxes], wanted: Sequence[tuple[Array, Array]], kind: int) -> float:
    """Area under precision over recall of one class."""
    hits: list[tuple[float, bool]] = []
    total = 0
    for (boxes, scores, classes), (true_boxes, true_classes) in zip(found, wanted, strict=True):
        left = true_boxes[true_classes == kind]
        total += len(left)
        taken = np.zeros(len(left), bool)
        mine = (classes == kind) & (scores >= LOWEST)
        for box, score in _suppressed(boxes[mine], scores[mine]):
            overlaps = np.where(taken, -1.0, overlap(box, left)) if len(left) else np.zeros(0)
            best = int(np.argmax(overlaps)) if len(left) else -1
            hit = best >= 0 and overlaps[best] >= MATCH
            if hit:
                taken[best] = True
            hits.append((score, hit))
    hits.sort(key=lambda entry: -entry[0])
    right = np.asarray([hit for _, hit in hits], bool)
    if total == 0 or not right.any():
        return 0.0
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[right].sum() / total)


def _suppressed(boxes: Array, scores: Array) -> list[tuple[Array, float]]:
    """The best boxes, without those that a better one overlaps."""
    kept: list[tuple[Array, float]] = []
    for index in np.argsort(-scores, kind="stable"):
        if len(kept) == MOST:
            break
        others = np.stack([box for box, _ in kept]) if kept else np.zeros((0, 4))
        if not np.any(overlap(boxes[index], others) > SUPPRESS):
            kept.append((boxes[index], float(scores[index])))
    return kept


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union of a box with others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - shared
    return np.asarray(shared / np.maximum(areas, 1e-12))
