"""Apply rewrite rules to a small graph, and prove that it computes the same."""

from __future__ import annotations

from collections.abc import Sequence

from edgec.graph.model import Model
from edgec.graph.verify import verify
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.rewrite import RewritePass, Rule
from tests.support.graphs import assert_same, operators, random_feeds


def rewritten(
    source: Model, rules: Sequence[Rule], *, relative: float, low: float = -4.0, high: float = 4.0
) -> dict[str, int]:
    """Operators after the rules were applied once; the result is verified and computes the same."""
    model = source.clone()
    FoldConstants().run(model)
    RewritePass("test", rules).run(model)
    verify(model.ir)
    assert_same(source, model, random_feeds(source, low=low, high=high), relative=relative)
    return dict(operators(model))


def refused(source: Model, rules: Sequence[Rule]) -> list[str]:
    """Why the rules did not fire; nothing may have changed."""
    model = source.clone()
    FoldConstants().run(model)
    before = operators(model)
    step = RewritePass("test", rules)
    assert not step.run(model)
    assert operators(model) == before
    return [refusal.reason for refusal in step.refusals]
