"""OpenVINO's compiled model beside the IR, so that the device need not compile at every start.

It belongs to one device kind and one version of OpenVINO: the agent loads it where both are the same, and compiles the
IR anywhere else. Made by the agent in a process of its own, on this machine's device.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from edgec.bundle.worker import AGENT
from edgec.devices.open import open_device
from edgec.errors import EdgecError, Finding, Severity
from edgec.packaging.base import Job, Package
from edgec.runners.base import call_agent

_TIMEOUT_S = 600.0


def package(job: Job) -> Package:
    """The blob and what it is good for. Raises `EdgecError` (cli/no-cache) for a model of another backend."""
    artifact = job.artifact
    if artifact.backend != "openvino":
        raise EdgecError(
            "cli/no-cache",
            f"only OpenVINO models are compiled ahead of time; this one is for {artifact.backend}",
            hint="leave out --openvino-cache, or add --backend openvino",
        )
    with tempfile.TemporaryDirectory(prefix="edgec-") as name:
        folder = Path(name)
        for file, data in artifact.files.items():
            (folder / file).write_bytes(data)
        arguments = ["export", str(folder / artifact.main), "--backend", artifact.runner, "--out", str(folder / "out")]
        facts = call_agent(open_device("local"), str(AGENT), arguments, timeout_s=_TIMEOUT_S, where=artifact.main)
        files = {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}
    size = sum(map(len, files.values()))
    findings: tuple[Finding, ...] = ()
    if facts["device"] != facts["wanted"]:
        findings = (
            Finding(
                code="backend/cache-for-cpu",
                message=f"this machine has no {facts['wanted']}: no compiled model is put into the bundle",
                severity=Severity.WARNING,
                where=job.target.id,
                hint="build where the device is, or let the device compile at its first start",
            ),
        )
        return Package(facts={"made": False, "wanted": facts["wanted"]}, findings=findings)
    return Package(files=files, facts={"made": True, "size_bytes": size, **json.loads(json.dumps(facts))})
