"""The runtime that travels: wheels for the device's own Python, architecture and C library, made one archive here.

1. pip chooses and downloads them on this machine, for the device's tags; the device needs no network.
2. The version that the bundle names comes first, or the one installed here, which goldens were likely made with; then
   the newest that the bundle allows.
3. The archive is named after what is in it; it is kept in the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from edgec.devices.base import Facts
from edgec.errors import EdgecError
from edgec.flash.compat import numbers

#: glibc versions that wheels are built for, and the name that the oldest has beside.
_GLIBC = (17, 24, 27, 28, 31, 34, 35, 39)
_LEGACY = {17: "manylinux2014"}
_DATE = (1980, 1, 1, 0, 0, 0)
_TIMEOUT_S = 900.0
#: Devices of one kind need one archive: the first fetches it, the others find it.
_fetching = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeArchive:
    """A zip of Python packages, the digest of what is in it, and how much that is."""

    path: Path
    digest: str
    sha256: str
    unpacked_bytes: int
    packages: Mapping[str, str]


def cache_folder() -> Path:
    """Where archives are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgec" / "runtimes"


def tags(facts: Facts) -> tuple[str, ...]:
    """Platform tags of wheels that run there, the newest first. Raises `flash/no-wheel` for another C library."""
    libc, _, version = facts.libc.partition(" ")
    have = numbers(version)
    arch = {"arm64": "aarch64", "amd64": "x86_64"}.get(facts.arch.lower(), facts.arch.lower())
    if libc != "glibc" or have[:1] != (2,) or len(have) < 2:
        raise EdgecError(
            "flash/no-wheel",
            f"there are no wheels of the runtimes for {facts.libc or 'a C library that is not known'}",
            hint="use a device with glibc, or build the runtime there and flash with --with-runtime never",
        )
    fitting = [minor for minor in _GLIBC if minor <= have[1]]
    names = [name for m in reversed(fitting) for name in (f"manylinux_2_{m}_{arch}", *_legacy(m, arch))]
    return (*names, f"linux_{arch}")


def _legacy(minor: int, arch: str) -> tuple[str, ...]:
    return (f"{_LEGACY[minor]}_{arch}",) if minor in _LEGACY else ()


def fetch_runtime(
    requirements: Mapping[str, str], facts: Facts, *, preferred: Mapping[str, str], cache: Path | None = None
) -> RuntimeArchive:
    """The archive for a device. Raises `EdgecError`: flash/no-wheel, flash/no-pip, env/…, io/…"""
    places = cache or cache_folder()
    known = {**_here(requirements), **preferred}
    exact = {name: f"{name}=={known[name]}" for name in requirements if name in known}
    lowest = {name: f"{name}>={version}" for name, version in requirements.items()}
    choices = [{**lowest, **exact}, lowest] if exact else [lowest]  # rule 2
    wheel_tags = tags(facts)
    with _fetching:
        return _fetched(choices, wheel_tags, facts, places)


def _fetched(choices: list[dict[str, str]], wheel_tags: tuple[str, ...], facts: Facts, places: Path) -> RuntimeArchive:
    """From the cache, or by pip, the first choice that there is."""
    python = ".".join(facts.python.split(".")[:2])
    problem = ""
    for choice in choices:
        wanted = (*sorted(choice.values()), "numpy")
        key = hashlib.sha256(json.dumps([wanted, wheel_tags, python]).encode()).hexdigest()[:16]
        kept = _kept(places / key)
        if kept is not None:
            return kept
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            problem = _pip(wanted, wheel_tags, python, Path(folder, "site"))
            if not problem:
                return _archive(Path(folder, "site"), places / key)
    wanted_at_least = ", ".join(sorted(choices[-1].values()))
    raise EdgecError(
        "flash/no-wheel",
        f"no wheels of {wanted_at_least} for Python {python}, {facts.arch}, {facts.libc}: {problem}",
        hint="the runtime needs a newer glibc or another Python than the device has, or there is no network here; "
        "a device that has the runtime already is flashed with --with-runtime never",
    )


def _here(requirements: Mapping[str, str]) -> dict[str, str]:
    """Versions of the runtimes installed here, where they satisfy the bundle."""
    found = {}
    for name, lowest in requirements.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if numbers(version) >= numbers(lowest):
            found[name] = version
    return found


def _pip(wanted: tuple[str, ...], wheel_tags: tuple[str, ...], python: str, site: Path) -> str:
    """Install wheels for another machine into a folder; what pip says when it cannot, else nothing."""
    if importlib.util.find_spec("pip") is None:
        raise EdgecError("flash/no-pip", "pip is not installed here", hint=f"{sys.executable} -m ensurepip")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-input", "--only-binary=:all:", "--target", str(site), "--implementation", "cp"]
    command += ["--python-version", python, "--abi", "cp" + python.replace(".", ""), "--abi", "abi3", "--abi", "none"]
    command += [option for tag in wheel_tags for option in ("--platform", tag)]
    try:
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"pip was not finished within {_TIMEOUT_S:g} s"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (lines[-1] if lines else done.stderr.strip()[-300:]).removeprefix("ERROR: ")


def _kept(place: Path) -> RuntimeArchive | None:
    """An archive made before, if it is still what it was."""
    try:
        facts = json.loads((place / "runtime.json").read_text(encoding="utf-8"))
        with (place / "runtime.zip").open("rb") as stream:
            whole = hashlib.file_digest(stream, "sha256").hexdigest() == facts["sha256"]
        return RuntimeArchive(path=place / "runtime.zip", **facts) if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _archive(site: Path, place: Path) -> RuntimeArchive:
    """Pack a folder of packages: the same packages give the same bytes."""
    for useless in (site / "bin", *site.rglob("__pycache__")):
        shutil.rmtree(useless, ignore_errors=True)
    packages = {}
    for info in sorted(site.glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        packages[name.replace("_", "-").lower()] = version
    place.mkdir(parents=True, exist_ok=True)
    listing, unpacked = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=place, delete=False) as stream:
        temporary = Path(stream.name)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in site.rglob("*") if p.is_file()):
                name, data = path.relative_to(site).as_posix(), path.read_bytes()
                archive.writestr(zipfile.ZipInfo(name, _DATE), data, zipfile.ZIP_DEFLATED, 6)
                listing.update(f"{hashlib.sha256(data).hexdigest()} {name}\n".encode())
                unpacked += len(data)
    with temporary.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    temporary.replace(place / "runtime.zip")
    made = RuntimeArchive(
        path=place / "runtime.zip",
        digest=listing.hexdigest()[:16],
        sha256=sha256,
        unpacked_bytes=unpacked,
        packages=packages,
    )
    facts = {key: value for key, value in asdict(made).items() if key != "path"}
    part = place / f"runtime.json.{os.getpid()}"
    part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    part.replace(place / "runtime.json")
    return made
