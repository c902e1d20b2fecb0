"""A row of the table: a real model, how it is read, and what is known about its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgec.bundle.bundle import Bundle
from edgec.frontends.base import SourceOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Labelled data: `calibration` writes its part of it and returns the path; `measure` uses the other part.

    `measure` gives the share of right answers of a bundle. `documented` is what others state, as text.
    """

    calibration: Callable[[Path], str]
    measure: Callable[[Bundle], float]
    documented: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """`source` finds the model and gives SOURCE as a user would write it; it raises `MissingFileError`.

    `environment` gives variables that reading needs. With `accuracy`, the row is also built in int8 and measured;
    `precisions` says otherwise: `auto` takes a ready model as it is.
    """

    name: str
    kind: str
    source: Callable[[], str]
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: SourceOptions = field(default_factory=SourceOptions)
    environment: Callable[[], Mapping[str, str]] = dict
    accuracy: Accuracy | None = None
    precisions: tuple[str, ...] = ()
