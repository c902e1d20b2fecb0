"""A whole emulated board: Debian's arm64 kernel, all of user-land in memory, sshd at the other end of a forwarded port.

1. Nothing is configured or installed: unpacked packages, four modules and a small /init make the initramfs.
2. A board that loses power comes back empty, with the same host key.
3. The guest's network reaches nothing but the port that is forwarded to it.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tools.devlab import debs, sshd, vpi
from tools.devlab.common import UnavailableError, existing, free_port, need_root, prepared, run

#: Change it with whatever is made here.
RECIPE = "1"
_PACKAGES = ("linux-image-arm64", "busybox-static", "openssh-server", "openssh-sftp-server", "python3", "libstdc++6")
_MODULES = ("virtio_mmio", "failover", "net_failover", "virtio_net")
_INIT = """\
#!/bin/busybox sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /run/sshd
for m in {modules}; do insmod /modules/$m.ko; done
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
exec /usr/sbin/sshd -D -e
"""


def prepare() -> Path:
    """The folder `board`: the emulator, the kernel, the initramfs, the keys."""
    need_root("the board's initramfs (files must belong to root)")
    vpi.prepare()
    return prepared("board", RECIPE, _make)


def _make(folder: Path) -> None:
    native = "arm64" if platform.machine() == "aarch64" else "amd64"
    debs.unpack(["qemu-system-arm"], folder / "qemu", arch=native, release="bookworm", without=("libc6",))
    root = folder / "root"
    debs.unpack(_PACKAGES, root, arch="arm64", release="bookworm")
    kernel = next((root / "boot").glob("vmlinuz-*"))
    shutil.copy(kernel, folder / "vmlinuz")
    modules = root / "lib" / "modules"
    (root / "modules").mkdir()
    for name in _MODULES:
        found = next(modules.rglob(f"{name}.ko*"), None)
        if found is None:
            continue  # built into the kernel
        shutil.copy(found, root / "modules" / found.name)
    shutil.rmtree(modules)
    shutil.rmtree(root / "boot")
    sshd.write_files(folder / "keys", 22)
    _fill(root, folder / "keys")
    _pack(root, folder / "initrd.gz")
    shutil.rmtree(root)


def _fill(root: Path, keys: Path) -> None:
    lab = vpi.existing_vpi()
    shutil.copytree(lab / "site", root / "usr/lib/python3/dist-packages", dirs_exist_ok=True)
    for applet in run([lab / "qemu-aarch64", root / "bin/busybox", "--list"]).split():
        place = root / "usr" / "bin" / applet
        if not place.exists() and not place.is_symlink():
            place.symlink_to("busybox")
    for name in ("proc", "sys", "dev", "tmp", "root/.ssh", "run", "etc/ssh", "var/empty"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    shutil.copy(keys / "host_ed25519", root / "etc/ssh/host_ed25519")
    (root / "etc/ssh/host_ed25519").chmod(0o600)
    shutil.copy(keys / "authorized_keys", root / "root/.ssh/authorized_keys")
    settings = "HostKey /etc/ssh/host_ed25519\nPasswordAuthentication no\nUsePAM no\nStrictModes no\n"
    (root / "etc/ssh/sshd_config").write_text(settings + "PermitRootLogin prohibit-password\n")
    (root / "init").write_text(_INIT.format(modules=" ".join(_MODULES)))
    (root / "init").chmod(0o755)


def _pack(root: Path, archive: Path) -> None:
    """The tree as a cpio archive of the form that the kernel reads."""
    with gzip.open(archive, "wb", compresslevel=1) as out:
        for number, place in enumerate([root, *sorted(root.rglob("*"))], start=1):
            name = str(place.relative_to(root)).encode()
            status = place.lstat()
            data = str(place.readlink()).encode() if place.is_symlink() else b""
            if not data and place.is_file():
                data = place.read_bytes()
            out.write(_entry(name, status.st_mode, number, data))
        out.write(_entry(b"TRAILER!!!", 0, 0, b""))


def _entry(name: bytes, mode: int, number: int, data: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


@contextlib.contextmanager
def running(
    folder: Path, *, core: str = "cortex-a72", cpus: int = 2, memory_mib: int = 1024, disk: Path | None = None
) -> Iterator[sshd.Server]:
    """A board for the length of a `with`; the process of `Server.pid` is its power, `disk` an image for /dev/vda."""
    kept = existing("board", RECIPE, goal="devlab-board")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    extra = ["-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0"]
    process = _power_on(kept, folder, port, core, cpus, memory_mib, extra if disk else [])
    try:
        _wait(process, port, folder)
        public = " ".join((kept / "keys/host_ed25519.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
        yield sshd.Server(
            port=port,
            user="root",
            identity=kept / "keys/id",
            known_hosts=folder / "known_hosts",
            folder=folder,
            pid=process.pid,
        )
    finally:
        process.kill()
        process.wait()


def _power_on(
    kept: Path, folder: Path, port: int, core: str, cpus: int, memory_mib: int, extra: list[str]
) -> subprocess.Popen[bytes]:
    libraries = next((kept / "qemu/usr/lib").glob("*-linux-gnu"))
    paths = [libraries, *(place for place in libraries.iterdir() if place.is_dir())]
    command = [str(kept / "qemu/usr/bin/qemu-system-aarch64"), "-L", str(kept / "qemu/usr/share/qemu")]
    command += ["-M", "virt", "-cpu", core, "-smp", str(cpus), "-m", str(memory_mib)]
    command += ["-nographic", "-monitor", "none", "-serial", f"file:{folder}/console.log", "-no-reboot"]
    command += ["-kernel", str(kept / "vmlinuz"), "-initrd", str(kept / "initrd.gz")]
    command += ["-append", "console=ttyAMA0 rdinit=/init quiet panic=-1"]
    command += ["-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]  # rule 3
    command += ["-device", "virtio-net-device,netdev=n0", *extra]
    with (folder / "qemu.log").open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, paths))},
        )


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UnavailableError(f"the board does not start: {(folder / 'qemu.log').read_text()[-500:].strip()}")
        # QEMU accepts at once; only the guest's sshd says something.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.settimeout(5)
            if client.recv(4) == b"SSH-":
                return
        time.sleep(0.5)
    console = folder / "console.log"
    said = console.read_text(errors="replace")[-500:] if console.exists() else ""
    raise UnavailableError(f"the board does not answer: {said}")
