"""Metrics of a task on labelled data: top-1, F1, AUC, mean average precision, or a function of the user's own.

All are larger where the model is better. Built-in ones look at the first float output, a row of scores a sample; a
label is a class number (or its text), an array of them (a class a position), or 0 and 1 for each class: several at
once, or one of them where every label has a single 1. Detectors: see `detection`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgec.errors import EdgecError
from edgec.quantization.measures.detection import mean_average_precision_of_boxes
from edgec.registry import did_you_mean
from edgec.tensors import Array

Outputs = Sequence[Mapping[str, Array]]
Metric = Callable[[Outputs, Sequence[Any]], float]


def load_metric(name: str) -> Metric:
    """The metric of that name, or `module:function`, or `file.py:function`.

    The function takes the outputs (a dictionary a sample) and the labels, and returns a number.
    Raises `EdgecError` (quant/metric).
    """
    if name in METRICS:
        return METRICS[name]
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise EdgecError(
            "quant/metric",
            f"there is no metric {name!r}",
            hint=f"{did_you_mean(name, METRICS)}; or give module:function",
        )
    found = getattr(_module(place), function, None)
    if not callable(found):
        raise EdgecError("quant/metric", f"{place} has no function {function!r}", where=name, hint="check its name")
    return _checked(cast(Metric, found), name)


def code_of(name: str) -> str:
    """The source of the file that a metric of the user's own is in; empty for a built-in one."""
    place = name.rpartition(":")[0]
    if name in METRICS or not place:
        return ""
    file = place if place.endswith(".py") else getattr(_module(place), "__file__", None)
    try:
        return Path(file or "").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # compiled: its name has to do


def _module(place: str) -> Any:
    try:
        if not place.endswith(".py"):
            sys.path.insert(0, str(Path.cwd()))
            try:
                return importlib.import_module(place)
            finally:
                sys.path.remove(str(Path.cwd()))
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        raise EdgecError(
            "quant/metric",
            f"cannot import {place}: {type(error).__name__}: {error}",
            where=place,
            hint="give a module on the Python path, or a .py file",
        ) from error


def _checked(function: Metric, name: str) -> Metric:
    def metric(outputs: Outputs, labels: Sequence[Any]) -> float:
        try:
            value = float(function(outputs, labels))
        except (Exception, SystemExit) as error:
            raise EdgecError(
                "quant/metric",
                f"the metric failed: {type(error).__name__}: {error}",
                where=name,
                hint="it takes a list of {output: array}, one a sample, and the list of labels, and returns a number",
            ) from error
        if not math.isfinite(value):
            raise EdgecError("quant/metric", f"the metric gave {value}", where=name, hint="it must be a finite number")
        return value

    return metric


def top1(outputs: Outputs, labels: Sequence[Any]) -> float:
    """Share of samples (or positions) whose largest score is the label's."""
    found = _answers(outputs, labels)
    right = sum(int(np.count_nonzero(got == wanted)) for got, wanted in found)
    return right / max(1, sum(wanted.size for _, wanted in found))


def f1(outputs: Outputs, labels: Sequence[Any]) -> float:
    """F1 of each class that occurs, averaged; several classes at once count a score above a half."""
    pairs = _answers(outputs, labels)
    got, wanted = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    values = []
    for kind in np.unique(wanted):
        hit = int(np.count_nonzero((got == kind) & (wanted == kind)))
        values.append(2 * hit / (np.count_nonzero(got == kind) + np.count_nonzero(wanted == kind)))
    return float(np.mean(values))


def auc(outputs: Outputs, labels: Sequence[Any]) -> float:
    """Area under the ROC curve; of more than two classes the mean of each against the rest."""
    return _one_against_rest(outputs, labels, _area)


def mean_average_precision(outputs: Outputs, labels: Sequence[Any]) -> float:
    """Of classes, the mean over them; of boxes (labels that are objects with `boxes`) at an overlap of a half."""
    if labels and all(isinstance(label, Mapping) for label in labels):
        return mean_average_precision_of_boxes(outputs, labels)
    return _one_against_rest(outputs, labels, _average_precision)


METRICS: dict[str, Metric] = {"top1": top1, "f1": f1, "auc": auc, "map": mean_average_precision}


def _scores(outputs: Outputs) -> list[Array]:
    """The first float output of each sample."""
    for name, value in outputs[0].items() if outputs else ():
        if value.dtype.kind == "f":
            return [o[name] for o in outputs]
    raise EdgecError(
        "quant/metric", "the model has no float output to take scores from", hint="give --metric module:function"
    )


def _answers(outputs: Outputs, labels: Sequence[Any]) -> list[tuple[Array, Array]]:
    """Predicted and right classes of each sample."""
    rows = _scores(outputs)
    wanted = [_whole(label) for label in labels]
    if rows and all(_is_one_of(label, row) for row, label in zip(rows, wanted, strict=True)):
        wanted = [np.asarray(np.argmax(label)) for label in wanted]
    return [_classes(row, label) for row, label in zip(rows, wanted, strict=True)]


def _whole(label: Any) -> Array:
    """A label as whole numbers. Raises `EdgecError` (quant/metric) where it is none."""
    wanted: Array | None
    try:
        wanted = np.asarray(label)
        if wanted.dtype.kind in "US":
            wanted = wanted.astype(np.float64)
    except ValueError:  # a text, or lists of different lengths
        wanted = None
    if wanted is None or not (
        wanted.dtype.kind in "iub" or (wanted.dtype.kind == "f" and np.all(wanted == np.rint(wanted)))
    ):
        shown = label.tolist() if isinstance(label, np.ndarray | np.generic) else label
        raise EdgecError("quant/metric", f"a label is {shown!r}, not a class number", hint="give numbers from 0 on")
    return wanted.astype(np.int64)


def _is_one_of(label: Array, scores: Array) -> bool:
    """True for a single 1 among zeros, one for each of a row of scores: a class, not several at once."""
    return (
        1 < label.size == scores.size == max(scores.shape, default=0)
        and int(np.count_nonzero(label)) == 1
        and int(label.max()) == 1
    )


def _classes(scores: Array, wanted: Array) -> tuple[Array, Array]:
    """Predicted and right classes of one sample, in the same shape."""
    if wanted.size == 1:
        flat = scores.ravel()
        _check_class(wanted, max(flat.size, 2))
        return np.atleast_1d(_decide(flat) if flat.size == 1 else np.argmax(flat)), wanted.reshape(1)
    for axis in range(scores.ndim):  # a class a position
        if np.delete(scores.shape, axis).tolist() == list(wanted.shape):
            return np.argmax(scores, axis=axis), wanted
    if scores.size == wanted.size:  # several at once
        return _decide(scores.reshape(wanted.shape)), wanted
    raise EdgecError(
        "quant/metric",
        f"scores of shape {scores.shape} and a label of shape {wanted.shape} do not fit",
        hint="a label is a class, a class for each position, or 0 and 1 for each class",
    )


def _check_class(labels: Array, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise EdgecError(
            "quant/metric",
            f"a label is {wrong[0]}, and the model gives scores of {classes} classes",
            hint="number the classes from 0 on, in the order of the model's scores",
        )


def _decide(scores: Array) -> Array:
    """Yes or no: probabilities at a half, logits at 0."""
    limit = 0.5 if scores.size and scores.min() >= 0 and scores.max() <= 1 else 0.0
    return (scores > limit).astype(np.int64)


def _one_against_rest(outputs: Outputs, labels: Sequence[Any], measure: Callable[[Array, Array], float]) -> float:
    rows = np.stack([score.ravel().astype(np.float64) for score in _scores(outputs)])
    classes = [_whole(label).ravel() for label in labels]
    if len({label.size for label in classes}) > 1:
        raise EdgecError(
            "quant/metric",
            f"labels of {min(x.size for x in classes)} to {max(x.size for x in classes)} numbers do not fit together",
            hint="a label is a class, or 0 and 1 for each class",
        )
    wanted = np.stack(classes)
    if wanted.shape[1] == 1:
        _check_class(wanted, max(rows.shape[1], 2))
    if wanted.shape[1] == 1 and rows.shape[1] <= 2:
        margin = rows[:, -1] - (rows[:, 0] if rows.shape[1] == 2 else 0)
        return measure(margin, wanted[:, 0] > 0)
    if wanted.shape[1] == 1:
        wanted = wanted == np.arange(rows.shape[1])
    elif wanted.shape != rows.shape:
        raise EdgecError(
            "quant/metric",
            f"{rows.shape[1]} scores a sample and labels of {wanted.shape[1]} do not fit",
            hint="a label is a class, or 0 and 1 for each class",
        )
    kinds = [k for k in range(rows.shape[1]) if 0 < np.count_nonzero(wanted[:, k]) < len(wanted)]
    if not kinds:
        raise EdgecError("quant/metric", "all labels are the same", hint="give samples of more than one class")
    return float(np.mean([measure(rows[:, k], wanted[:, k].astype(bool)) for k in kinds]))


def _area(scores: Array, positive: Array) -> float:
    """Share of pairs of a positive and a negative that are in order; ties are half."""
    if positive.all() or not positive.any():
        raise EdgecError("quant/metric", "all labels are the same", hint="give samples of more than one class")
    _, ranks, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ups = int(np.count_nonzero(positive))
    downs = len(scores) - ups
    return float((middle[ranks][positive].sum() - ups * (ups + 1) / 2) / (ups * downs))


def _average_precision(scores: Array, positive: Array) -> float:
    """Mean of the precision at each positive, from the highest score down; ties in the order of the samples."""
    order = np.argsort(-scores, kind="stable")
    hits = positive[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean()) if hits.any() else 0.0
