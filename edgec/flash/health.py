"""Is a release well where it is? Its own agent runs its goldens there, and is timed; limits are judged.

1. The outputs are judged as `edgec validate` judges them.
2. Latency and memory are judged against the bundle's target and what the user asked; never the latency of an emulator.
3. A device without Python cannot be asked: that is a warning, and the release is installed unchecked.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.devices.base import Transport
from edgec.errors import EdgecError, Finding, Severity
from edgec.runners.base import call_agent
from edgec.runners.compare import OutputValues, check_output

#: Enough for a median that means something, and no more: the device has other work.
RUNS = 15
BENCH_SECONDS = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a release may take; None where nothing is asked."""

    latency_ms: float | None = None
    memory_bytes: int | None = None

    @classmethod
    def of(cls, bundle: Bundle, latency_ms: float | None = None, memory_bytes: int | None = None) -> Limits:
        """The user's, and the target's where the user asks nothing."""
        target = bundle.manifest.target
        return cls(
            latency_ms=target.limits.health_latency_ms if latency_ms is None else latency_ms,
            memory_bytes=target.hardware.memory_bytes if memory_bytes is None else memory_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What the check found. `checked` is False where it could not be made (rule 3)."""

    checked: bool = True
    runtime: str = ""
    kernels: Mapping[str, Any] = field(default_factory=dict)
    goldens: int = 0
    median_ms: float | None = None
    p95_ms: float | None = None
    peak_rss_bytes: int | None = None
    emulated: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def good(self) -> bool:
        """True when nothing that was found is an error."""
        return all(finding.severity != Severity.ERROR for finding in self.findings)

    def note(self) -> dict[str, Any]:
        """What the device's record keeps of it."""
        return {
            "checked": self.checked,
            "runtime": self.runtime,
            "kernels": str(self.kernels.get("delegate", "")),
            "goldens": self.goldens,
            "median_ms": self.median_ms,
            "peak_rss_bytes": self.peak_rss_bytes,
            "emulated": self.emulated,
        }


def unchecked(device: str) -> Health:
    """Rule 3."""
    message = "the device has no Python that runs the agent: files are installed, and nothing was run"
    finding = Finding(
        code="flash/unchecked",
        message=message,
        severity=Severity.WARNING,
        where=device,
        hint="install Python 3.9 or later there, or check the release with your own application",
    )
    return Health(checked=False, findings=(finding,))


def check_release(
    bundle: Bundle,
    device: Transport,
    folder: str,
    limits: Limits,
    *,
    env: Mapping[str, str],
    emulated: bool,
    timeout_s: float,
) -> Health:
    """Run the goldens of the release in `folder` and time it. What fails there is a finding; a lost device raises."""
    ask = _Agent(bundle, device, folder, env, timeout_s)
    findings: list[Finding] = []
    answer: dict[str, Any] = {}
    bench: dict[str, Any] = {}
    try:
        with device.scratch() as scratch:
            answer, findings = ask.goldens(scratch)
        if bundle.manifest.goldens and all(f.severity != Severity.ERROR for f in findings):
            bench = ask.call("bench", folder, f"--runs={RUNS}", f"--max-seconds={BENCH_SECONDS}")
    except EdgecError as error:
        if not error.code.startswith("validate/"):
            raise
        findings += error.findings
    health = Health(
        runtime=str(answer.get("runtime", "")),
        kernels=dict(answer.get("kernels", {})),
        goldens=int(answer.get("goldens", 0)),
        median_ms=bench.get("median_ms"),
        p95_ms=bench.get("p95_ms"),
        peak_rss_bytes=bench.get("peak_rss_bytes") or answer.get("peak_rss_bytes") or None,
        emulated=emulated,
        findings=tuple(findings),
    )
    judged = (*findings, *_over_limits(health, limits, device.name), *_other_kernels(health, bundle, device.name))
    return Health(**{**{name: getattr(health, name) for name in Health.__dataclass_fields__}, "findings": judged})


@dataclass(frozen=True, slots=True)
class _Agent:
    """The release's own agent."""

    bundle: Bundle
    device: Transport
    folder: str
    env: Mapping[str, str]
    timeout_s: float

    def call(self, *arguments: str) -> dict[str, Any]:
        agent = posixpath.join(self.folder, "agent.py")
        where = f"{self.bundle.manifest.name} on {self.device.name}"
        return call_agent(self.device, agent, arguments, timeout_s=self.timeout_s, where=where, env=self.env)

    def goldens(self, scratch: str) -> tuple[dict[str, Any], list[Finding]]:
        """The agent's answer, and what is wrong with the outputs (rule 1)."""
        manifest = self.bundle.manifest
        if not manifest.goldens:
            message = "the bundle has no goldens: nothing says that it computes the right thing"
            return {}, [Finding(code="flash/no-goldens", message=message, severity=Severity.WARNING)]
        answer = self.call("run", self.folder, "--out", f"{scratch}/out")
        findings: list[Finding] = []
        with tempfile.TemporaryDirectory(prefix="edgec-") as here:
            self.device.pull(f"{scratch}/out", Path(here, "out"))
            goldens = self.bundle.goldens()
            for i, binding in enumerate(self.bundle.outputs):
                name = binding.source.name
                values = OutputValues(
                    binding=binding,
                    raw=[self._output(Path(here, "out", f"{n:03d}.{i}.npy")) for n in range(len(goldens))],
                    reference=[golden.reference_outputs[name] for golden in goldens],
                    exact=[golden.float_outputs[name] for golden in goldens],
                    step=manifest.outputs[i].step,
                    kinds=manifest.outputs[i].slices(),
                )
                findings += check_output(values, manifest.precision)[1]
        return answer, findings

    def _output(self, path: Path) -> Any:
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            message = f"output {path.name} did not come back: {error}"
            raise EdgecError("validate/run-failed", message, where=self.device.name) from error


def _over_limits(health: Health, limits: Limits, device: str) -> list[Finding]:
    """Rule 2."""
    findings = []
    if limits.latency_ms is not None and health.median_ms is not None and health.median_ms > limits.latency_ms:
        findings.append(
            Finding(
                code="flash/too-slow",
                message=f"a run takes {health.median_ms:.2f} ms, {limits.latency_ms:g} ms are allowed"
                + (" (emulated: not judged)" if health.emulated else ""),
                severity=Severity.INFO if health.emulated else Severity.ERROR,
                where=device,
                hint="see what else runs there, take a faster precision, or allow more with --max-latency",
            )
        )
    if limits.memory_bytes is not None and (health.peak_rss_bytes or 0) > limits.memory_bytes:
        findings.append(
            Finding(
                code="flash/too-much-memory",
                message=f"a run takes {(health.peak_rss_bytes or 0) / 2**20:.0f} MiB, "
                f"{limits.memory_bytes / 2**20:.0f} MiB are allowed",
                where=device,
                hint="take a smaller precision or model, or allow more with --max-memory",
            )
        )
    return findings


def _other_kernels(health: Health, bundle: Bundle, device: str) -> list[Finding]:
    """LiteRT drops its fast kernels in silence where it cannot probe the CPU."""
    wanted = bundle.manifest.target.runtime.delegate
    have = str(health.kernels.get("delegate", ""))
    if not wanted or have.lower() in ("", "unknown", wanted.lower()) or have != "none":
        return []
    return [
        Finding(
            code="flash/other-kernels",
            message=f"{health.runtime} runs without {wanted}: slower, and other roundings than were validated",
            severity=Severity.WARNING,
            where=device,
            hint="LiteRT needs /sys and /proc to be mounted; tflite-runtime has no such kernels for int8",
        )
    ]
