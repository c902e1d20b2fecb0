"""Remember what was measured of a model, on disk, so that a search that was cut short goes on where it stopped.

One file of JSON lines a search; what depends on what is in its key and in the models' digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.graph.model import Model
from edgec.quantization.calibration.cache import model_digest

#: Raise when what is measured changes its meaning.
_VERSION = 1


class Memo:
    """Results by (kind, model); `key` is everything else that they depend on."""

    def __init__(self, folder: Path, *key: str) -> None:
        name = hashlib.sha256("\n".join([str(_VERSION), *key]).encode()).hexdigest()
        self._path = folder / "searches" / f"{name}.jsonl"
        self._known = _read(self._path)
        self._before = set(self._known)
        self.reused = 0
        #: What an earlier search had measured, of all that was asked for.
        self.taken_up = 0

    def get(self, kind: str, model: Model, measure: Callable[[Model], Any]) -> Any:
        """What is known of the model, or `measure` of it, which is written down at once."""
        return self.keep(f"{kind}/{model_digest(model)}", lambda: measure(model))

    def keep(self, key: str, measure: Callable[[], Any]) -> Any:
        """What is known under a key, or what `measure` gives, which is written down at once."""
        if key in self._known:
            self.reused += 1
            self.taken_up += key in self._before
            self._before.discard(key)
            return self._known[key]
        value = self._known[key] = measure()
        with contextlib.suppress(OSError):  # then the next run measures again
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"key": key, "value": value}) + "\n")
        return value


def _read(path: Path) -> dict[str, Any]:
    """Whole lines of the file; one that was cut short is left out."""
    found: dict[str, Any] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return found
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            found[entry["key"]] = entry["value"]
    return found
