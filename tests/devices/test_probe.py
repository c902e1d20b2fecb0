"""What a device says of itself, understood: from real ones, and from the files of ones that no lab has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgec.devices.base import ExecResult
from edgec.devices.kinds.local import LocalDevice
from edgec.devices.probe import PACKAGES, probe
from edgec.errors import EdgecError
from tests.support.devlab import connected
from tools.devlab.phone import Phone
from tools.devlab.sshd import Server

CORE = "processor\t: {n}\nFeatures\t: {flags}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
PI4 = {
    "/proc/cpuinfo": "".join(CORE.format(n=n, flags="fp asimd crc32", part="0xd08") for n in range(4))
    + "Hardware\t: BCM2835\nModel\t: Raspberry Pi 4\n",
    "/proc/meminfo": "MemTotal:        1892300 kB\nMemFree:  100 kB\nMemAvailable:    1500000 kB\n",
    "/proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "/proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "/sys/devices/system/cpu/possible": "0-3\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "/sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone0/temp": "48200\n",
    "/sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
    "/sys/class/thermal/thermal_zone1/temp": "83000\n",
}
SAID = {
    "system": "Linux",
    "kernel": "6.6.31+rpt-rpi-v8",
    "arch": "aarch64",
    "bits": 64,
    "cpus": 4,
    "libc": "glibc 2.36",
    "python": "3.11.2",
    "packages": {"numpy": "1.26.4"},
    "program": "/usr/bin/python3.11",
    "files": PI4,
}


class Fake(LocalDevice):
    """This machine, giving a device's answers."""

    def __init__(self, answer: Mapping[str, Any] | None, shell: str = "") -> None:
        super().__init__(name="fake")
        self._answer, self._shell = answer, shell

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        if argv[0] == "sh":
            return ExecResult(returncode=0, stdout=self._shell.encode(), stderr="")
        if self._answer is None:
            raise EdgecError("device/missing", "there is no command 'python3'")
        return ExecResult(returncode=0, stdout=json.dumps(self._answer).encode(), stderr="")


def said(**changes: Any) -> Fake:
    files = {**PI4, **changes.pop("files", {})}
    return Fake({**SAID, **changes, "files": {path: text for path, text in files.items() if text is not None}})


def test_a_raspberry_pi() -> None:
    facts = probe(said())
    assert (facts.board, facts.cpu, facts.cpus) == ("Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72", 4)
    assert facts.features == ("asimd", "crc32", "fp")
    assert (facts.memory_bytes, facts.memory_free_bytes) == (1892300 * 1024, 1500000 * 1024)
    assert (facts.cpu_mhz, facts.governor) == (1500.0, "ondemand")
    assert facts.celsius == {"cpu-thermal": 48.2, "cpu-thermal-1": 83.0}
    assert facts.packages == {"numpy": "1.26.4"}
    assert (facts.sys_visible, facts.emulated) == (True, "")
    assert facts.disk_free_bytes > 0


def test_two_kinds_of_cores_share_what_both_have() -> None:
    big = CORE.format(n=4, flags="fp asimd asimddp", part="0xd0b") * 2
    small = "".join(CORE.format(n=n, flags="fp asimd", part="0xd05") for n in range(4))
    facts = probe(said(files={"/proc/cpuinfo": small + big}, cpus=6))
    assert facts.cpu == "Cortex-A55 × 4 + Cortex-A76 × 2"
    assert facts.features == ("asimd", "fp")


def test_a_core_that_is_not_known_is_shown_by_its_numbers() -> None:
    facts = probe(said(files={"/proc/cpuinfo": CORE.format(n=0, flags="fp", part="0xfff")}))
    assert facts.cpu == "ARM implementer 0x41 part 0xfff"


def test_32_bit_programs_on_a_64_bit_kernel_are_a_32_bit_device() -> None:
    assert probe(said(bits=32)).arch == "armv7l"
    assert probe(said(bits=32, arch="x86_64")).arch == "i686"


@pytest.mark.parametrize(
    ("changes", "emulator"),
    [
        ({"program": "/opt/qemu-aarch64"}, "qemu-user"),
        ({"program": "/opt/qemu-aarch64-static (deleted)"}, "qemu-user"),
        ({"files": {"/proc/device-tree/compatible": "linux,dummy-virt\0"}}, "qemu-system"),
        ({"files": {"/proc/cpuinfo": "processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\n"}}, "qemu-system"),
        ({"program": "/home/qemu/bin/python3"}, ""),
    ],
)
def test_emulation_is_recognised(changes: dict[str, Any], emulator: str) -> None:
    assert probe(said(**changes)).emulated == emulator


def test_a_hidden_sys_is_noticed() -> None:
    assert not probe(said(files={"/sys/devices/system/cpu/possible": None})).sys_visible


def test_nothing_known_stays_empty() -> None:
    facts = probe(Fake({**SAID, "files": {}, "packages": {}, "cpus": 0}))
    assert (facts.cpu, facts.cpus, facts.features, facts.memory_bytes) == ("", 0, (), 0)
    assert (facts.celsius, facts.cpu_mhz, facts.governor, facts.board) == ({}, None, "", "")


def test_a_phone_without_python_answers_by_its_shell() -> None:
    shell = "system Linux\nkernel 5.10\narch aarch64\nbits 64\nlibc \nlibc bionic\nboard Pixel 6\nprogram /x/toybox\n"
    shell += "".join(f"edgec:file {path}\n{text}\n" for path, text in PI4.items() if "device-tree" not in path)
    facts = probe(Fake(None, shell))
    assert (facts.libc, facts.board, facts.python, facts.cpu) == ("bionic", "Pixel 6", "", "Cortex-A72")
    assert facts.cpus == 4
    assert facts.celsius["cpu-thermal"] == 48.2


def test_a_python_that_does_not_start_counts_as_none() -> None:
    class Broken(Fake):
        def exec(self, argv: Sequence[str], **options: Any) -> ExecResult:
            if argv[0] == "sh":
                return super().exec(argv, **options)
            return ExecResult(returncode=127, stdout=b"", stderr="libpython3.11.so: cannot open shared object file")

    facts = probe(Broken(None, "system Linux\narch aarch64\n"))
    assert (facts.system, facts.python) == ("Linux", "")


def test_this_machine() -> None:
    facts = probe(connected("here", "local"))
    assert facts.cpus >= 1
    assert facts.memory_bytes > 1 << 20
    assert facts.packages["numpy"]
    assert set(facts.packages) <= set(PACKAGES)
    assert facts.emulated == ""


def test_the_shell_says_what_python_says(sshd: Server, tmp_path: Path) -> None:
    """Two ways of asking the same machine."""
    options = {**sshd.options, "home": str(tmp_path)}
    with connected("far", sshd.address, **options) as device:
        by_python = probe(device)
    with connected("far", sshd.address, **options, python=["no-python"]) as device:
        by_shell = probe(device)
    assert by_python.python
    assert by_shell.python == ""
    for name in ("system", "kernel", "arch", "libc", "cpu", "cpus", "features", "memory_bytes", "sys_visible", "board"):
        assert getattr(by_python, name) == getattr(by_shell, name), name


@pytest.mark.parametrize(
    ("fixture", "cpu"), [("pi4", "Cortex-A72"), ("pi5", "Cortex-A76"), ("phone_arm64", "Cortex-A76")]
)
def test_emulated_devices(fixture: str, cpu: str, request: pytest.FixtureRequest) -> None:
    lab = request.getfixturevalue(fixture)
    with connected(fixture, lab.address, **lab.options) as device:
        facts = probe(device)
    assert (facts.arch, facts.cpu, facts.emulated) == ("aarch64", cpu, "qemu-user")
    assert facts.packages["ai-edge-litert"]
    assert facts.libc.startswith("glibc 2.")
    assert facts.sys_visible


def test_a_real_phone_without_python(phone: Phone) -> None:
    with connected("phone", phone.address, **phone.options) as device:
        facts = probe(device)
    assert (facts.system, facts.python) == ("Linux", "")
    assert facts.cpus >= 1
    assert facts.memory_bytes > 1 << 20
