"""Unpack Debian packages of any architecture into a folder: apt with a state of its own, nothing installed or run.

1. The mirror is the machine's own, read from apt's configuration; its proxies hold here too.
2. apt resolves the dependencies against an empty system, so the closure is complete, down to libc.
3. Packages are unpacked, never configured: no maintainer script runs, no root is needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from tools.devlab.common import UnavailableError, cache, locked, program, run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITES = ("bookworm", "bookworm-backports")
_CONFIG = """\
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Default-Release "{release}";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
"""


def mirror() -> str:
    """The Debian mirror that apt is configured for. Raises `UnavailableError`."""
    program("apt-get")
    found = _mirrors()
    if not found and os.geteuid() == 0:  # a fresh machine has no lists, and without them apt names no targets
        with locked("apt-system"):
            found = _mirrors()
            if not found:
                run(["apt-get", "-qq", "update"])
                found = _mirrors()
    if not found:
        raise UnavailableError("apt knows no mirror yet (run apt-get update)")
    if not _KEYRING.is_file():
        raise UnavailableError("debian-archive-keyring is not installed")
    return found[0]


def _mirrors() -> list[str]:
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    return sorted({uri for uri in listed if "security" not in uri})


def unpack(
    packages: Sequence[str],
    into: Path,
    *,
    arch: str,
    release: str = "bookworm-backports",
    without: Collection[str] = (),
    only: bool = False,
) -> None:
    """Packages into a merged-/usr tree, with all they depend on, `without` some; or `only` they themselves."""
    folder = _state(arch, release)
    env = {"APT_CONFIG": str(folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (into / name).exists():
            (into / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        archives = Path(place)
        (archives / "partial").mkdir()
        if only:  # apt-get download takes single packages
            run(["sh", "-c", 'cd "$0" && apt-get -qq download "$@"', archives, *packages], env=env)
        else:
            with locked(f"apt-{arch}-{release}"):
                to = f"Dir::Cache::archives={archives}"
                run(["apt-get", "-qq", "-y", "--download-only", "-o", to, "install", *packages], env=env)
        for deb in sorted(archives.glob("*.deb")):
            if deb.name.partition("_")[0] not in without:
                script = 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --no-same-owner -C "$2"'
                run(["sh", "-c", script, "sh", deb, into])


def _state(arch: str, release: str) -> Path:
    """apt's own folder for one architecture, its lists fetched once."""
    folder = cache() / "apt" / f"{arch}-{release}"
    with locked(f"apt-{arch}-{release}"):
        if (folder / "updated").exists():
            return folder
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        suites = "".join(f"deb [signed-by={_KEYRING}] {mirror()} {suite} main\n" for suite in _SUITES)
        (folder / "sources.list").write_text(suites)
        (folder / "apt.conf").write_text(_CONFIG.format(arch=arch, release=release, folder=folder))
        run(["apt-get", "-qq", "update"], env={"APT_CONFIG": str(folder / "apt.conf")})
        (folder / "updated").touch()
    return folder


def install(packages: Sequence[str]) -> None:
    """Install packages on this machine, for the few that must be. Raises `UnavailableError`."""
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    with locked("apt-system"):
        if not list(Path("/var/lib/apt/lists").glob("*_Packages*")):
            run(["apt-get", "-qq", "update"], env=env)
        run(["apt-get", "-qq", "-y", "install", "--no-install-recommends", *packages], env=env)
