"""Fidelity of one set of outputs to another, output by output and in all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.metrics import MAX_DB, cosine, max_abs, sqnr_db, step_differences, top1_agreement
from edgec.tensors import Array, DType, Kind, TensorSpec, of_kind, written

Outputs = Sequence[Mapping[str, Array]]

#: What no probability is, however it was rounded.
_ABOVE_1 = 1.05

#: What random text is made of: plain, empty, of many bytes, with capitals, a number.
_WORDS = ("a", "", "Edge", "straße", "日本", "42")


def random_feeds(
    specs: Sequence[TensorSpec], count: int, *, limits: Mapping[str, int] | None = None, texts: Sequence[str] = ()
) -> list[dict[str, Array]]:
    """Seeded inputs where there is no data: standard normal; indices below their limit; masks that leave nothing out;
    other integers 0 or 1, booleans either; `texts` that the model knows, and words."""
    rng = np.random.default_rng(0)
    words = np.asarray([*_WORDS, *texts])
    return [{s.name: _random(rng, s, (limits or {}).get(s.name, 2), words) for s in specs} for _ in range(count)]


def _random(rng: np.random.Generator, spec: TensorSpec, limit: int, words: Array) -> Array:
    if spec.dtype.is_float:
        return rng.standard_normal(spec.shape).astype(spec.dtype.numpy)
    if spec.dtype == DType.STRING:
        return np.asarray(words[rng.integers(0, len(words), spec.shape)])
    if "mask" in spec.name.lower():
        return np.ones(spec.shape, spec.dtype.numpy)
    return rng.integers(0, limit, spec.shape).astype(spec.dtype.numpy)


def fidelity(
    reference: Outputs,
    value: Outputs,
    *,
    features: Collection[str] = (),
    kinds: Mapping[str, Sequence[Kind]] | None = None,
) -> dict[str, Any]:
    """SQNR (dB), cosine, largest difference and top-1 agreement; the worst output speaks for all.

    An SQNR of None means: no difference at all. `features` are outputs that have no first class. Of an output that
    holds several `kinds` of values the worst speaks, and `kinds` in the answer has each one's SQNR.
    """
    outputs = {}
    for name in reference[0] if reference else ():
        expected, found = [r[name] for r in reference], [v[name] for v in value]
        outputs[name] = _one(expected, found, classes=name not in features)
        if kinds and name in kinds:
            outputs[name] |= _by_kind(kinds[name], expected, found)
    finite = [o["sqnr_db"] for o in outputs.values() if o["sqnr_db"] is not None]
    tops = [o["top1_agreement"] for o in outputs.values() if o["top1_agreement"] is not None]
    return {
        "samples": len(reference),
        "sqnr_db": min(finite) if finite else None,
        "cosine": min((o["cosine"] for o in outputs.values()), default=1.0),
        "max_abs": max((o["max_abs"] for o in outputs.values()), default=0.0),
        "top1_agreement": min(tops) if tops else None,
        "outputs": outputs,
    }


def _one(reference: list[Array], value: list[Array], *, classes: bool) -> dict[str, Any]:
    r, v = np.stack(reference), np.stack(value)
    if r.dtype.kind != "f":
        same = float(np.mean(r == v)) if r.size else 1.0
        return {"sqnr_db": None, "cosine": same, "max_abs": 0.0 if same == 1 else 1.0, "top1_agreement": None}
    db = sqnr_db(r, v)
    rows = _rows(r)
    agreement = top1_agreement(rows, _rows(v)) if classes and not _no_classes(rows) else None
    return {
        "sqnr_db": None if db >= MAX_DB else round(db, 4),
        "cosine": round(cosine(r, v), 6),
        "max_abs": float(f"{max_abs(r, v):.6g}"),
        "top1_agreement": agreement,
    }


def _by_kind(kinds: Sequence[Kind], reference: list[Array], value: list[Array]) -> dict[str, Any]:
    found = {}
    for kind in kinds:
        db = sqnr_db(*(np.stack([of_kind(x, kind) for x in side]) for side in (reference, value)))
        found[written(kind, reference[0].shape)] = None if db >= MAX_DB else round(db, 4)
    known = [db for db in found.values() if db is not None]
    return {"sqnr_db": min(known) if known else None, "kinds": found}


def _rows(x: Array) -> Array:
    """Stacked [samples, 1, classes] as [samples, classes]; maps and sequences stay what they are."""
    return x[:, 0] if x.ndim == 3 and x.shape[1] == 1 else x


def _no_classes(rows: Array) -> bool:
    """Whether rows are never negative and go beyond 1: logits have losers below 0 and probabilities end at 1, so these
    are places (boxes and landmarks in pixels), amounts or features, of which two may well be as large as each other."""
    return bool(rows.size and rows.min() >= 0 and rows.max() > _ABOVE_1)


def agreement(reference: Outputs, value: Outputs, steps: Mapping[str, float]) -> dict[str, Any]:
    """How far an artifact is from the QDQ model it was emitted from, in quantization steps of each output.

    An output that the plan leaves in float has no step of its own: its range in 255 parts stands in.
    """
    result = {}
    for name in reference[0] if reference else ():
        r, v = np.stack([o[name] for o in reference]), np.stack([o[name] for o in value])
        if r.dtype.kind != "f" or r.size == 0:
            continue
        step = steps.get(name) or float(r.max() - r.min()) / 255 or 1.0
        found = step_differences(r, v, step=step)
        result[name] = {
            "within_1": round(found.within_1, 6),
            "within_2": round(found.within_2, 6),
            "max_steps": found.largest,
        }
    return result
