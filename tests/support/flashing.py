"""Small bundles and devices for tests of flashing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgec.artifact import Artifact
from edgec.bundle.manifest import MANIFEST
from edgec.devices.base import Facts, Transport
from tests.support import tiny_bundles as tiny

#: A device without Python: files are installed and nothing is run.
FACTS = Facts(
    system="Linux",
    kernel="6.1",
    arch="x86_64",
    libc="glibc 2.36",
    board="",
    cpu="",
    cpus=2,
    features=(),
    memory_bytes=1 << 30,
    memory_free_bytes=1 << 30,
    disk_free_bytes=1 << 30,
    python="",
    packages={},
    sys_visible=True,
    celsius={},
    cpu_mhz=None,
    governor="",
    emulated="",
)

#: Stands for the agent where the runtime is not what is tested: every golden gives what the host had.
QUICK_AGENT = b"""
import json, os, shutil, sys
command, folder, *rest = sys.argv[1:]
manifest = json.load(open(os.path.join(folder, "manifest.json")))
if os.path.exists(os.path.join(folder, "..", "..", "broken")):
    print(json.dumps({"error": {"code": "run-failed", "message": "the device is broken", "hint": ""}}))
    sys.exit(3)
if command == "run":
    out = rest[rest.index("--out") + 1]
    os.makedirs(out, exist_ok=True)
    for golden in range(manifest["goldens"]):
        for i in range(len(manifest["outputs"])):
            source = os.path.join(folder, "golden", "%03d" % golden, "raw.%d.npy" % i)
            shutil.copy(source, os.path.join(out, "%03d.%d.npy" % (golden, i)))
print(json.dumps({"goldens": manifest["goldens"], "runtime": "quick 1", "kernels": {"delegate": "XNNPACK"},
                  "median_ms": 2.0, "p95_ms": 3.0, "peak_rss_bytes": 1 << 20}))
"""

BAD_AGENT = QUICK_AGENT.replace(b'if os.path.exists(os.path.join(folder, "..", "..", "broken")):', b"if True:")


def artifact() -> Artifact:
    """One that needs no runtime."""
    return replace(tiny.tflite_artifact(), requirements={})


def pack(path: Path, *, version: str = "1", agent: bytes = QUICK_AGENT, goldens: int = 1, **changes: Any) -> Path:
    """A bundle; another `version` is another release."""
    made = changes.pop("artifact", None) or artifact()
    known = _goldens()[:goldens]
    return tiny.pack(path, made, labels=(version,), agent=agent, goldens=known, **changes)


_kept: list[Any] = []


def _goldens() -> list[Any]:
    """Made once: they need the real runtime."""
    if not _kept:
        _kept.extend(tiny.goldens(tiny.tflite_artifact()))
    return _kept


def running(device: Transport, root: str = "") -> str:
    """The digest of the release that runs, every file of it compared with its manifest; empty when none does."""
    root = root or device.home
    if device.entry(f"{root}/current") is None:
        return ""
    target = device.read_link(f"{root}/current")
    folder = f"{root}/{target}"
    data = device.read_bytes(f"{folder}/{MANIFEST}")
    digest = hashlib.sha256(data).hexdigest()
    assert Path(target).name.split("-")[0].split(".")[0] == digest
    for name, facts in json.loads(data)["files"].items():
        assert device.sha256(f"{folder}/{name}") == facts["sha256"], f"{name} is not whole"
    return digest
