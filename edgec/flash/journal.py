"""The journal of a rollout: one JSON object a line, appended and synced, so that a killed run can go on.

A line that was cut in the middle is the last one, and counts as never written.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from edgec.errors import EdgecError


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What a journal says: how each device's last attempt ended (only those that ended), and whether the run did."""

    ended: Mapping[str, Mapping[str, Any]]
    finished: bool


def journal_path(digest: str, selection: str, root: str) -> Path:
    """Where the journal of this bundle for this choice of devices is kept."""
    base = os.environ.get("XDG_STATE_HOME")
    folder = (Path(base) if base else Path.home() / ".local" / "state") / "edgec" / "rollouts"
    name = hashlib.sha256(json.dumps([digest, selection, root]).encode()).hexdigest()[:16]
    return folder / f"{name}.jsonl"


def read_journal(path: Path) -> History | None:
    """What an earlier run left; None when there is none. Raises `flash/bad-journal` for a file that is no journal."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgecError("io/unreadable", f"cannot read the journal: {error.strerror}", where=str(path)) from error
    ended: dict[str, Mapping[str, Any]] = {}
    finished = False
    for number, line in enumerate(data.split(b"\n")[:-1], 1):  # what follows the last line break was cut
        try:
            entry = json.loads(line)
            event = entry["event"]
        except (ValueError, KeyError, TypeError) as error:
            raise EdgecError(
                "flash/bad-journal",
                f"line {number} is no entry of a journal",
                where=str(path),
                hint="remove the file and run the rollout again: devices that are done are only verified",
            ) from error
        finished = event == "finish"
        if event == "end":
            ended[entry["device"]] = entry
        elif event == "start":
            ended.pop(entry["device"], None)
    return History(ended=ended, finished=finished)


class Journal:
    """Append entries, from several threads."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("r+b" if resume else "wb")
            if resume:
                whole = self._stream.read().rfind(b"\n") + 1
                self._stream.truncate(whole)
                self._stream.seek(whole)
        except OSError as error:
            message = f"cannot write the journal: {error.strerror}"
            raise EdgecError("io/not-writable", message, where=str(path), hint="give another --journal") from error

    def write(self, event: str, **facts: Any) -> None:
        """One entry, on the disk when this returns."""
        entry = {"event": event, "at": datetime.now(UTC).isoformat(timespec="seconds"), **facts}
        with self._lock:
            self._stream.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def passed(history: History | None, results: Iterable[str]) -> frozenset[str]:
    """Devices whose last attempt ended with one of these results."""
    wanted = frozenset(results)
    return frozenset(d for d, entry in (history.ended if history else {}).items() if entry.get("result") in wanted)
