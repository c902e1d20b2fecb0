"""A release on the device's disk: found through `current`, and verified before anything of it is used.

ROOT is what `edgec flash` made (`current` -> `releases/<digest>[-<runtime>]`), or an unpacked bundle itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from edgec.service.ports import Port
from edgec.service.problems import ServiceError

MANIFEST, AGENT = "manifest.json", "agent.py"
_NAME = re.compile(r"[0-9a-f]{64}([-.][0-9A-Za-z._-]+)?\Z")
_PART = re.compile(r"(?!\.\.?(/|\Z))[A-Za-z0-9._+-]+(/(?!\.\.?(/|\Z))[A-Za-z0-9._+-]+)*\Z")


def find(root: Path) -> Path:
    """The folder of the release that shall run; where a link leads now, not the link."""
    if (root / MANIFEST).is_file():
        return root.resolve()
    current = root / "current"
    try:
        target = current.readlink()
    except OSError as error:
        hint = "bring a release onto this device with `edgec flash`, or name its folder with --root"
        raise ServiceError(503, "no-release", f"there is no release under {root}", hint) from error
    # Only a name of a release, and only in its place: a link that leads elsewhere is none of ours.
    if not _NAME.match(target.name):
        raise ServiceError(503, "bad-release", f"{current} leads to {target}, which is no release")
    return root.resolve() / "releases" / target.name


class Release:
    """A verified release. Raises ServiceError (bad-release) for one that is not what was built."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            data = (folder / MANIFEST).read_bytes()
            self.manifest: dict[str, Any] = json.loads(data)
            self.digest = hashlib.sha256(data).hexdigest()
            files = self.manifest["files"]
            self.inputs = [Port(facts) for facts in self.manifest["inputs"]]
            self.outputs = [Port(facts) for facts in self.manifest["outputs"]]
            self.engine = str(self.manifest.get("engine") or self.manifest["backend"])
            self.goldens = int(self.manifest["goldens"])
            self.model = folder / str(self.manifest["model"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServiceError(503, "bad-release", f"{folder.name}: the manifest cannot be used: {error}") from error
        if _NAME.match(folder.name) and folder.name[:64] != self.digest:
            raise ServiceError(503, "bad-release", f"{folder.name}: the manifest is not the one it is named after")
        missing = {str(self.manifest["model"]), AGENT} - set(files)
        if missing:
            raise ServiceError(503, "bad-release", f"{folder.name}: the manifest does not list {sorted(missing)[0]!r}")
        for name, facts in files.items():
            self._check(name, facts)
        self.agent = folder / AGENT
        self.runtime = (folder / "runtime").resolve() if (folder / "runtime").is_dir() else None

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.manifest["name"])

    def _check(self, name: str, facts: dict[str, Any]) -> None:
        if not _PART.match(name):
            raise ServiceError(503, "bad-release", f"{self.folder.name}: {name!r} cannot be the name of its file")
        sha = hashlib.sha256()
        try:
            with (self.folder / name).open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    sha.update(chunk)
        except OSError as error:
            raise ServiceError(503, "bad-release", f"{self.folder.name}: {name} cannot be read: {error}") from error
        if sha.hexdigest() != facts["sha256"]:
            raise ServiceError(503, "bad-release", f"{self.folder.name}: {name} is not what was built")

    def summary(self) -> dict[str, Any]:
        """What a client wants to know of it."""
        m = self.manifest
        return {
            "name": self.name,
            "release": self.digest,
            "backend": m["backend"],
            "precision": m["precision"],
            "target": m["target"]["id"],
            "labels": list(m.get("labels", ())),
            "preprocessing": m.get("preprocessing", {}),
            "inputs": [{"source": p.source.facts(), "raw": p.artifact.facts()} for p in self.inputs],
            "outputs": [{"source": p.source.facts(), "raw": p.artifact.facts()} for p in self.outputs],
        }
