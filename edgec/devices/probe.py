"""What a device is: processor, memory, C library, Python, runtimes, temperature, and whether it is real.

1. The device hands over files of /proc and /sys as they are, read by its Python or, without one, by its shell; they
   are understood here, the same way for both.
2. A 64-bit kernel under 32-bit user-land is a 32-bit device: Python's own word size decides.
3. qemu-user answers for /proc/self, not for /proc/thread-self, which still names the emulator.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgec.devices import survey
from edgec.devices.base import Facts, Transport
from edgec.errors import EdgecError

#: The distributions that matter to a bundle.
PACKAGES = ("ai-edge-litert", "tflite-runtime", "tensorflow", "openvino", "numpy")
_TIMEOUT_S = 120.0
_CPU = "/sys/devices/system/cpu"
_BOARDS = ("/proc/device-tree/model", "/sys/firmware/devicetree/base/model", "/sys/class/dmi/id/product_name")
_FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    *_BOARDS,
    "/proc/device-tree/compatible",
    f"{_CPU}/possible",
    f"{_CPU}/cpu0/cpufreq/scaling_cur_freq",
    f"{_CPU}/cpu0/cpufreq/scaling_governor",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
    "/etc/alpine-release",
)
#: Arm's part numbers (Arm technical reference manuals, MIDR_EL1), as /proc/cpuinfo gives them; implementer 0x41.
_ARM_PARTS = {
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD01: "Cortex-A32",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD41: "Cortex-A78",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD48: "Cortex-X2",
    0xD4D: "Cortex-A715",
    0xD4E: "Cortex-X3",
    0xD80: "Cortex-A520",
    0xD81: "Cortex-A720",
}
#: The same questions for a shell; each line is `key value`, each file follows a line with a mark.
_SHELL = """\
echo "system $(uname -s)"; echo "kernel $(uname -r)"; echo "arch $(uname -m)"
echo "bits $(getconf LONG_BIT 2>/dev/null)"
echo "libc $(getconf GNU_LIBC_VERSION 2>/dev/null)"
[ -e /system/bin/linker64 ] && echo "libc bionic"
for f in /lib/ld-musl-*; do [ -e "$f" ] && echo "libc musl"; done
echo "board $(getprop ro.product.model 2>/dev/null)"
echo "program $(readlink /proc/thread-self/exe 2>/dev/null)"
for f in FILES; do if [ -r "$f" ]; then echo "MARK $f"; cat "$f"; echo; fi; done
"""
_MARK = "edgec:file"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What the device said, by whichever way."""

    system: str = ""
    kernel: str = ""
    arch: str = ""
    bits: int = 0
    cpus: int = 0
    libc: str = ""
    board: str = ""
    program: str = ""
    python: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def probe(device: Transport) -> Facts:
    """Ask a device. Raises `EdgecError` (device/…) when it cannot be reached; what it does not say stays empty."""
    answer = _by_python(device) or _by_shell(device)
    memory = {key: _leading(value) * 1024 for key, value in _fields(answer.files.get("/proc/meminfo", ""))}
    processors = list(_processors(answer.files.get("/proc/cpuinfo", "")))
    frequency = _leading(answer.files.get(f"{_CPU}/cpu0/cpufreq/scaling_cur_freq", ""))
    facts = Facts(
        system=answer.system,
        kernel=answer.kernel,
        arch=_arch(answer),
        libc=answer.libc or _other_libc(answer),
        board=answer.board or _board(answer.files),
        cpu=_cpu_name(processors),
        cpus=answer.cpus or len(processors),
        features=_features(processors),
        memory_bytes=memory.get("MemTotal", 0),
        memory_free_bytes=memory.get("MemAvailable", memory.get("MemFree", 0)),
        disk_free_bytes=device.free_bytes(device.home),
        python=answer.python,
        packages=dict(answer.packages),
        sys_visible=f"{_CPU}/possible" in answer.files,
        celsius=_celsius(answer.files),
        cpu_mhz=frequency / 1000 if frequency else None,
        governor=answer.files.get(f"{_CPU}/cpu0/cpufreq/scaling_governor", "").strip(),
        emulated="",
    )
    return replace(facts, emulated=_emulator(answer, facts))


def _by_python(device: Transport) -> _Answer | None:
    source = Path(survey.__file__).read_text(encoding="utf-8")
    command = [*device.python, "-c", source, json.dumps(_FILES), json.dumps(PACKAGES)]
    try:
        result = device.exec(command, timeout_s=_TIMEOUT_S)
    except EdgecError as error:
        if error.code != "device/missing":
            raise
        return None
    if result.timed_out:
        raise EdgecError("device/timeout", f"{device.name} did not answer within {_TIMEOUT_S:g} s", where=device.name)
    try:
        said: dict[str, Any] = json.loads(result.stdout)
    except ValueError:  # no Python, or none that runs
        return None
    return _Answer(**said)


def _by_shell(device: Transport) -> _Answer:
    script = _SHELL.replace("FILES", " ".join(_FILES)).replace("MARK", _MARK)
    result = device.exec(["sh", "-c", script], timeout_s=_TIMEOUT_S)
    head, *parts = result.stdout.decode("utf-8", "replace").split(f"{_MARK} ")
    pairs = (line.partition(" ")[::2] for line in head.splitlines())
    values = {key: value.strip() for key, value in pairs if value.strip()}
    files = {path: text for path, _, text in (part.partition("\n") for part in parts)}
    bits = int(values.pop("bits", "0") or 0)
    known = {key: value for key, value in values.items() if key in _Answer.__dataclass_fields__}
    return _Answer(**known, bits=bits, files=files)  # type: ignore[arg-type]  # all of them are texts


def _arch(answer: _Answer) -> str:
    """Rule 2."""
    narrow = {"aarch64": "armv7l", "arm64": "armv7l", "x86_64": "i686"}
    return narrow.get(answer.arch, answer.arch) if answer.bits == 32 else answer.arch


def _other_libc(answer: _Answer) -> str:
    return "musl" if "/etc/alpine-release" in answer.files else ""


def _emulator(answer: _Answer, facts: Facts) -> str:
    """Rule 3 for user-land; a whole virtual board calls itself one, and so does QEMU's processor."""
    if "qemu" in Path(answer.program).name:
        return "qemu-user"
    compatible = answer.files.get("/proc/device-tree/compatible", "")
    virtual = "dummy-virt" in compatible or facts.cpu.startswith(("QEMU TCG", "QEMU Virtual"))
    return "qemu-system" if virtual else ""


def _board(files: Mapping[str, str]) -> str:
    names = (files.get(path, "").strip("\0\n ") for path in _BOARDS)
    return next((name for name in names if name), "")


def _fields(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    return [(key.strip(), value.strip()) for key, value in pairs]


def _processors(text: str) -> list[dict[str, str]]:
    """One table a processor; Linux starts each with `processor`."""
    tables: list[dict[str, str]] = []
    for key, value in _fields(text):
        if key == "processor" and value.isdigit():
            tables.append({})
        if tables:
            tables[-1].setdefault(key, value)
    return tables


def _cpu_name(processors: list[dict[str, str]]) -> str:
    """`Cortex-A55 × 4 + Cortex-A76 × 4`, or the name that an x86 gives itself."""
    names = Counter(_core(table) for table in processors)
    names.pop("", None)
    if len(names) == 1:
        return next(iter(names))
    return " + ".join(f"{name} × {count}" for name, count in sorted(names.items()))


def _core(table: Mapping[str, str]) -> str:
    try:
        implementer, part = int(table.get("CPU implementer", ""), 16), int(table.get("CPU part", ""), 16)
    except ValueError:
        return table.get("model name", "")
    if implementer == 0x41 and part in _ARM_PARTS:
        return _ARM_PARTS[part]
    return f"ARM implementer {implementer:#x} part {part:#x}"


def _features(processors: list[dict[str, str]]) -> tuple[str, ...]:
    """Flags that all cores have."""
    sets = [set((table.get("flags") or table.get("Features") or "").split()) for table in processors]
    return tuple(sorted(set.intersection(*sets))) if sets else ()


def _celsius(files: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for path, text in files.items():
        zone = re.fullmatch(r"(/sys/class/thermal/thermal_zone(\d+))/temp", path)
        if zone and re.fullmatch(r"-?\d+\s*", text):
            name = files.get(f"{zone[1]}/type", "").strip() or f"zone{zone[2]}"
            found[name if name not in found else f"{name}-{zone[2]}"] = int(text) / 1000
    return found


def _leading(text: str) -> int:
    number = re.match(r"\s*(\d+)", text)
    return int(number[1]) if number else 0
