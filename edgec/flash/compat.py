"""Will the bundle run there? Everything that stands in the way, found before anything is touched.

`examine` is pure: the bundle's manifest, the device's facts, and what is going to be sent.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgec.bundle.manifest import Manifest
from edgec.devices.base import Facts
from edgec.errors import Finding, Severity

#: The successor first: where both are installed, the agent takes it.
STAND_INS = {"ai-edge-litert": ("tflite-runtime",)}
LOWEST_PYTHON = (3, 9)
#: Room that a device needs beside its releases: the record, logs, what the application writes meanwhile.
SLACK_BYTES = 4 << 20
#: A runtime takes this much beside the model, measured with LiteRT and numpy.
RUNTIME_RSS_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """The runtime that the device has: its distribution and version; empty when it has none."""

    package: str = ""
    version: str = ""


def installed_runtime(manifest: Manifest, facts: Facts) -> Installed:
    """The first of the runtimes the bundle can use that the device has."""
    for needed in manifest.requirements:
        for package in (needed, *STAND_INS.get(needed, ())):
            if package in facts.packages:
                return Installed(package=package, version=facts.packages[package])
    return Installed()


def runtime_problem(manifest: Manifest, facts: Facts) -> Finding | None:
    """Why the device's own runtime will not do; None when it will, or none is needed."""
    if not manifest.requirements:
        return None
    have = installed_runtime(manifest, facts)
    wanted = ", ".join(f"{package} >= {version}" for package, version in sorted(manifest.requirements.items()))
    hint = "let edgec bring it with --with-runtime always, or on the device: pip install " + " ".join(
        f"'{package}>={version}'" for package, version in sorted(manifest.requirements.items())
    )
    if not have.package or "numpy" not in facts.packages:
        missing = wanted if not have.package else "numpy"
        return Finding(code="flash/runtime-missing", message=f"the device has no {missing}", hint=hint)
    needed = manifest.requirements.get(have.package)
    if needed is not None and numbers(have.version) < numbers(needed):
        message = f"{have.package} {have.version} is installed, the bundle needs {needed}"
        return Finding(code="flash/runtime-too-old", message=message, hint=hint)
    if needed is None:
        late = _too_new(manifest.op_versions, have.version)
        if late:
            listing = "; ".join(late)
            message = f"{have.package} {have.version} is too old for the bundle: {listing}"
            return Finding(code="flash/runtime-too-old", message=message, hint=hint)
    return None


def examine(
    manifest: Manifest, facts: Facts, *, send_bytes: int, free_bytes: int, brings_runtime: bool
) -> list[Finding]:
    """Everything that stands in the way, and what is worth knowing. `send_bytes` includes what is unpacked there."""
    found = [
        _wrong_system(facts),
        _wrong_arch(manifest, facts),
        _features(manifest, facts),
        _python(facts, brings_runtime=brings_runtime),
        None if brings_runtime or not facts.python else runtime_problem(manifest, facts),
        _space(send_bytes, free_bytes),
        _memory(manifest, facts),
        _sys(manifest, facts),
    ]
    return [finding for finding in found if finding is not None]


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without trailing zeros: 2.1.0 and 2.1 are the same."""
    parts = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4]]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def python_too_old(facts: Facts) -> bool:
    """True when the device's Python cannot run the agent; so when it has none."""
    return numbers(facts.python)[:2] < LOWEST_PYTHON


@cache
def first_releases() -> Mapping[str, Mapping[int, str]]:
    """TensorFlow's release that first ran a version of an operator: `{operator: {version: release}}`."""
    table = tomllib.loads((Path(__file__).parent / "op_releases.toml").read_text(encoding="utf-8"))
    return {op: {int(version): release for version, release in rows.items()} for op, rows in table.items()}


def _too_new(op_versions: Mapping[str, int], have: str) -> list[str]:
    """Operators that a TensorFlow Lite runtime of that release does not know yet, with the release that does."""
    late = []
    for op, version in sorted(op_versions.items()):
        first = first_releases().get(op, {}).get(version)
        if first is not None and numbers(have) < numbers(first):
            late.append(f"{op} version {version} needs {first}")
    return late


def _wrong_system(facts: Facts) -> Finding | None:
    if facts.system.lower() in ("", "linux", "android"):
        return None
    message = f"the device runs {facts.system}; releases are made for Linux and Android"
    return Finding(code="flash/wrong-system", message=message, hint="take a device that runs one of them")


def _wrong_arch(manifest: Manifest, facts: Facts) -> Finding | None:
    wanted = manifest.target.hardware.arch
    same = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}
    have = same.get(facts.arch.lower(), facts.arch.lower())
    if have in ("", wanted):
        return None
    return Finding(
        code="flash/wrong-architecture",
        message=f"the bundle is for {manifest.target.id} ({wanted}), the device is {facts.arch}",
        hint="build it for the device: `edgec devices probe` names the fitting target",
    )


def _features(manifest: Manifest, facts: Facts) -> Finding | None:
    missing = sorted(set(manifest.target.hardware.features) - set(facts.features))
    if not missing or not facts.features:
        return None
    return Finding(
        code="flash/missing-features",
        message=f"the CPU lacks {', '.join(missing)}, which {manifest.target.id} has",
        severity=Severity.WARNING,
        hint="it may be slower than measured: `edgec devices probe` names the fitting target",
    )


def _python(facts: Facts, *, brings_runtime: bool) -> Finding | None:
    if not python_too_old(facts):
        return None
    have = f"has Python {facts.python}" if facts.python else "has no Python"
    return Finding(
        code="flash/no-python",
        message=f"the device {have}; the agent needs {'.'.join(map(str, LOWEST_PYTHON))} or later",
        severity=Severity.ERROR if brings_runtime else Severity.WARNING,
        hint="without it the files are installed and nothing can be checked there",
    )


def _space(send_bytes: int, free_bytes: int) -> Finding | None:
    if free_bytes >= send_bytes + SLACK_BYTES:
        return None
    return Finding(
        code="flash/no-space",
        message=f"the device has {free_bytes / 2**20:.1f} MiB free, "
        f"{(send_bytes + SLACK_BYTES) / 2**20:.1f} MiB are needed beside what runs there now",
        hint="free some space, or give a folder on another disk with --root",
    )


def _memory(manifest: Manifest, facts: Facts) -> Finding | None:
    model = sum(manifest.files[name].size for name in manifest.model_files)
    if not facts.memory_free_bytes or facts.memory_free_bytes >= model + RUNTIME_RSS_BYTES:
        return None
    return Finding(
        code="flash/no-memory",
        message=f"the device has {facts.memory_free_bytes / 2**20:.0f} MiB of memory available, the model and its "
        f"runtime need at least {(model + RUNTIME_RSS_BYTES) / 2**20:.0f} MiB",
        hint="stop what else runs there, or take a smaller model or precision",
    )


def _sys(manifest: Manifest, facts: Facts) -> Finding | None:
    if facts.sys_visible or not facts.python or manifest.backend != "tflite":
        return None
    return Finding(
        code="flash/no-sys",
        message="/sys is not mounted there: LiteRT will drop its fast kernels without a word",
        severity=Severity.WARNING,
        hint="mount -t sysfs sysfs /sys",
    )
