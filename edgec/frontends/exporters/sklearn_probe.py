"""What scikit-learn itself answers to samples that look like what the estimator was fitted on.

Where data lie is read off the fitted estimators: a scaler's mean and scale, a tree's thresholds, neighbours, centres.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn_convert import parts

_SAMPLES = 256
_SPREAD = 2.0


def write_probes(estimator: Any, path: Path) -> None:
    """`input`, and by output name what is right, in the types of scikit-learn; nothing where it cannot say."""
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
    np.savez(path, input=samples, **answers)


def _is_regressor(estimator: Any) -> bool:
    from sklearn.base import is_regressor

    return bool(is_regressor(estimator))


def probes(estimator: Any) -> np.ndarray:
    """[samples, features] of float32, always the same."""
    rng = np.random.default_rng(0)
    width = int(estimator.n_features_in_)
    low, high = -np.ones(width), np.ones(width)
    choices: dict[int, Any] = {}
    for column, part in _first_parts(estimator, np.arange(width)):
        found = _range(part, len(column))
        if found is not None:
            low[column], high[column] = found
        for place, categories in zip(column, getattr(part, "categories_", ()), strict=False):
            choices[int(place)] = np.asarray(categories, np.float64)
    samples = rng.uniform(low, high, (_SAMPLES, width))
    for place, categories in choices.items():
        samples[:, place] = rng.choice(categories, _SAMPLES)
    return samples.astype(np.float32)


def _first_parts(estimator: Any, columns: np.ndarray) -> list[tuple[np.ndarray, Any]]:
    """What sees the features as they come in, with the columns that it sees."""
    if hasattr(estimator, "steps"):
        return _first_parts(estimator.steps[0][1], columns)
    if hasattr(estimator, "transformers_"):
        pairs = [(inner, columns[np.asarray(where, int)]) for _, inner, where in estimator.transformers_]
        return [entry for inner, where in pairs if not isinstance(inner, str) for entry in _first_parts(inner, where)]
    return [(columns, estimator)]


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
