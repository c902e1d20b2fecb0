"""Fixtures of the virtual devices (tools/devlab), one of each for a test process; a test skips with the reason.

They are made by `make devlab` or, as far as the machine allows, by `make test`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edgec.devices.base import Transport
from edgec.devices.inventory import Device
from edgec.devices.open import open_device
from tools.devlab import board as board_part
from tools.devlab import phone as phone_part
from tools.devlab import pi as pi_part
from tools.devlab import prometheus as prometheus_part
from tools.devlab import sshd as sshd_part
from tools.devlab import vpi as vpi_part
from tools.devlab.common import UnavailableError

Folders = pytest.TempPathFactory
T = TypeVar("T")


def connected(name: str, address: str, **options: Any) -> Transport:
    """A device by address and options, as the inventory would open it."""
    return open_device(Device(name=name, address=address, options=options))


@pytest.fixture(scope="session")
def vpi() -> Path:
    """The files of the aarch64 user-land: qemu-aarch64, root, site; for `qemu:cortex-a72`."""
    return _or_skip(vpi_part.existing_vpi)


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """A folder with usr/bin/prometheus and usr/bin/promtool."""
    return _or_skip(prometheus_part.existing_prometheus)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: Folders) -> Iterator[sshd_part.Server]:
    """A real sshd on this machine."""
    yield from _running(lambda: sshd_part.running(tmp_path_factory.mktemp("sshd")))


@pytest.fixture(scope="session")
def pi4(tmp_path_factory: Folders) -> Iterator[sshd_part.Server]:
    """A Pi 4 over SSH: sessions are aarch64, cortex-a72, with LiteRT."""
    yield from _running(lambda: pi_part.running(tmp_path_factory.mktemp("pi4"), core="cortex-a72"))


@pytest.fixture(scope="session")
def pi5(tmp_path_factory: Folders) -> Iterator[sshd_part.Server]:
    """A Pi 5 over SSH: the same with cortex-a76."""
    yield from _running(lambda: pi_part.running(tmp_path_factory.mktemp("pi5"), core="cortex-a76"))


def pi_server(folder: Path) -> Iterator[sshd_part.Server]:
    """A Pi 4 over SSH that belongs to one test, which may break it."""
    yield from _running(lambda: pi_part.running(folder, core="cortex-a72"))


@pytest.fixture(scope="session")
def bare_pi(tmp_path_factory: Folders) -> Iterator[sshd_part.Server]:
    """A Pi 4 over SSH that has Python and no runtime."""
    yield from _running(lambda: pi_part.running(tmp_path_factory.mktemp("bare_pi"), runtime=False))


@pytest.fixture(scope="session")
def phone(tmp_path_factory: Folders) -> Iterator[phone_part.Phone]:
    """A real adbd, x86-64, without Python; its `proxy` breaks connections."""
    yield from _running(lambda: phone_part.running(tmp_path_factory.mktemp("phone")))


@pytest.fixture(scope="session")
def phone_arm64(tmp_path_factory: Folders) -> Iterator[phone_part.Phone]:
    """A real adbd, arm64, with Python and LiteRT."""
    yield from _running(lambda: phone_part.running(tmp_path_factory.mktemp("phone_arm64"), core="cortex-a76"))


@pytest.fixture(scope="session")
def virtual_board(tmp_path_factory: Folders) -> Iterator[sshd_part.Server]:
    """A whole emulated board (`make devlab-board` prepares it); for tests marked slow."""
    yield from _running(lambda: board_part.running(tmp_path_factory.mktemp("board")))


def _running(start: Callable[[], Any]) -> Iterator[Any]:
    manager = start()
    value = _or_skip(manager.__enter__)
    try:
        yield value
    finally:
        manager.__exit__(None, None, None)


def _or_skip(make: Callable[[], T]) -> T:
    try:
        return make()
    except UnavailableError as error:
        pytest.skip(str(error))
