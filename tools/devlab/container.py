"""Run a daemon in a throw-away copy of a root: namespaces of its own for mounts, processes and the network.

1. The root is the lower layer of an overlay whose upper layer is memory: what a device is given is gone with it.
2. /proc, /sys and /dev are there before the daemon starts. Without /sys LiteRT silently drops its fast kernels.
3. The daemon is process 1: ending it ends everything on the device at once, like a power cut.
4. Files for another machine run through binfmt_misc, with the interpreter opened once (`F`), inside any root.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.devlab.common import UnavailableError, locked, need_root, program

#: Where the device's root is mounted, in a mount namespace of its own.
MOUNTED = Path("/run/edgec-devlab/root")
#: A file system of its own on the device, small enough to fill.
SMALL = "/small"
SMALL_BYTES = 16 << 20
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_ENTRY = "edgec-aarch64"
_MAGIC = (
    "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:"
    "\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff"
)
_SCRIPT = f"""\
set -e
top={MOUNTED.parent}
mount -t tmpfs -o mode=755 edgec-devlab $top
mkdir $top/up $top/work $top/root
mount -t overlay -o "lowerdir=$1,upperdir=$top/up,workdir=$top/work" overlay $top/root
cd $top/root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs -o size={SMALL_BYTES} small .{SMALL}
if [ -n "$2" ]; then mkdir -p usr/lib/python3/dist-packages; mount --bind "$2" usr/lib/python3/dist-packages; fi
shift 2
exec "$@"
"""


def wrapper(root: Path, *, site: Path | None = None, network: bool = False) -> list[str]:
    """What to put before a daemon's command; it may chroot to `MOUNTED` itself. `site` becomes Python's packages."""
    need_root("a device in namespaces")
    if not any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        raise UnavailableError("/ is no mount of its own in this chroot (before entering it: mount --bind ROOT ROOT)")
    MOUNTED.parent.mkdir(parents=True, exist_ok=True)
    command = [program("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    if network:
        command.append("--net")
    return [*command, "sh", "-c", _SCRIPT, "sh", str(root), str(site or "")]


def end(process: subprocess.Popen[bytes]) -> None:
    """Cut the power (rule 3)."""
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()


def start(
    argv: Sequence[str], *, root: Path, site: Path | None = None, network: bool = False, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a daemon of the root's own, inside it."""
    command = [*wrapper(root, site=site, network=network), program("chroot"), str(MOUNTED), *argv]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(env)
    )


def register(qemu: Path) -> None:
    """Let the kernel run aarch64 files (rule 4). Raises `UnavailableError`."""
    if platform.machine() == "aarch64":
        return
    need_root("binfmt_misc")
    with locked("binfmt"):
        if not (_BINFMT / "register").exists():
            subprocess.run(
                ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], capture_output=True, check=False
            )
        if not (_BINFMT / "register").exists():
            raise UnavailableError("this kernel has no binfmt_misc")
        entry = _BINFMT / _ENTRY
        if entry.exists():
            if f"interpreter {qemu}\n" in entry.read_text():
                return
            entry.write_text("-1")
        try:
            (_BINFMT / "register").write_text(f":{_ENTRY}:M::{_MAGIC}:{qemu}:FPOC")
        except OSError as error:
            raise UnavailableError(f"binfmt_misc refuses QEMU: {error.strerror}") from error


def unregister() -> None:
    """Undo `register`."""
    with contextlib.suppress(OSError):
        (_BINFMT / _ENTRY).write_text("-1")
