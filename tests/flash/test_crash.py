"""Connection and power lost in every single operation: the device always runs a whole release, old or new."""

from __future__ import annotations

import pytest

from edgec.bundle.bundle import Bundle
from edgec.bundle.open import open_bundle
from edgec.errors import EdgecError
from edgec.flash.install import flash_bundle
from edgec.flash.rollback import roll_back
from edgec.flash.session import Flashed, Options
from edgec.flash.site import Site
from tests.support import flashing
from tests.support.memory_device import MemoryDevice

SEEDS = range(1)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    paths = {name: flashing.pack(folder / f"{name}.edgec", version=name, goldens=0) for name in "abcd"}
    return {name: open_bundle(path) for name, path in paths.items()}


def flash(device: MemoryDevice, bundle: Bundle) -> Flashed:
    return flash_bundle(bundle, device, Options(), facts=flashing.FACTS)


def prepared(bundles: dict[str, Bundle], history: str) -> MemoryDevice:
    device = MemoryDevice()
    for name in history:
        assert flash(device, bundles[name]).result == "installed"
    device.revive()
    return device


def operations(device: MemoryDevice, bundle: Bundle) -> int:
    """How many operations a flash takes; the device is left as it was."""
    device = device.copy(0)
    before = device.operations
    flash(device, bundle)
    return device.operations - before


@pytest.mark.parametrize("power", [False, True], ids=["connection", "power"])
@pytest.mark.parametrize("history", ["", "a", "abc"], ids=["first", "second", "with-garbage"])
def test_cut_in_every_operation_of_a_flash(bundles: dict[str, Bundle], history: str, power: bool) -> None:
    new = bundles["d"]
    old = bundles[history[-1]].digest if history else ""
    cuts = 0
    start = prepared(bundles, history)
    for seed in SEEDS:
        for operation in range(operations(start, new)):
            device = start.copy(100 * seed + operation)
            device.cut_at(operation, power=power)
            with pytest.raises(EdgecError) as caught:
                flash(device, new)
            assert caught.value.code == "device/lost"
            device.revive()
            assert flashing.running(device) in (old, new.digest)
            result = flash(device, new)
            assert result.result in ("installed", "unchanged")
            assert flashing.running(device) == new.digest
            seen, _ = Site(device).see()
            assert not seen.state.trial
            assert seen.state.active == seen.link
            assert result.previous == (f"{old}" if history else "")
            cuts += 1
    assert cuts > 15


@pytest.mark.parametrize("power", [False, True], ids=["connection", "power"])
def test_cut_twice_and_another_release_wanted_then(bundles: dict[str, Bundle], power: bool) -> None:
    a, b, c = (bundles[name].digest for name in "abc")
    start = prepared(bundles, "a")
    for first in range(0, operations(start, bundles["b"]), 3):
        for second in range(0, 30, 7):
            device = start.copy(first)
            for bundle, operation in ((bundles["b"], first), (bundles["c"], second)):
                device.cut_at(operation, power=power)
                try:
                    flash(device, bundle)
                except EdgecError as error:
                    assert error.code == "device/lost"
                device.revive()
                assert flashing.running(device) in (a, b, c)
            flash(device, bundles["c"])
            assert flashing.running(device) == c


@pytest.mark.parametrize("power", [False, True], ids=["connection", "power"])
def test_cut_in_every_operation_of_a_rollback(bundles: dict[str, Bundle], power: bool) -> None:
    a, b = (bundles[name].digest for name in "ab")
    start = prepared(bundles, "ab")
    tried = start.copy(0)
    assert roll_back(tried, Options()).running == a
    for operation in range(tried.operations - start.operations):
        device = start.copy(operation)
        device.cut_at(operation, power=power)
        with pytest.raises(EdgecError):
            roll_back(device, Options())
        device.revive()
        assert flashing.running(device) in (a, b)
        flash(device, bundles["b"])
        assert flashing.running(device) == b
        assert roll_back(device, Options()).running == a


def test_disk_full_at_any_file(bundles: dict[str, Bundle]) -> None:
    """The check before said yes; then somebody else filled the disk."""
    a, b = bundles["a"], bundles["b"]
    device = prepared(bundles, "a")
    used = device.space - device.free_bytes("/")
    for extra in range(0, b.path.stat().st_size, 6000):
        device.space = used + extra
        device.free_bytes = lambda _remote: 1 << 30  # type: ignore[method-assign]
        with pytest.raises(EdgecError) as caught:
            flash(device, b)
        assert caught.value.code == "device/disk-full"
        assert flashing.running(device) == a.digest
    device.space = 1 << 30
    assert flash(device, b).running == b.digest
