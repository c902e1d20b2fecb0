"""What scikit-learn itself answers to samples that look like what the estimator was fitted on.

Where data lie is read off the fitted estimators: a scaler's mean and scale, a tree's thresholds, neighbours, centres.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn_columns import sees_first
from sklearn_convert import parts

_SAMPLES = 256
_SPREAD = 2.0


def write_probes(estimator: Any, inputs: dict[str, list[int]], path: Path) -> None:
    """By `>` and the input's name what is asked, by the output's name what is right, in the types of scikit-learn.

    Nothing where it cannot say. The estimator takes its columns in the order of `inputs`.
    """
    samples = probes(estimator)
    answers: dict[str, Any] = {}
    try:
        if hasattr(estimator, "predict"):
            predicted = np.asarray(estimator.predict(samples))
            name = "prediction" if _is_regressor(estimator) else "label"
            answers[name] = predicted.astype(str) if predicted.dtype.kind in "OUS" else predicted
        elif hasattr(estimator, "transform"):
            transformed = estimator.transform(samples)
            answers["transformed"] = np.asarray(
                transformed.toarray() if hasattr(transformed, "toarray") else transformed, np.float64
            )
        if hasattr(estimator, "predict_proba"):
            chances = estimator.predict_proba(samples)
            if isinstance(chances, np.ndarray):
                answers["probabilities"] = chances
    except Exception:  # noqa: BLE001  the comparison is a service: where scikit-learn refuses the samples there is none
        return
    asked: dict[str, Any] = {}
    first = 0
    for name, columns in inputs.items():
        part = samples[:, first : first + len(columns)]
        first += len(columns)
        is_text = part.dtype == object and isinstance(part[0, 0], str)
        asked[f">{name}"] = part.astype(str if is_text else np.float32)
    np.savez(path, **asked, **answers)


def _is_regressor(estimator: Any) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(estimator))


def probes(estimator: Any) -> np.ndarray:
    """[samples, features] of float32, always the same; of objects where some are text, now and then an unknown one."""
    rng = np.random.default_rng(0)
    width = int(estimator.n_features_in_)
    low, high = -np.ones(width), np.ones(width)
    choices: dict[int, Any] = {}
    for column, part in sees_first(estimator, np.arange(width)):
        found = None if hasattr(part, "transformers_") else _range(part, len(column))
        if found is not None:
            low[column], high[column] = found
        for place, known in zip(column, getattr(part, "categories_", ()), strict=False):
            is_text = any(isinstance(item, str) for item in known)
            choices[int(place)] = np.asarray([*known, "?"], object) if is_text else np.asarray(known, np.float64)
    samples = rng.uniform(low, high, (_SAMPLES, width)).astype(np.float32)
    if any(known.dtype == object for known in choices.values()):
        samples = samples.astype(object)
    for place, known in choices.items():
        samples[:, place] = rng.choice(known, _SAMPLES)
    return samples


def _range(part: Any, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper ends of the features, from whatever the part remembers of its data."""
    for inner in parts(part):
        found = _own_range(inner)
        if found is not None and len(found[0]) == width:
            return found
    return _tree_range(part, width)


def _own_range(part: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if hasattr(part, "data_min_"):
        return part.data_min_, part.data_max_
    mean, scale = getattr(part, "mean_", None), getattr(part, "scale_", None)
    if isinstance(mean, np.ndarray) and isinstance(scale, np.ndarray):
        return mean - _SPREAD * scale, mean + _SPREAD * scale
    for name in ("_fit_X", "support_vectors_", "cluster_centers_", "theta_"):
        rows = getattr(part, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2:
            return rows.min(axis=0), rows.max(axis=0)
    return None


def _tree_range(part: Any, width: int) -> tuple[np.ndarray, np.ndarray] | None:
    low, high = np.full(width, np.inf), np.full(width, -np.inf)
    for inner in parts(part):
        tree = getattr(inner, "tree_", None)
        if tree is not None and tree.n_features == width:
            asks = tree.children_left >= 0
            np.minimum.at(low, tree.feature[asks], tree.threshold[asks])
            np.maximum.at(high, tree.feature[asks], tree.threshold[asks])
        for row in getattr(inner, "_predictors", ()):
            for grown in row:
                nodes = grown.nodes[grown.nodes["is_leaf"] == 0]
                np.minimum.at(low, nodes["feature_idx"], nodes["num_threshold"])
                np.maximum.at(high, nodes["feature_idx"], nodes["num_threshold"])
    if not np.isfinite(low).any():
        return None
    low, high = np.where(np.isfinite(low), low, -1), np.where(np.isfinite(high), high, 1)
    margin = 0.25 * (high - low) + 1e-3
    return low - margin, high + margin
