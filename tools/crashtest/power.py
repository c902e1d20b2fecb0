"""Cut the power of a whole virtual board: its kernel's own ext4 on a disk that outlives it, and memory that does not.

What the guest has not flushed is gone with the emulator's process: the one test in which `sync` really counts.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

from edgec.bundle.open import open_bundle
from edgec.devices.base import Facts, Transport
from edgec.devices.inventory import Device
from edgec.devices.open import open_device
from edgec.devices.probe import probe
from edgec.errors import EdgecError
from tools.crashtest.benches import TriggerProxy
from tools.crashtest.trials import Outcome, flash, make_bundle, running
from tools.devlab import board, debs
from tools.devlab.common import UnavailableError, prepared, program

#: Change it with whatever is made here.
RECIPE = "1"
ROOT = "/data/edgec"
#: In the order in which they are loaded; those that are built into the kernel are not there.
_MODULES = ("crc32c_generic", "libcrc32c", "crc16", "mbcache", "jbd2", "ext4", "virtio_blk")
_DISK_BYTES = 96 << 20


def power_cuts(count: int, folder: Path, chance: random.Random) -> Generator[Outcome, None, None]:
    """That many trials on one board; its disk goes through all of them."""
    modules = prepared("board-disk", RECIPE, _make)
    disk = folder / "disk.img"
    with disk.open("wb") as stream:
        stream.truncate(_DISK_BYTES)
    subprocess.run([program("mkfs.ext4"), "-q", "-F", str(disk)], check=True)
    old = make_bundle(folder / "first.edgec", "aarch64", seed=-1)
    with _powered(folder, disk, modules) as (device, proxy, _):
        facts = probe(device)
        proxy.act_at(1 << 60, lambda: None)
        flash(old, device, ROOT, facts)
        total = proxy.passed
    for number in range(count):
        new = make_bundle(folder / f"{number}.edgec", "aarch64", seed=number)
        outcome = _cut(number, folder, disk, modules, facts, chance.randrange(total), total, old, new)
        yield outcome
        old = new


def _cut(
    number: int, folder: Path, disk: Path, modules: Path, facts: Facts, offset: int, total: int, old: Path, new: Path
) -> Outcome:
    names = {}
    for path, name in ((old, "old"), (new, "new")):
        with open_bundle(path) as bundle:
            names[bundle.digest] = name
    outcome = Outcome(number=number, device="board", fault="power", offset=offset, of_bytes=total, broken="", left="")
    with _powered(folder, disk, modules) as (device, proxy, power):
        proxy.act_at(offset, lambda: os.kill(power, signal.SIGKILL))
        try:
            result = flash(new, device, ROOT, facts).result
            outcome = replace(outcome, broken=f"{result}, then cut")  # it sent fewer bytes than the first one
        except EdgecError as error:
            outcome = replace(outcome, broken=error.code)
    with _powered(folder, disk, modules) as (device, _, _):
        digest, why = running(device, ROOT)
        outcome = replace(outcome, left=names.get(digest, digest or "nothing"), why=why)
        if outcome.good and digest not in names:
            outcome = replace(outcome, why="neither the old nor the new release runs")
        if outcome.good:
            flash(new, device, ROOT, facts)
            digest, why = running(device, ROOT)
            outcome = replace(outcome, why=why or ("" if names.get(digest) == "new" else "the next flash failed"))
    return outcome


@contextlib.contextmanager
def _powered(folder: Path, disk: Path, modules: Path) -> Iterator[tuple[Transport, TriggerProxy, int]]:
    """The board with its disk mounted: a device, the proxy before it, the process that is its power."""
    with board.running(folder / "board", disk=disk) as server:
        proxy = TriggerProxy(("127.0.0.1", server.port))
        known = folder / "known_hosts.proxy"
        known.write_text(server.known_at(proxy.port))
        # On a busy machine an emulated board takes its time to shake hands.
        options = {"identity": str(server.identity), "known_hosts": str(known), "connect_timeout_s": 120.0}
        device = Device(name="board", address=f"ssh:root@127.0.0.1:{proxy.port}", options=options)
        with open_device(device) as transport:
            _mount(transport, modules)
            yield transport, proxy, server.pid
        proxy.close()


def _mount(device: Transport, modules: Path) -> None:
    device.push(modules / "modules", "/tmp/modules")
    load = "for m in $1; do [ ! -f /tmp/modules/$m.ko ] || insmod /tmp/modules/$m.ko; done; mkdir -p /data; "
    done = device.exec(["sh", "-c", f"{load} mount -t ext4 /dev/vda /data", "sh", " ".join(_MODULES)], timeout_s=120)
    if done.returncode:
        raise UnavailableError(f"the board's disk cannot be mounted: {done.stderr.strip()[-300:]}")


def _make(folder: Path) -> None:
    debs.unpack(["linux-image-arm64"], folder / "root", arch="arm64", release="bookworm")
    (folder / "modules").mkdir()
    for name in _MODULES:
        found = next((folder / "root").rglob(f"{name}.ko"), None)
        if found is not None:
            shutil.copy(found, folder / "modules" / found.name)
    shutil.rmtree(folder / "root")
