"""An emulated ARM machine's user-land: `qemu:cortex-a72` runs genuine aarch64 programs under qemu-user, files are here.

1. A command's name is looked up in the root's PATH, or is a path below it or here; its files are this machine's.
2. A program it starts in turn must be for this machine, unless the kernel runs aarch64 files through binfmt_misc.
3. Times mean nothing, results are exact: int8 kernels give the same bits as on the core that QEMU models.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgec.devices.base import ExecResult, Transport
from edgec.devices.files import LocalFiles
from edgec.devices.options import KindOptions, Place
from edgec.devices.process import run_process
from edgec.errors import EdgecError

_FOLDERS = ("usr/local/bin", "usr/bin", "bin", "usr/sbin", "sbin")
_HINT = "run `make devlab` in a checkout of edgec, or name `qemu`, `root` and `site` in devices.toml"


class Options(KindOptions):
    """What the inventory may say: the emulator, the root of aarch64 files, its Python's packages, a home."""

    qemu: Place | None = None
    root: Place | None = None
    site: Place | None = None
    home: Place | None = None


def open_device(address: str, options: Options, name: str) -> Transport:
    """The core of that name (`qemu-aarch64 -cpu help` lists them). Raises `EdgecError`: device/bad-address."""
    if not address or not address.replace("-", "").isalnum():
        raise EdgecError("device/bad-address", f"cannot read the core {address!r}", hint="write qemu:cortex-a72")
    lab = _lab()
    return QemuDevice(
        name=name,
        core=address,
        qemu=options.qemu or lab / "qemu-aarch64",
        root=options.root or lab / "root",
        site=options.site or (None if options.root else lab / "site"),
        home=options.home or lab / "home" / address,
    )


def _lab() -> Path:
    """Where tools/devlab keeps the files: EDGEC_DEVLAB, the checkout's cache, or one in the current folder."""
    chosen = os.environ.get("EDGEC_DEVLAB")
    places = [Path(chosen)] if chosen else [Path(__file__).parents[3] / ".cache/devlab", Path(".cache/devlab")]
    return next((place / "vpi" for place in places if (place / "vpi").is_dir()), places[0] / "vpi").absolute()


class QemuDevice(LocalFiles):
    """Files in place, commands under the emulator."""

    python: Sequence[str] = ("python3", "-P")

    def __init__(self, *, name: str, core: str, qemu: Path, root: Path, site: Path | None, home: Path) -> None:
        super().__init__(name=name, home=home)
        self._prefix = (str(qemu), "-cpu", core, "-L", str(root))
        self._core, self._qemu, self._root, self._site = core, qemu, root, site

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        """Run an aarch64 program (rule 1)."""
        if not os.access(self._qemu, os.X_OK) or not self._root.is_dir():
            what = self._root if os.access(self._qemu, os.X_OK) else self._qemu
            raise EdgecError("device/unavailable", f"there is no {what}", where=self.name, hint=_HINT)
        added = dict(env or {})
        if self._site:
            added["PYTHONPATH"] = os.pathsep.join([*filter(None, [added.get("PYTHONPATH")]), str(self._site)])
        called, program = self._program(argv[0])
        command = [*self._prefix, "-0", called, program, *argv[1:]]
        result = run_process(command, timeout_s=timeout_s, device=self.name, env=added, stdin=stdin)
        if result.returncode == 1 and not result.stdout and "unable to find CPU model" in result.stderr:
            hint = f"`{self._qemu} -cpu help` lists the cores"
            raise EdgecError("device/bad-address", f"QEMU does not know the core {self._core!r}", hint=hint)
        return result

    def _program(self, name: str) -> tuple[str, str]:
        """The name it is called by, which busybox goes by, and the file."""
        folders = [self._root / folder for folder in _FOLDERS]
        places = [Path(name), self._root / name.lstrip("/")] if "/" in name else [folder / name for folder in folders]
        for place in places:
            target = _inside(place, self._root)
            if target.is_file() and os.access(target, os.X_OK):
                return str(place), str(target)
        message = f"there is no command {name!r} on {self.name}"
        raise EdgecError("device/missing", message, where=name, hint=f"add it to {self._root}, which is {_machine()}")


def _inside(path: Path, root: Path) -> Path:
    """Follow links as the device would: absolute ones start at the root."""
    for _ in range(20):
        if not path.is_symlink():
            break
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return path


def _machine() -> str:
    return f"aarch64, unlike this {platform.machine()} machine" if platform.machine() != "aarch64" else "aarch64"
