"""One trial: break a flash at a byte, look at the device's own files, flash again, look again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgec.artifact import Artifact, IoBinding
from edgec.bundle.manifest import MANIFEST, Provenance
from edgec.bundle.open import open_bundle
from edgec.bundle.pack import write_bundle
from edgec.devices.base import Facts, Transport
from edgec.errors import EdgecError
from edgec.flash.install import flash_bundle
from edgec.flash.session import Flashed, Options
from edgec.flash.site import Site
from edgec.targets.load import load_target
from edgec.tensors import DType, TensorSpec
from tools.crashtest.benches import Bench

FAULTS = ("reset", "stall", "disk-full", "kill")
MODEL_BYTES = 300_000
_KILL_S = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a trial found. `broken` is how the flash ended, `left` which release ran then; `why` is empty when well."""

    number: int
    device: str
    fault: str
    offset: int
    of_bytes: int
    broken: str
    left: str
    why: str = ""

    @property
    def good(self) -> bool:
        """True when the device was whole throughout."""
        return not self.why


def make_bundle(path: Path, arch: str, seed: int) -> Path:
    """A bundle that needs no runtime, of a size that takes a few packets; another seed, other bytes."""
    data = random.Random(f"model {seed}").randbytes(MODEL_BYTES)  # of -1 and 1 Random makes the same bytes
    x = TensorSpec(name="x", shape=(1, 4), dtype=DType.FLOAT32)
    artifact = Artifact(
        backend="tflite",
        precision="float32",
        files={"model.tflite": data, "labels.txt": b"one\ntwo\n"},
        main="model.tflite",
        inputs=(IoBinding(source=x, artifact=x),),
        outputs=(IoBinding(source=x, artifact=x),),
    )
    target = load_target("linux-x86_64")
    target = target.model_copy(update={"hardware": target.hardware.model_copy(update={"arch": arch})})
    provenance = Provenance(source_name="crash.onnx", source_kind="onnx", source_digest="0" * 64)
    return write_bundle(
        path, name="crash", artifact=artifact, target=target, provenance=provenance, goldens=(), agent=b"pass\n"
    )


def flash(path: Path, device: Transport, root: str, facts: Facts) -> Flashed:
    """Through whatever connection the device has."""
    with open_bundle(path) as bundle:
        return flash_bundle(bundle, device, Options(root=root), facts=facts)


def running(device: Transport, root: str) -> tuple[str, str]:
    """The digest of the release that `current` leads to, and what is wrong with it; looks at every byte."""
    if device.entry(f"{root}/current") is None:
        return "", ""
    folder = f"{root}/{device.read_link(f'{root}/current')}"
    try:
        data = device.read_bytes(f"{folder}/{MANIFEST}")
        digest = hashlib.sha256(data).hexdigest()
        wrong = [n for n, f in json.loads(data)["files"].items() if device.sha256(f"{folder}/{n}") != f["sha256"]]
    except (EdgecError, ValueError, KeyError) as error:
        return "", f"current leads to something that is not whole: {error}"
    if not folder.rpartition("/")[2].startswith(digest):
        return digest, "the release does not have the bytes it is named after"
    return digest, f"files are not whole: {', '.join(wrong)}" if wrong else ""


def run_trial(number: int, bench: Bench, fault: str, folder: Path, facts: Facts, chance: random.Random) -> Outcome:
    """Break one flash and repair it; repeats with another byte when the flash was over before it broke."""
    total = _whole_flash_bytes(bench, folder, facts, number)
    for attempt in range(20):
        path = make_bundle(folder / "new.edgec", facts.arch, seed=(number << 16) + 1 + attempt)
        outcome = _break(number, bench, fault, path, facts, chance.randrange(total), total)
        if bench.proxy.acted or not outcome.good:
            return outcome
    raise RuntimeError(f"{fault} never struck on {bench.name}")


#: By device: each round has devices of its own, and they begin with a release.
_measured: dict[Path, int] = {}


def _whole_flash_bytes(bench: Bench, folder: Path, facts: Facts, seed: int) -> int:
    """How many bytes a flash sends, measured once."""
    if bench.files not in _measured:
        for again in range(2):  # the second one has garbage to collect, as those that follow
            path = make_bundle(folder / "first.edgec", facts.arch, seed=-1 - again - 2 * seed)
            bench.proxy.act_at(1 << 60, lambda: None)
            with bench.open(impatient=False) as device:
                flash(path, device, bench.root, facts)
        _measured[bench.files] = bench.proxy.passed
    return _measured[bench.files]


def _break(number: int, bench: Bench, fault: str, path: Path, facts: Facts, offset: int, total: int) -> Outcome:
    look, files = bench.look(), str(bench.files)
    with open_bundle(path) as bundle:
        new = bundle.digest
    old, why = running(look, files)
    outcome = Outcome(
        number=number, device=bench.name, fault=fault, offset=offset, of_bytes=total, broken="", left="", why=why
    )
    ballast: list[Path] = []
    if fault == "kill":
        broken = _killed(bench, path, offset)
    else:
        actions: dict[str, Callable[[], None]] = {
            "reset": bench.proxy.cut_now,
            "stall": lambda: bench.proxy.stall_after(0),
            "disk-full": lambda: ballast.append(bench.fill()),
        }
        bench.proxy.act_at(offset, actions[fault])
        broken = _flashed(bench, path, facts)
    bench.proxy.rest()
    for file in ballast:
        file.unlink()
    left, why = running(look, files)
    names = {old: "old", new: "new"}
    outcome = replace(outcome, broken=broken, left=names.get(left, left), why=outcome.why or why)
    if outcome.good and left not in names:
        outcome = replace(outcome, why=f"a third release runs: {left}")
    return outcome if not outcome.good else replace(outcome, why=_repaired(bench, path, facts, new))


def _flashed(bench: Bench, path: Path, facts: Facts) -> str:
    """How a flash through the proxy ended."""
    try:
        with bench.open(impatient=True) as device:
            return flash(path, device, bench.root, facts).result
    except EdgecError as error:
        return error.code


def _killed(bench: Bench, path: Path, offset: int) -> str:
    """Flash in a process that is killed at the byte."""
    client = subprocess.Popen(
        [sys.executable, "-m", "tools.crashtest.client", str(path), bench.arguments()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(client.pid, signal.SIGKILL)

    bench.proxy.act_at(offset, kill)
    try:
        _, said = client.communicate(timeout=_KILL_S)
    except subprocess.TimeoutExpired:
        client.kill()
        client.communicate()
        return "hung"
    return "killed" if client.returncode == -signal.SIGKILL else said.decode("utf-8", "replace").strip()[-300:]


def _repaired(bench: Bench, path: Path, facts: Facts, new: str) -> str:
    """Flash again, undisturbed; what is wrong then."""
    try:
        with bench.open(impatient=False) as device:
            flash(path, device, bench.root, facts)
    except EdgecError as error:
        return f"the next flash failed: {error.code}: {error}"
    digest, why = running(bench.look(), str(bench.files))
    if why or digest != new:
        return why or "the next flash left another release"
    seen, _ = Site(bench.look(), str(bench.files)).see()
    settled = seen.state.active == seen.link and not seen.state.trial and seen.link in seen.state.good
    return "" if settled and not seen.incoming else f"the next flash left loose ends: {seen}"


def summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Counts by device and fault: trials, good ones, and which release was left running."""
    table: dict[str, dict[str, int]] = {}
    for outcome in outcomes:
        row = table.setdefault(f"{outcome.device} {outcome.fault}", {"trials": 0, "good": 0, "old": 0, "new": 0})
        row["trials"] += 1
        row["good"] += outcome.good
        if outcome.left in row:
            row[outcome.left] += 1
    return table
