"""Keep torch's and the exporter's own notes off the user's terminal: none is about what the user can change."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no log lines, and nothing printed: the exporter uses all three ways."""
    level = logging.root.manager.disable
    # Modules that the exporter imports only now bring loggers of their own: the level holds for those too.
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
