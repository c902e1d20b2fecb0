"""Asked on the device itself: what a machine with Python says of itself, as one JSON object.

This file's text is run by the device's own Python, of any version since 3.6; it imports nothing of edgec.
"""

import glob
import json
import os
import platform
import struct
import sys


def main(patterns: "list[str]", packages: "list[str]") -> None:
    """Print it: files as they are, Python, and what only Python knows."""
    files = {}
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            try:
                with open(path, "rb") as stream:
                    files[path] = stream.read(1 << 18).decode("utf-8", "replace")
            except OSError:
                continue
    try:
        program = os.readlink("/proc/thread-self/exe")
    except OSError:
        program = ""
    answer = {
        "system": platform.system(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "bits": 8 * struct.calcsize("P"),
        "cpus": os.cpu_count() or 0,
        "libc": " ".join(platform.libc_ver()).strip(),
        "python": platform.python_version(),
        "packages": versions(packages),
        "program": program,
        "files": files,
    }
    sys.stdout.write(json.dumps(answer))


def versions(names: "list[str]") -> "dict[str, str]":
    """Versions of those distributions that are installed."""
    try:
        from importlib import metadata
    except ImportError:  # Python 3.6 and 3.7
        return {}
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
