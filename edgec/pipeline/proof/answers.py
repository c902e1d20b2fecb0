"""Is the application's answer the one that the model's outputs mean? And if not, what was done to them instead?

1. An answer is a class by number or by label: alone, first of a list, or in an object under a usual key.
2. The right one is the largest of the first float output's scores.
3. Wrong ones are compared with what usual mistakes give: off by one, labels in another order, the smallest score, the
   second largest, another axis. A mistake is named when it explains every sample, and the right answer does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.artifact import IoBinding
from edgec.tensors import Array

#: Keys under which applications put the class.
KEYS = ("class", "label", "index", "class_id", "id", "class_name", "name", "category", "prediction", "answer", "top1")
_LISTS = ("classes", "labels", "predictions", "results", "top", "topk", "top_k", "top5")


def answered(value: Any) -> int | str | None:
    """The class in an answer (rule 1); None where there is none."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, list) and value:
        return answered(value[0])
    if isinstance(value, Mapping):
        for key in (*KEYS, *_LISTS):
            if key in value and (found := answered(value[key])) is not None:
                return found
    return None


def scores_of(outputs: Sequence[IoBinding], raw: Sequence[Array]) -> Array | None:
    """The first float output as one row of scores, source side (rule 2); None where no output is one."""
    for binding, value in zip(outputs, raw, strict=True):
        if binding.source.dtype.is_float and value.shape == binding.artifact.shape:
            real = binding.to_source(value)
            return real if real.size > 1 and max(real.shape, default=0) == real.size else None
    return None


def judge_answers(
    answers: Sequence[int | str], scores: Sequence[Array], labels: Sequence[str]
) -> tuple[float, str] | None:
    """(share of right answers, the mistake where one is found); None where answers cannot be told from scores."""
    rows = [score.ravel().astype(np.float64) for score in scores]
    right = [int(np.argmax(row)) for row in rows]
    told = [_index(answer, labels) for answer in answers]
    if any(index is None for index in told):
        strange = next(a for a, index in zip(answers, told, strict=True) if index is None)
        if not labels:
            return None
        return _share(told, right), f"{strange!r} is none of the bundle's {len(labels)} labels"
    if told == right:
        return 1.0, ""
    # Equal scores: any of them is right.
    ties = [index is not None and 0 <= index < row.size and row[index] == row.max() for index, row in zip(told, rows)]  # noqa: B905
    if all(ties):
        return 1.0, ""
    for text, mistake in _mistakes(labels):
        if [mistake(row) for row in rows] == told:
            return _share(told, right), text
    # Which class gets which answer, where that is one and the same for each class.
    pairs = dict(zip(right, told, strict=True))
    steady = all(pairs[r] == t for r, t in zip(right, told, strict=True)) and len(set(pairs.values())) == len(pairs)
    text = "each class gets another class's answer, always the same: the list of labels is another one"
    return _share(told, right), text if steady and sum(r != t for r, t in pairs.items()) > 1 else ""


def _share(told: Sequence[int | None], right: Sequence[int]) -> float:
    return float(np.mean([t == r for t, r in zip(told, right, strict=True)]))


def _index(answer: int | str, labels: Sequence[str]) -> int | None:
    if isinstance(answer, int):
        return answer
    places = [i for i, label in enumerate(labels) if _plain(label) == _plain(answer)]
    if places:
        return places[0]
    return int(answer) if answer.strip().lstrip("-").isdecimal() else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _mistakes(labels: Sequence[str]) -> list[tuple[str, Callable[[Array], int]]]:
    """What to say, and the class that the mistake gives for a row of scores (rule 3)."""
    found: list[tuple[str, Callable[[Array], int]]] = [
        ("the class is one too high (off by one)", lambda row: int(np.argmax(row)) + 1),
        ("the class is one too low (off by one)", lambda row: int(np.argmax(row)) - 1),
        ("the class is one too high, counted in a circle", lambda row: (int(np.argmax(row)) + 1) % row.size),
        ("the class is one too low, counted in a circle", lambda row: (int(np.argmax(row)) - 1) % row.size),
        ("the smallest score is taken for the largest", lambda row: int(np.argmin(row))),
        ("the second largest score is taken", lambda row: int(np.argsort(-row, kind="stable")[1])),
        ("the largest absolute value is taken", lambda row: int(np.argmax(np.abs(row)))),
        ("it is always the first class, as of an argmax along another axis", lambda _: 0),
        ("the labels are in reverse order", lambda row: row.size - 1 - int(np.argmax(row))),
    ]
    if labels:
        ordered = [list(labels).index(label) for label in sorted(labels)]
        found.append(
            ("the labels are in alphabetical order, not in the model's", lambda row: ordered[int(np.argmax(row))])
            if len(ordered) == len(labels)
            else found[0]
        )
    return found
