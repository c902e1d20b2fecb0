"""Give up what reading a model does not need, before anything of the model is read: Linux only, as far as it allows.

1. No network: a network namespace of its own, which has no interface (user namespaces; must come before threads).
2. No files but what is named: Landlock (Linux 5.13): Python's own folders can be read, folders of this run written,
   nothing executed, so that a shell cannot start; other processes of the same user cannot be looked into.
3. No core dumps, no endless computing, no files without end.

Each function says whether the kernel did it. None of this stops code that uses a hole in the kernel.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_NO_NEW_PRIVS = 38
#: Landlock's system calls have the same numbers on all architectures that Python runs on.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_READ = _READ_FILE | _READ_DIR
#: What the first version of Landlock knows; later ones add 13 (rename across folders) and 14 (truncate).
_ALL_V1, _REFER, _TRUNCATE = (1 << 13) - 1, 1 << 13, 1 << 14
_CPU_SECONDS = 1800
_FILE_BYTES = 8 << 30

_libc = ctypes.CDLL(None, use_errno=True)


def without_network() -> bool:
    """Rule 1. Call it before libraries start threads."""
    if not sys.platform.startswith("linux"):
        return False
    user, group = os.getuid(), os.getgid()
    with suppress(AttributeError, OSError):
        if _libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC) == 0:
            # Files keep their owner: the user is the same inside as outside, without rights over anything else.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
            return True
    return False


def limited() -> None:
    """Rule 3."""
    wanted = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, _CPU_SECONDS), (resource.RLIMIT_FSIZE, _FILE_BYTES))
    for kind, most in wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))


def without_files(*, readable: Iterable[Path], writable: Iterable[Path]) -> bool:
    """Rule 2: this process and all that it starts."""
    version = _syscall(_CREATE_RULESET, None, 0, 1)
    if not sys.platform.startswith("linux") or version < 1:
        return False
    handled = _ALL_V1 | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("Q", handled)
    ruleset = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(ruleset, path, _READ)
        for path in writable:
            _allow(ruleset, path, handled & ~_EXECUTE)
        return _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and _syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def pythons_folders() -> list[Path]:
    """What importing and computing may read: Python, its packages, the system's libraries, facts about the machine."""
    system = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/proc/cpuinfo")
    machine = ("/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/proc/self")
    own = (sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry))
    return [path for path in map(Path, (*system, *machine, *own)) if path.exists()]


def _allow(ruleset: int, path: Path, access: int) -> None:
    if not path.is_dir():
        access &= _READ_FILE | _WRITE_FILE | _TRUNCATE
    with suppress(OSError):
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", access, place)
            _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        finally:
            os.close(place)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    try:
        return int(_libc.syscall(ctypes.c_long(number), *arguments))
    except (AttributeError, OSError):
        return -1
