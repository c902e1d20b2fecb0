"""Columns of a fitted estimator by number, and which of them are text: numbers are one input, text is another.

1. Columns that are chosen by name, mask or slice are chosen by number.
2. A column is text where the first that sees it has learnt texts of it. With numbers beside text, the estimator's
   columns are put in order: numbers, text, those that nobody sees; and every choice among them is renumbered.
3. A device refuses no answer: encoders that refuse categories which they do not know ignore them here.
4. Text is never missing on a device: what fills it in goes, and the user is told what to give instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from refusal import SourceError
from sklearn.base import BaseEstimator
from sklearn_groups import groups

#: Where estimators keep fitted ones that see what they see themselves.
_INSIDE = ("best_estimator_", "estimator_", "estimators_", "calibrated_classifiers_", "estimator")
_REFUSED = "source/input-type"

Seen = Iterator[tuple[np.ndarray, Any]]


def number_columns(part: Any) -> None:
    """Rule 1, for a ColumnTransformer."""
    names = {name: i for i, name in enumerate(getattr(part, "feature_names_in_", ()))}
    numbered = np.arange(part.n_features_in_)

    def number(columns: Any) -> list[int]:
        if isinstance(columns, slice) and not isinstance(columns.start or columns.stop, str):
            return [int(i) for i in numbered[columns]]
        if isinstance(columns, slice):
            first = 0 if columns.start is None else names[columns.start]
            last = len(numbered) - 1 if columns.stop is None else names[columns.stop]
            return list(range(first, last + 1, columns.step or 1))
        listed = [columns] if isinstance(columns, (str, int, np.integer)) else list(columns)
        if listed and all(isinstance(c, (bool, np.bool_)) for c in listed):
            return [int(i) for i in numbered[np.asarray(listed)]]
        return [names[c] if isinstance(c, str) else int(numbered[c]) for c in listed]

    part.transformers_ = [(name, inner, number(columns)) for name, inner, columns in part.transformers_]


def sees_first(estimator: Any, columns: np.ndarray) -> Seen:
    """What sees the features as they come in, with the columns that it sees; composites before what they hold."""
    if hasattr(estimator, "steps"):
        for _, step in estimator.steps:
            if isinstance(step, BaseEstimator):
                yield from sees_first(step, columns)
                if not _fills_text(step):  # which leaves the columns where they are
                    return
        return
    yield columns, estimator
    if hasattr(estimator, "transformers_"):
        for _, inner, chosen in estimator.transformers_:
            if isinstance(inner, BaseEstimator) and len(chosen):
                yield from sees_first(inner, columns[np.asarray(chosen, int)])
    for inner in _inside(estimator):
        yield from sees_first(inner, columns)


def _inside(estimator: Any) -> list[Any]:
    """Estimators that see what this one sees, where one of them is a composite: a forest's trees are no matter here."""
    found = [inner for _, inner in getattr(estimator, "transformer_list", ())]
    for name in _INSIDE:
        inner = getattr(estimator, name, None)
        found += inner if isinstance(inner, list) else [inner]
    composite = any(hasattr(inner, attribute) for inner in found for attribute in ("steps", "transformers_", *_INSIDE))
    return [inner for inner in found if composite and hasattr(inner, "__dict__")]


def order_columns(estimator: Any, width: int) -> tuple[list[int], list[int]]:
    """Rule 2 in place: which columns are numbers, and which text. Raises `SourceError`."""
    parts = list(sees_first(estimator, np.arange(width)))
    text, used = np.zeros(width, bool), np.zeros(width, bool)
    for columns, part in parts:
        used[_used(part, columns)] = True
        for place, known in zip(columns, _learnt(part), strict=False):
            text[place] |= _is_text(part, known)
    if not text.any():
        return list(range(width)), []
    numbers, texts = np.flatnonzero(~text & used), np.flatnonzero(text)
    new = np.argsort([*numbers, *texts, *np.flatnonzero(~text & ~used)])
    for columns, part in parts:
        if text[columns].all() or not text[columns].any():
            continue
        if not hasattr(part, "transformers_") and not _inside(part):
            raise _mixed(part)
        if hasattr(part, "transformers_"):
            if not np.array_equal(columns, np.arange(width)):
                raise _mixed(part)
            part.transformers_ = [(n, inner, [int(new[c]) for c in chosen]) for n, inner, chosen in part.transformers_]
    return numbers.tolist(), texts.tolist()


def _used(part: Any, columns: np.ndarray) -> np.ndarray:
    """The columns of which an answer may depend; what holds others leaves the word to them."""
    if hasattr(part, "transformers_"):
        plain = [chosen for _, inner, chosen in part.transformers_ if inner == "passthrough" or _is_function(inner)]
        return np.asarray([columns[c] for chosen in plain for c in chosen], int)
    return columns[:0] if _inside(part) else columns


def _is_function(inner: Any) -> bool:
    return type(inner).__name__ == "FunctionTransformer"  # as later versions write `passthrough`


def _mixed(part: Any) -> SourceError:
    return SourceError(
        _REFUSED,
        f"the {type(part).__name__} takes numbers and text at once, and a device has an input for each",
        "let one ColumnTransformer at the beginning of the pipeline give text columns and numbers to transformers of "
        "their own",
    )


def _learnt(part: Any) -> list[Any]:
    """What an encoder or imputer knows of each of its columns."""
    categories = getattr(part, "categories_", None)
    if categories is not None and not isinstance(categories, str):
        return list(categories)
    return [[value] for value in getattr(part, "statistics_", ())] if _fills_text(part) else []


def _fills_text(part: Any) -> bool:
    """Whether it is an imputer of texts."""
    fills = np.asarray(getattr(part, "statistics_", ()))
    return type(part).__name__ == "SimpleImputer" and any(isinstance(fill, str) for fill in fills.ravel())


def _is_text(part: Any, known: Any) -> bool:
    kinds = {isinstance(item, str) for item in np.asarray(known).ravel().tolist()}
    if kinds == {True, False}:
        raise SourceError(
            _REFUSED,
            f"the {type(part).__name__} knows categories that are text beside others ({_some(known)})",
            "fill in missing text and make all categories of a column text before fitting",
        )
    return kinds == {True}


def _some(known: Any) -> str:
    return ", ".join(repr(item) for item in np.asarray(known).ravel().tolist()[:4])


def answer_always(parts: list[Any]) -> list[dict[str, str]]:
    """Rules 3 and 4 in place; what that changes, as findings."""
    findings: list[dict[str, str]] = []
    for part in parts:
        kind = type(part).__name__
        if not hasattr(part, "categories_"):
            pass
        elif kind == "OneHotEncoder" and part.handle_unknown == "error":
            findings.append(_unknown(kind, "all their columns are 0"))
            part.handle_unknown = "ignore"
        elif kind == "OneHotEncoder" and not groups(part):
            part.handle_unknown = "ignore"  # as there is no group for what is unknown
        elif kind == "OrdinalEncoder" and part.handle_unknown == "error":
            findings.append(_unknown(kind, "they are -1"))
            part.handle_unknown, part.unknown_value = "use_encoded_value", -1
        for i, (_, step) in enumerate(list(getattr(part, "steps", ()))):
            if _fills_text(step) and len(part.steps) > 1:
                del part.steps[i]
                fills = ", ".join(repr(str(fill)) for fill in dict.fromkeys(step.statistics_))
                findings.append(_not_filled(fills))
    return findings


def _unknown(kind: str, what: str) -> dict[str, str]:
    return {
        "code": "source/unknown-categories",
        "message": f"the {kind} refuses categories that it has not seen; a device cannot: there {what}",
        "severity": "info",
        "hint": "fit it with handle_unknown to choose what becomes of them",
    }


def _not_filled(fills: str) -> dict[str, str]:
    return {
        "code": "source/text-not-filled",
        "message": "missing text is not filled in on the device, where text is never missing",
        "severity": "warning",
        "hint": f"where the application has no text, let it give what the SimpleImputer learnt: {fills}",
    }
