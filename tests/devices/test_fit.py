"""Which profile a device gets, and why not another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgec.devices.fit import check_device, check_target, fit_target
from edgec.errors import Severity
from edgec.targets.load import load_target
from tests.support import flashing

A53 = ("aes", "asimd", "cpuid", "crc32", "fp")
A76 = (*A53, "asimddp", "asimdhp", "asimdrdm", "atomics", "dcpop", "fphp", "lrcpc", "pmull", "sha1", "sha2")
X86 = ("avx", "avx2", "f16c", "fma", "sse4_2")
FACTS = replace(
    flashing.FACTS,
    arch="aarch64",
    cpu="Cortex-A72",
    cpus=4,
    features=A53,
    memory_bytes=3800 << 20,
    python="3.11.2",
    packages={"ai-edge-litert": "2.3.0"},
)


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"board": "Raspberry Pi 4 Model B Rev 1.4"}, "raspberrypi4"),
        ({}, "raspberrypi4"),
        ({"cpu": "Cortex-A76", "features": A76}, "raspberrypi5"),
        ({"cpu": "Cortex-A53", "memory_bytes": 920 << 20}, "raspberrypi3"),
        ({"cpu": "Cortex-A53", "memory_bytes": 460 << 20}, "raspberrypi-zero2w"),
        (
            {"cpu": "Cortex-A53", "board": "Raspberry Pi Zero 2 W Rev 1.0", "memory_bytes": 416 << 20},
            "raspberrypi-zero2w",
        ),
        ({"arch": "arm64"}, "raspberrypi4"),
        ({"libc": "bionic", "cpu": "Cortex-A55 × 4 + Cortex-A76 × 4", "features": A76}, "android-arm64"),
        ({"arch": "x86_64", "features": X86, "cpu": "AMD EPYC", "memory_bytes": 8 << 30}, "linux-x86_64"),
        ({"arch": "riscv64", "features": (), "cpu": ""}, ""),
        ({"cpu": "Neoverse-N1"}, ""),
    ],
)
def test_the_profile_that_fits(changes: dict[str, object], target: str) -> None:
    fit = fit_target(replace(FACTS, **changes))  # type: ignore[arg-type]
    assert fit.target == target
    assert fit.why
    assert target not in fit.refused


def test_every_profile_is_picked_or_refused_with_a_reason() -> None:
    fit = fit_target(FACTS)
    assert fit.refused["raspberrypi5"] == "the processor lacks " + ", ".join(sorted(set(A76) - set(A53)))
    assert fit.refused["raspberrypi3"] == "for Cortex-A53, it is Cortex-A72"
    assert "Android" in fit.refused["android-arm64"]
    assert fit.refused["linux-x86_64"] == "the device is aarch64"
    assert all(fit.refused.values())


def test_a_small_board_is_not_a_large_one() -> None:
    assert fit_target(replace(FACTS, memory_bytes=400 << 20)).refused["raspberrypi4"] == "it has less memory"


def test_a_chosen_profile_is_checked() -> None:
    assert check_target(FACTS, load_target("raspberrypi4")) == []
    (wrong,) = check_target(FACTS, load_target("linux-x86_64"))
    assert (wrong.code, wrong.severity) == ("device/wrong-target", Severity.ERROR)
    assert "aarch64" in wrong.message
    assert "avx2" in wrong.message
    (small,) = check_target(replace(FACTS, memory_bytes=400 << 20), load_target("raspberrypi4"))
    assert (small.code, small.severity) == ("device/less-memory", Severity.WARNING)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        ({"packages": {}}, ["device/no-runtime"]),
        ({"packages": {"tflite-runtime": "2.14.0"}}, []),
        ({"python": "", "packages": {}}, ["device/no-python"]),
        ({"sys_visible": False}, ["device/sys-hidden"]),
        ({"celsius": {"cpu": 84.0, "gpu": 30.0}}, ["device/hot"]),
        ({"celsius": {"cpu": 79.0}}, []),
        ({"emulated": "qemu-user"}, ["device/emulated"]),
    ],
)
def test_what_makes_one_wary(changes: dict[str, object], codes: list[str]) -> None:
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    findings = check_device(facts, load_target("raspberrypi4"))
    assert [finding.code for finding in findings] == codes
    assert all(finding.severity is not Severity.ERROR for finding in findings)
