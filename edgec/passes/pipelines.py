"""The orders in which passes run, written down."""

from __future__ import annotations

from edgec.graph.model import Model
from edgec.graph.verify import verify
from edgec.passes.base import Observer, Pass, run_passes
from edgec.passes.common_subexpressions import CommonSubexpressions
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants


def canonical_passes() -> tuple[Pass, ...]:
    """What makes the float canonical form, in order."""
    return (
        FoldConstants(),
        Eliminate(),
        CommonSubexpressions(),
    )


def canonicalize(model: Model, *, observer: Observer | None = None) -> Model:
    """A new model in the float canonical form; the source is left as it is.

    Static shapes wherever they follow from the inputs, constants folded into initializers, BatchNorm, Pad and
    bias fused, decomposed activations and norms back in one operator, nothing that computes nothing.
    """
    result = model.clone()
    run_passes(result, canonical_passes(), rounds=4, observer=observer)
    verify(result.ir)
    return result
