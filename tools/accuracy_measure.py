"""How close a quantized model's outputs are to the float model's, in the terms that its task is judged by.

dB over all samples at once is the figure that bars are on. A few undecided samples can carry most of its noise, so the
median of each sample's own dB stands beside it. A view says which values of an output are judged together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.metrics import sqnr_db, top1_agreement
from edgec.tensors import Array

Feed = Mapping[str, Array]
Outputs = Sequence[Mapping[str, Array]]
View = Callable[[Feed, Mapping[str, Array]], dict[str, Array]]

#: More than this many samples in one figure of ranking tell nothing more.
_RANKED = 100


def floats(_: Feed, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """All floating-point outputs as they are."""
    return {name: value for name, value in outputs.items() if value.dtype.kind == "f"}


def sentence(feed: Feed, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """A sentence encoder's embedding: the mean over the tokens that the mask keeps, of unit length."""
    mask = np.asarray(feed["attention_mask"], np.float32)[..., None]
    mean = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)
    return {"embedding": np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True))}


def boxes_and_scores(_: Feed, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """A detector's one output taken apart: boxes in pixels would drown scores from 0 to 1."""
    (value,) = outputs.values()
    return {"boxes": value[:, :4], "scores": value[:, 4:]}


def boxes_before_scores(_: Feed, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The same of a detector that gives a row of numbers a place."""
    (value,) = outputs.values()
    return {"boxes": value[..., :4], "scores": value[..., 4:]}


VIEWS: dict[str, View] = {
    "": floats,
    "sentence": sentence,
    "boxes_and_scores": boxes_and_scores,
    "boxes_before_scores": boxes_before_scores,
}


def measure(
    reference: Outputs, outputs: Outputs, labels: Sequence[int] = (), *, view: str = "", feeds: Sequence[Feed] = ()
) -> dict[str, Any]:
    """Figures of the worst output; `correct` says of each sample whether it is as `labels` says, `right` in percent."""
    look, known = VIEWS[view], feeds or [{}] * len(reference)
    expected = [look(f, r) for f, r in zip(known, reference, strict=True)]
    found = [look(f, o) for f, o in zip(known, outputs, strict=True)]
    stacked = {
        name: (np.stack([r[name] for r in expected]), np.stack([o[name] for o in found])) for name in expected[0]
    }
    tops = [t for r, o in stacked.values() if r.ndim == 3 and (t := top1_agreement(r[:, 0], o[:, 0])) is not None]
    each = [min(sqnr_db(r[n], o[n]) for n in r) for r, o in zip(expected, found, strict=True)]
    correct = _correct(found, next(iter(stacked)), labels)
    return {
        "dB": round(min(sqnr_db(r, o) for r, o in stacked.values()), 1),
        "median dB": round(float(np.median(each)), 1),
        "top-1": round(100 * min(tops), 1) if tops and not view else None,
        "right": round(100 * sum(correct) / len(correct), 1) if correct else None,
        "correct": correct,
        **(_ranking(*stacked["embedding"]) if view == "sentence" else {}),
    }


def mcnemar(mine: Sequence[bool], theirs: Sequence[bool]) -> tuple[int, int, float]:
    """How many samples only one of two gets right, and only the other; how likely so uneven a split is by chance.

    McNemar's exact test: without a difference, each sample that only one gets right is a fair coin's; both tails count.
    """
    pairs = list(zip(mine, theirs, strict=True))
    ahead, behind = sum(m and not t for m, t in pairs), sum(t and not m for m, t in pairs)
    tosses = ahead + behind
    tail = sum(math.comb(tosses, k) for k in range(min(ahead, behind) + 1))
    return ahead, behind, min(1.0, 2 * tail / 2**tosses)


def _correct(outputs: Outputs, name: str, labels: Sequence[int]) -> list[bool]:
    """Whether each sample's largest score is the label's; empty without labels."""
    return [int(o[name].argmax()) == label for o, label in zip(outputs, labels, strict=True)] if labels else []


def _ranking(reference: Array, value: Array) -> dict[str, float]:
    """Mean cosine of each embedding to float's, and Spearman's rank correlation of all pairs' similarities."""
    r, v = (x.reshape(len(x), -1)[:_RANKED].astype(np.float64) for x in (reference, value))
    pairs = np.triu_indices(len(r), 1)
    ranks = [np.argsort(np.argsort((x @ x.T)[pairs], kind="stable"), kind="stable") for x in (r, v)]
    return {
        "cosine": round(float(np.mean((r * v).sum(1))), 4),
        "Spearman": round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 4),
    }
