"""Run models outside this process: an artifact that is not packed yet, or the agent on a device."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.artifact import Artifact
from edgec.bundle.worker import AGENT, Worker, crashed, timed_out
from edgec.devices.base import Transport
from edgec.errors import EdgecError
from edgec.tensors import Array


def agent_source() -> bytes:
    """The agent that travels in a bundle."""
    return AGENT.read_bytes()


def run_artifact(
    artifact: Artifact, feeds: Iterable[Mapping[str, Array]], *, threads: int = 1, timeout_s: float = 300.0
) -> list[dict[str, Array]]:
    """Outputs of an artifact, in its own terms in and out, from its runtime in a process of its own.

    Raises `EdgecError` (validate/…) when the runtime is missing, refuses the model, crashes or hangs.
    """
    return list(stream_artifact(artifact, feeds, threads=threads, timeout_s=timeout_s))


def stream_artifact(
    artifact: Artifact, feeds: Iterable[Mapping[str, Array]], *, threads: int = 1, timeout_s: float = 300.0
) -> Iterator[dict[str, Array]]:
    """What `run_artifact` gives, one after the other, as the feeds come."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        for name, data in artifact.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        names = [binding.artifact.name for binding in artifact.outputs]
        with Worker(Path(folder, artifact.main), artifact.runner, threads=threads, timeout_s=timeout_s) as worker:
            for feed in feeds:
                yield _pick(worker.run(feed), names, artifact.main)


def race(
    artifacts: Mapping[str, Artifact],
    feeds: Mapping[str, Array],
    *,
    threads: int = 1,
    rounds: int = 40,
    seconds: float = 2.0,
) -> dict[str, float]:
    """Milliseconds a run of each artifact on the same source-side inputs: the minimum of interleaved rounds.

    With one thread they are the processor's, which other work on the machine does not stretch. Stops after `rounds`,
    or after `seconds` once 5 rounds are done. Raises `EdgecError` (validate/…).
    """
    best = dict.fromkeys(artifacts, math.inf)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder, contextlib.ExitStack() as stack:
        runners = {}
        for name, artifact in artifacts.items():
            place = Path(folder, name)
            place.mkdir()
            for file, data in artifact.files.items():
                (place / file).write_bytes(data)
            worker = Worker(place / artifact.main, artifact.runner, threads=threads)
            raw = {b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs}
            runners[name] = (stack.enter_context(worker), raw)
        for worker, raw in runners.values():
            worker.time(raw)  # the first run loads and warms up
        start = time.perf_counter()
        for count in range(rounds):
            if count >= 5 and time.perf_counter() - start > seconds:
                break
            for name, (worker, raw) in runners.items():
                best[name] = min(best[name], 1e3 * worker.time(raw, clock="cpu_seconds" if threads == 1 else "seconds"))
    return best


def call_agent(
    device: Transport,
    agent: str,
    arguments: Sequence[str],
    *,
    timeout_s: float,
    where: str,
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON answer of one agent command on a device; `agent` is the script's path there.

    Raises `EdgecError`: validate/timeout, validate/runtime-crashed (naming the signal), or the agent's own error.
    """
    result = device.exec([*device.python, agent, *arguments], timeout_s=timeout_s, env=env)
    if result.timed_out:
        raise timed_out(timeout_s, where=where)
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise crashed(result.returncode, result.stderr, where=where)
    if "error" in answer:
        record = answer["error"]
        raise EdgecError(f"validate/{record['code']}", record["message"], where=where, hint=record["hint"])
    # A runtime that dies while it is torn down has already answered, but would take a service down with it.
    if result.returncode < 0:
        raise crashed(result.returncode, result.stderr, where=where)
    return answer


def _pick(outputs: Mapping[str, Array], names: Sequence[str], where: str) -> dict[str, Array]:
    missing = [name for name in names if name not in outputs]
    if missing:
        raise EdgecError("validate/io-mismatch", f"the model has no output {missing[0]!r}", where=where)
    return {name: outputs[name] for name in names}
