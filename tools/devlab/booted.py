"""A Debian that a real systemd boots, in systemd-nspawn: for what only systemd itself can show of a unit.

1. Its packages are unpacked, never configured: systemd makes at boot what it needs.
2. Every boot begins with the same files: what is written goes to memory. One folder comes in, as /mnt.
3. It has a loopback of its own and no other network. `/mnt/check.sh` runs when it is up; then it is switched off.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from tools.devlab import debs, vpi
from tools.devlab.common import existing, need_root, prepared, program

#: Change it with whatever is made here.
RECIPE = "2"
_PACKAGES = ("systemd-sysv", "base-files", "python3", "libstdc++6", "coreutils", "dash", "grep", "mount")
_CHECK = (
    "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sh /mnt/check.sh >/mnt/said 2>&1; systemctl --no-block poweroff'\n"
)


def prepare() -> Path:
    """The folder `systemd`: the root."""
    need_root("booting systemd")
    return prepared("systemd", RECIPE, _make)


def _make(folder: Path) -> None:
    root = folder / "root"
    arm = platform.machine() == "aarch64"
    debs.unpack(_PACKAGES, root, arch="arm64" if arm else "amd64", release="bookworm")
    vpi.wheels(root / "usr/lib/python3/dist-packages", arch="aarch64" if arm else "x86_64")
    for name in ("proc", "sys", "dev", "tmp", "run", "root", "mnt", "opt", "var", "etc/systemd/system"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    units = root / "etc/systemd/system"
    (units / "check.service").write_text(_CHECK)
    (units / "multi-user.target.wants").mkdir()
    (units / "multi-user.target.wants/check.service").symlink_to("../check.service")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")


def boot(place: Path, binds: dict[Path, str], *, timeout_s: float) -> str:
    """What `place/check.sh` said in a boot; `binds` are read-only.

    Raises `UnavailableError` where it is not prepared or systemd-container is not installed; RuntimeError when it does
    not boot.
    """
    root = existing("systemd", RECIPE) / "root"
    command = [program("systemd-nspawn"), "--quiet", "--directory", str(root), "--volatile=overlay", "--register=no"]
    command += ["--keep-unit", "--private-network", f"--bind={place}:/mnt", "--boot"]
    command[-1:-1] = [f"--bind-ro={here}:{there}" for here, there in binds.items()]
    env = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    with (place / "console").open("wb") as console:
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=env,
                           timeout=timeout_s, check=False)  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"systemd does not come up: {(place / 'console').read_text()[-800:]}") from error
    said = place / "said"
    if not said.exists():
        raise RuntimeError(f"systemd does not boot here: {(place / 'console').read_text()[-800:]}")
    return said.read_text()
