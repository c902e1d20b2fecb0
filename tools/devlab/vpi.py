"""A Raspberry Pi's user-land without the Pi: arm64 Debian files, aarch64 wheels, and a QEMU that runs their programs.

Debian 12's own QEMU 7.2 crashes LiteRT 2.2 and later, so QEMU comes from its backports.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from tools.devlab import debs
from tools.devlab.common import ROOT, cache, existing, prepared, run

#: Change it with whatever is made here.
RECIPE = "5"
#: Debian 12's Python.
PYTHON = "3.11"
_PACKAGES = ("python3", "libstdc++6", "busybox-static", "adbd")
_GLIBC = (17, 27, 28, 31, 34, 35)


def prepare() -> Path:
    """The folder `vpi`: qemu-aarch64, root (arm64 files), site (LiteRT and numpy for it)."""
    return prepared("vpi", RECIPE, _make)


def existing_vpi() -> Path:
    """The prepared folder. Raises `UnavailableError`."""
    return existing("vpi", RECIPE)


def _make(folder: Path) -> None:
    native = "arm64" if platform.machine() == "aarch64" else "amd64"
    unpacked = folder / "unpacked"
    debs.unpack(["qemu-user"], unpacked, arch=native, only=True)
    shutil.move(unpacked / "usr/bin/qemu-aarch64", folder / "qemu-aarch64")
    shutil.rmtree(unpacked)
    debs.unpack(_PACKAGES, folder / "root", arch="arm64")
    _fill(folder / "root")
    wheels(folder / "site")
    _compile(folder)


def wheels(site: Path, *, arch: str = "aarch64") -> None:
    """LiteRT and numpy for Debian's Python, in the versions that this machine's tests use."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", PYTHON, "--abi", f"cp{PYTHON.replace('.', '')}"]
    for minor in _GLIBC:
        command += ["--platform", f"manylinux_2_{minor}_{arch}"]
    run([*command, "--constraint", ROOT / "constraints.txt", "ai-edge-litert", "numpy"])


def _compile(folder: Path) -> None:
    """Python's byte code, which every start would make again: by this machine's Python if it is the same one."""
    same = f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON
    library = folder / "root" / "usr" / "lib" / f"python{PYTHON}"
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(folder / "site")}
    if same:
        run([sys.executable, "-m", "compileall", "-q", "-j", "2", library, "-s", folder / "root"], env=env)
    else:  # what LiteRT needs is enough: the emulator is slow
        guest: list[str | Path] = [
            folder / "qemu-aarch64",
            "-L",
            folder / "root",
            folder / "root/usr/bin" / f"python{PYTHON}",
        ]
        run([*guest, "-c", "import numpy, ai_edge_litert.interpreter"], env=env)


def _fill(root: Path) -> None:
    """What the packages' scripts would have made, for a chroot: a shell, users, folders to mount on."""
    (root / "bin" / "python").symlink_to("python3")
    for applet in run([cache() / "vpi" / "qemu-aarch64", root / "bin" / "busybox", "--list"]).split():
        place = root / "usr" / "bin" / applet
        if not place.exists() and not place.is_symlink():
            place.symlink_to("busybox")
    # sshd starts the shell that this machine's user has.
    for shell in ("bash", "dash", "zsh"):
        (root / "bin" / shell).write_text('#!/bin/sh\nexec /bin/sh "$@"\n')
        (root / "bin" / shell).chmod(0o755)
    for name in ("proc", "sys", "dev", "tmp", "root", "run", "small", "data/local/tmp", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
