"""A pass edits a model in place and says whether it changed anything; `run_passes` runs and verifies many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.graph.verify import verify

#: Called after each pass with the pass's name and the model; tests compare numerics here.
Observer = Callable[[str, Model], None]


class Pass(Protocol):
    """One transformation. `name` is what messages and `--stop-after` style tools call it."""

    @property
    def name(self) -> str:
        """A verb phrase in kebab case: `fuse-batchnorm`."""

    def run(self, model: Model) -> bool:
        """Edit the model in place; True when something changed."""


def run_passes(model: Model, passes: Sequence[Pass], *, rounds: int = 1, observer: Observer | None = None) -> bool:
    """Run the passes in order, again while they change something, at most `rounds` times.

    The graph is verified after each pass that changed it: a pass that breaks a graph is a bug, and is named.
    """
    changed_ever = False
    for _ in range(rounds):
        changed = False
        for step in passes:
            if not step.run(model):
                continue
            changed = True
            try:
                verify(model.ir)
            except EdgecError as error:
                raise EdgecError(
                    "internal/pass", f"pass {step.name!r} broke the graph: {error}", where=step.name
                ) from error
            if observer is not None:
                observer(step.name, model)
        changed_ever |= changed
        if not changed:
            break
    return changed_ever
