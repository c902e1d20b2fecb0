"""Worker processes that run cases one by one, each with a time limit; one that dies or hangs is replaced."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tools.conformance.cases import CaseRef
from tools.conformance.run_case import Result, run_case

Job = tuple[CaseRef, str]
#: Modules that the fork server imports once, so that a new worker starts at once.
_PRELOAD = ["tools.conformance.run_case", "edgec.backends.tflite"]


def _work(pipe: Connection, log: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    pipe.send(None)  # ready: what the imports took is nobody's time limit
    while True:
        try:
            ref, backend = pipe.recv()
        except EOFError:
            return
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        pipe.send(run_case(ref, backend))


class _Worker:
    """A process, the job it has, and the file that takes what its libraries print."""

    def __init__(self, context: Any, folder: Path, number: int) -> None:
        self.log = folder / f"worker{number}.log"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, str(self.log)), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()
        self.job: Job | None = None
        self.deadline = 0.0

    def give(self, job: Job, limit_s: float) -> None:
        self.job, self.deadline = job, time.monotonic() + limit_s
        self.pipe.send(job)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        telling = [line for line in lines if "INFO" not in line and "WARNING" not in line]
        return (telling or lines or [""])[-1][:400]

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_all(
    jobs: Sequence[Job],
    *,
    workers: int,
    limit_s: float,
    done: Callable[[Result], object] = id,
) -> list[Result]:
    """Run every job; the results are in the jobs' order."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    results: dict[Job, Result] = {}
    waiting = list(reversed(jobs))
    with tempfile.TemporaryDirectory() as folder:
        started = 0
        pool: list[_Worker] = []

        def start() -> _Worker:
            nonlocal started
            started += 1
            return _Worker(context, Path(folder), started)

        def finish(worker: _Worker, result: Result) -> None:
            assert worker.job is not None
            results[worker.job] = result
            done(result)
            worker.job = None

        pool = [start() for _ in range(min(workers, max(len(jobs), 1)))]
        while waiting or any(w.job for w in pool):
            for worker in pool:
                if worker.job is None and waiting:
                    worker.give(waiting.pop(), limit_s)
            busy = {w.pipe: w for w in pool if w.job}
            ready = wait(list(busy), timeout=0.5)
            for pipe, worker in busy.items():
                if pipe in ready:
                    try:
                        finish(worker, worker.pipe.recv())
                        continue
                    except (EOFError, ConnectionResetError):
                        worker.process.join(5)
                        code = worker.process.exitcode
                        verdict, reason = "crash", f"the process ended with {code}"
                elif time.monotonic() > worker.deadline:
                    verdict, reason = "timeout", f"no result after {limit_s:.0f} s"
                else:
                    continue
                words = worker.last_words()
                worker.stop()
                finish(worker, _ended(worker, verdict, reason, words, limit_s))
                pool[pool.index(worker)] = start()
        for worker in pool:
            worker.stop()
    return [results[job] for job in jobs]


def _ended(worker: _Worker, verdict: str, reason: str, words: str, limit_s: float) -> Result:
    assert worker.job is not None
    ref, backend = worker.job
    return Result(
        name=ref.name,
        suite=ref.suite,
        op_type=ref.op_type,
        backend=backend,
        verdict=verdict,
        reason=reason,
        detail=words,
        seconds=limit_s if verdict == "timeout" else 0.0,
    )
