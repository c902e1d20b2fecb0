"""Validate a bundle on a device: run its goldens in its own runtime, compare, and measure latency and memory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import AGENT
from edgec.devices.base import Facts, Transport
from edgec.devices.open import open_device
from edgec.errors import EdgecError, Finding, Severity
from edgec.metrics import top1_agreement
from edgec.runners.base import call_agent
from edgec.runners.compare import OutputCheck, OutputValues, check_output
from edgec.runners.kernels import OTHER_DB, OTHER_TOP1, Evidence, identify, kernel_findings
from edgec.runners.sustained import Sustained, read_sustained, sustained_findings
from edgec.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Times of one measurement: `load_ms` from file to ready, `first_ms` the first run, the others after a warm-up."""

    threads: int
    runs: int
    load_ms: float
    first_ms: float
    min_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    peak_rss_bytes: int
    model_rss_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What validation found. `passed` is False when any finding is an error.

    `kernels` is what the runtime says of its kernels, `kernel_set` what ran (see `kernels.Evidence`), and `bit_exact`
    whether the outputs are the bundle's goldens to the bit; `peak_rss_bytes` is the largest of all measurements.
    `emulated` names the emulator: its times mean nothing.
    """

    passed: bool
    device: str
    runtime: str
    kernels: dict[str, Any]
    goldens: int
    outputs: tuple[OutputCheck, ...]
    latency: tuple[Latency, ...]
    peak_rss_bytes: int
    findings: tuple[Finding, ...]
    kernel_set: str = ""
    bit_exact: bool | None = None
    emulated: str = ""
    sustained: Sustained | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "findings": [finding.as_dict() for finding in self.findings]}


def validate_bundle(
    bundle: Bundle,
    *,
    device: str | Transport = "local",
    threads: Sequence[int] = (1,),
    runs: int = 50,
    timeout_s: float = 300.0,
    kernels: str = "default",
    sustained_s: float = 0.0,
    facts: Facts | None = None,
) -> Validation:
    """Run the goldens once and the benchmark once for each number of threads, each in a process of its own.

    A device given by name is opened, and closed again. What is wrong with the model or the runtime comes back as
    findings; `EdgecError` (device/…) is raised when the device itself cannot be used. `timeout_s` holds for each
    process. `runs` of 0 measures nothing. `kernels` takes another set than the runtime would (builtin, reference);
    `sustained_s` adds a run of that length; `facts` is what the device said of itself, where somebody asked.
    """
    if isinstance(device, str):
        with open_device(device) as opened:
            return validate_bundle(
                bundle,
                device=opened,
                threads=threads,
                runs=runs,
                timeout_s=timeout_s,
                kernels=kernels,
                sustained_s=sustained_s,
                facts=facts,
            )
    answer: dict[str, Any] = {}
    checks: list[OutputCheck] = []
    latency: list[Latency] = []
    evidence: Evidence | None = None
    sustained: Sustained | None = None
    findings = _agent_findings(bundle)
    with device.scratch() as scratch, tempfile.TemporaryDirectory(prefix="edgec-") as here:
        session = _Session(bundle, device, scratch, Path(here), timeout_s, kernels)
        try:
            session.install()
            findings += _version_findings(bundle, session.call("info"))
            answer, outputs = session.run_goldens()
            findings += _stand_in_findings(answer.get("kernels", {}))
            if outputs:
                evidence = identify(bundle, _by_golden(outputs), answer.get("kernels", {}))
                findings += kernel_findings(
                    bundle,
                    evidence,
                    runtime=str(answer.get("runtime", "")),
                    kernels=answer.get("kernels", {}),
                    sys_visible=None if facts is None else facts.sys_visible,
                )
            for values in outputs:
                check, problems = check_output(values, bundle.manifest.precision)
                if evidence is not None and not evidence.expected:
                    check, problems = _for_other_kernels(check, problems, values)
                checks.append(check)
                findings += problems
            latency += [session.bench(count, runs) for count in threads if runs > 0]
            if sustained_s > 0:
                sustained = session.sustain(max(threads), sustained_s)
                findings += sustained_findings(sustained, emulated=bool(facts and facts.emulated))
        except EdgecError as error:
            if not error.code.startswith("validate/"):
                raise
            findings += error.findings
    if not bundle.manifest.goldens:
        findings.append(Finding(code="validate/no-goldens", message="the bundle has no goldens to compare with"))
    return Validation(
        passed=all(finding.severity != Severity.ERROR for finding in findings),
        device=device.name,
        runtime=str(answer.get("runtime", "")),
        kernels=dict(answer.get("kernels", {})),
        goldens=int(answer.get("goldens", 0)),
        outputs=tuple(checks),
        latency=tuple(latency),
        peak_rss_bytes=max([answer.get("peak_rss_bytes", 0), *(entry.peak_rss_bytes for entry in latency)]),
        findings=tuple(findings),
        kernel_set=evidence.kernel_set if evidence else "",
        bit_exact=evidence.bit_exact if evidence else None,
        emulated=facts.emulated if facts else "",
        sustained=sustained,
    )


def _by_golden(outputs: Sequence[OutputValues]) -> list[dict[str, Array]]:
    """Raw outputs as one dictionary a golden."""
    count = len(outputs[0].raw)
    return [{values.binding.artifact.name: values.raw[n] for values in outputs} for n in range(count)]


def _for_other_kernels(
    check: OutputCheck, problems: list[Finding], values: OutputValues
) -> tuple[OutputCheck, list[Finding]]:
    """Another set of kernels is judged by the task: an output that agrees so far is a warning."""
    if check.passed or any(raw.shape != values.binding.artifact.shape for raw in values.raw):
        return check, problems
    actual = [values.binding.to_source(raw) for raw in values.raw]
    tops = [top1_agreement(r, a) for r, a in zip(values.reference, actual, strict=True)]
    known = [top for top in tops if top is not None]
    agrees = bool(known) and float(np.mean(known)) >= OTHER_TOP1
    if not agrees and check.agreement_db < OTHER_DB:
        return check, problems
    softened = [replace(p, severity=Severity.WARNING) if p.code == "validate/disagreement" else p for p in problems]
    return replace(check, passed=True), softened


@dataclass(frozen=True, slots=True)
class _Session:
    """A bundle unpacked on a device, with the agent beside it."""

    bundle: Bundle
    device: Transport
    scratch: str
    here: Path
    timeout_s: float
    kernels: str = "default"

    def install(self) -> None:
        """Unpack here, verified, and push; the agent is the installed one, not the bundle's."""
        self.bundle.extract(self.here / "bundle")
        self.device.push(self.here / "bundle", f"{self.scratch}/bundle")
        self.device.push(AGENT, f"{self.scratch}/agent.py")

    def call(self, *arguments: str) -> dict[str, Any]:
        """One agent command."""
        agent = f"{self.scratch}/agent.py"
        where = f"{self.bundle.path.name} on {self.device.name}"
        return call_agent(self.device, agent, arguments, timeout_s=self.timeout_s, where=where)

    def _on_bundle(self, command: str, *arguments: str) -> dict[str, Any]:
        """One agent command on the unpacked bundle, with the kernels that were asked for."""
        chosen = () if self.kernels == "default" else (f"--kernels={self.kernels}",)
        return self.call(command, f"{self.scratch}/bundle", *chosen, *arguments)

    def run_goldens(self) -> tuple[dict[str, Any], list[OutputValues]]:
        """The agent's answer, and every output with what was expected."""
        if not self.bundle.manifest.goldens:
            return {}, []
        answer = self._on_bundle("run", "--out", f"{self.scratch}/out")
        self.device.pull(f"{self.scratch}/out", self.here / "out")
        goldens = self.bundle.goldens()
        outputs = []
        for i, binding in enumerate(self.bundle.outputs):
            name = binding.source.name
            values = OutputValues(
                binding=binding,
                raw=[self._output(number, i) for number in range(len(goldens))],
                reference=[golden.reference_outputs[name] for golden in goldens],
                exact=[golden.float_outputs[name] for golden in goldens],
                step=self.bundle.manifest.outputs[i].step,
                kinds=self.bundle.manifest.outputs[i].slices(),
            )
            outputs.append(values)
        return answer, outputs

    def _output(self, golden: int, index: int) -> Array:
        path = self.here / "out" / f"{golden:03d}.{index}.npy"
        try:
            value: Array = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            message = f"output {index} of golden {golden} did not come back: {error}"
            raise EdgecError("validate/run-failed", message, where=self.device.name) from error
        return value

    def bench(self, threads: int, runs: int) -> Latency:
        """Latency and memory with a number of threads."""
        # A model too slow for the benchmark's own limit still gets its five runs.
        seconds = min(10.0, self.timeout_s / 4)
        answer = self._on_bundle("bench", f"--threads={threads}", f"--runs={runs}", f"--max-seconds={seconds}")
        return Latency(**{key: answer[key] for key in Latency.__dataclass_fields__})

    def sustain(self, threads: int, seconds: float) -> Sustained:
        """A long run; it may take the time it was asked to take beside the timeout."""
        patient = replace(self, timeout_s=self.timeout_s + seconds)
        return read_sustained(patient._on_bundle("sustain", f"--threads={threads}", f"--seconds={seconds}"))


def _agent_findings(bundle: Bundle) -> list[Finding]:
    if bundle.read("agent.py") == AGENT.read_bytes():
        return []
    message = "the bundle brings another agent than this edgec; validation uses this edgec's"
    return [Finding(code="validate/other-agent", message=message, severity=Severity.INFO, where="agent.py")]


def _stand_in_findings(kernels: Mapping[str, Any]) -> list[Finding]:
    """The device has not the accelerator that the bundle is for: what was proven is proven for the CPU."""
    wanted = kernels.get("stands_in_for")
    if not wanted:
        return []
    return [
        Finding(
            code="validate/stand-in",
            message=f"there is no {wanted} here: the CPU stood in, which says nothing of the {wanted}'s speed",
            severity=Severity.WARNING,
            hint=f"validate on a device with a {wanted} that OpenVINO knows",
        )
    ]


def _version_findings(bundle: Bundle, info: dict[str, Any]) -> list[Finding]:
    """A runtime older than the bundle needs. tflite-runtime stands in for its successor, under older numbers."""
    findings = []
    for package, needed in sorted(bundle.manifest.requirements.items()):
        have = info["packages"].get(package, "")
        if have and _numbers(have) < _numbers(needed):
            findings.append(
                Finding(
                    code="validate/runtime-too-old",
                    message=f"{package} {have} is installed, the bundle needs {needed}",
                    where="requirements",
                    hint=f"pip install '{package}>={needed}'",
                )
            )
    return findings


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version, without trailing zeros: 2.1.0 and 2.1 are the same."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4]]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
