"""Which hardware profile fits a device, and what stands between a device and a profile.

1. Architecture, Linux or Android, CPU features and memory must fit; a kernel keeps some of the memory for itself.
2. Of those that fit, in this order: the one whose title the board bears, whose core the processor is, that promises
   the most features, that has the same number of cores, and the most memory.
3. A profile that names a core fits that core alone, unless the board bears its title; profiles of accelerators are
   never picked, because a processor does not say what is plugged in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edgec.devices.base import Facts
from edgec.errors import Finding, Severity
from edgec.targets.load import list_targets, load_target
from edgec.targets.profile import Target

#: The share of a board's memory that Linux shows at least; the rest is the kernel's and the GPU's.
_VISIBLE_SHARE = 0.75
_HOT_CELSIUS = 80.0
_SAME_ARCH = {"arm64": "aarch64", "amd64": "x86_64", "armv8l": "armv7l"}
_CORE = re.compile(r"(Cortex|Neoverse)-\w+")
_SUCCESSORS = {"ai-edge-litert": ("ai-edge-litert", "tflite-runtime", "tensorflow")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The profile that fits best, empty when none does, and why it or why not the others."""

    target: str
    why: str
    others: tuple[str, ...]
    refused: dict[str, str]


def fit_target(facts: Facts) -> Fit:
    """Pick a profile."""
    refused: dict[str, str] = {}
    fitting: list[tuple[tuple[float, ...], Target, str]] = []
    for target in map(load_target, list_targets()):
        problem = _misfit(facts, target)
        if problem:
            refused[target.id] = problem
            continue
        rank, reason = _rank(facts, target)
        fitting.append((rank, target, reason))
    fitting.sort(key=lambda entry: (entry[0], entry[1].id), reverse=True)
    if not fitting:
        return Fit(
            target="", why=f"no profile is for {facts.arch or 'an unknown architecture'}", others=(), refused=refused
        )
    _, best, why = fitting[0]
    return Fit(target=best.id, why=why, others=tuple(target.id for _, target, _ in fitting[1:]), refused=refused)


def check_target(facts: Facts, target: Target) -> list[Finding]:
    """What stands between the device and a profile that the user has chosen."""
    problems = [problem for problem in (_wrong_arch(facts, target), _lacks(facts, target)) if problem]
    message = "; ".join([*problems, f"{target.id} does not fit"])
    findings = [Finding(code="device/wrong-target", message=message)] if problems else []
    if facts.memory_bytes and facts.memory_bytes < _VISIBLE_SHARE * target.hardware.memory_bytes:
        have, need = facts.memory_bytes >> 20, target.hardware.memory_bytes >> 20
        findings.append(_warning("device/less-memory", f"it has {have} MiB of memory, {target.id} {need} MiB"))
    return findings


def check_device(facts: Facts, target: Target | None) -> list[Finding]:
    """What a device itself makes one wary of."""
    findings: list[Finding] = []
    if target and facts.python:
        findings += _runtime(facts, target)
    if not facts.python:
        hint = "files can be installed; the agent, and with it the proof, needs Python 3.9 or later there"
        findings.append(_warning("device/no-python", "it has no Python", hint))
    if not facts.sys_visible:
        hint = "mount /sys (in a container or chroot); LiteRT cannot see the processor and drops its fast kernels"
        findings.append(_warning("device/sys-hidden", "/sys is not visible there", hint))
    hottest = max(facts.celsius.items(), key=lambda zone: zone[1], default=("", 0.0))
    if hottest[1] >= _HOT_CELSIUS:
        message = f"{hottest[0]} is at {hottest[1]:.0f} °C: it may be slowed down now"
        findings.append(_warning("device/hot", message, "let it cool down before measuring"))
    if facts.emulated:
        findings.append(
            Finding(
                code="device/emulated",
                message=f"it is emulated ({facts.emulated}): results hold, times do not",
                severity=Severity.INFO,
            )
        )
    return findings


def _runtime(facts: Facts, target: Target) -> Iterable[Finding]:
    runtime = target.backends[target.default_backend].runtime
    names = _SUCCESSORS.get(runtime.package, (runtime.package,))
    if not any(name in facts.packages for name in names):
        hint = f"`edgec flash` brings it along, or: pip install '{runtime.package}>={runtime.min_version}'"
        yield _warning("device/no-runtime", f"{runtime.package} is not installed", hint)


def _misfit(facts: Facts, target: Target) -> str:
    """Rules 1 and 3."""
    android = facts.libc == "bionic"
    backend = target.backends[target.default_backend]
    if target.npu is not None or backend.runtime.engine:
        return "an accelerator, which is chosen by name"
    if android != target.id.startswith("android"):
        return "for Android" if not android else "not for Android"
    problem = _wrong_arch(facts, target) or _lacks(facts, target)
    if problem:
        return problem
    core = _CORE.search(target.hardware.cpu)
    if core and core[0] not in facts.cpu and not _bears(facts, target):
        return f"for {core[0]}, it is {facts.cpu or 'not known'}"
    if facts.memory_bytes and facts.memory_bytes < _VISIBLE_SHARE * target.hardware.memory_bytes:
        return "it has less memory"
    return ""


def _wrong_arch(facts: Facts, target: Target) -> str:
    have = _SAME_ARCH.get(facts.arch.lower(), facts.arch.lower())
    return "" if have == target.hardware.arch else f"the device is {have or 'of unknown architecture'}"


def _lacks(facts: Facts, target: Target) -> str:
    missing = sorted(set(target.hardware.features) - set(facts.features))
    return f"the processor lacks {', '.join(missing)}" if missing and facts.features else ""


def _bears(facts: Facts, target: Target) -> bool:
    title = target.title.partition(" (")[0].lower()
    return re.search(rf"\b{re.escape(title)}\b", facts.board.lower()) is not None


def _rank(facts: Facts, target: Target) -> tuple[tuple[float, ...], str]:
    """Rule 2."""
    hardware = target.hardware
    core = _CORE.search(hardware.cpu)
    board, same_core = _bears(facts, target), bool(core and core[0] in facts.cpu)
    reasons = [f"its board is a {facts.board}"] if board else []
    reasons += [f"its processor is a {core[0]}"] if core and same_core else []
    reasons += [] if board or same_core else [f"it is {hardware.arch} with all that the profile asks for"]
    rank = (board, same_core, len(hardware.features), hardware.cores == facts.cpus, hardware.memory_bytes)
    return tuple(map(float, rank)), " and ".join(reasons)


def _warning(code: str, message: str, hint: str = "") -> Finding:
    return Finding(code=code, message=message, severity=Severity.WARNING, hint=hint)
