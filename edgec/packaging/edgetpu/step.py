"""Package for a Coral Edge TPU: judge by the rules, compile where the compiler is, refuse what stays on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgec.errors import Finding, Severity
from edgec.packaging.base import Job, Package
from edgec.packaging.edgetpu.compiler import PROGRAM, Compiled, compile_model
from edgec.packaging.edgetpu.rules import Verdict, judge

MODEL_FILE = "model_edgetpu.tflite"
_SHOWN = 8


def package(job: Job) -> Package:
    """The compiled model where there is a compiler; facts and findings either way."""
    artifact = job.artifact
    model = artifact.files[artifact.main]
    verdict = judge(model)
    compiled = compile_model(model)
    weights = sum(op.weight_bytes for op in artifact.work)
    facts: dict[str, Any] = {
        "compiled": compiled is not None,
        "rules_operator_share": round(verdict.share, 4),
        "weight_bytes": weights,
    }
    findings = _size_findings(job, weights)
    if compiled is None:
        findings += [_not_compiled(), *_share(job, verdict.share, _reasons(verdict), "by Coral's published rules")]
        return Package(facts=facts, findings=tuple(findings))
    facts |= {
        "compiler": f"{PROGRAM} {compiled.version}",
        "npu_operator_share": round(compiled.share, 4),
        "subgraphs": compiled.subgraphs,
        "on_chip_bytes": compiled.on_chip_bytes,
        "off_chip_bytes": compiled.off_chip_bytes,
    }
    findings += _share(job, compiled.share, _unmapped(compiled), f"by {PROGRAM}")
    return Package(files={MODEL_FILE: compiled.model}, facts=facts, findings=tuple(findings))


def _not_compiled() -> Finding:
    return Finding(
        code="backend/not-compiled",
        message=f"not compiled for the Edge TPU: {PROGRAM} is not on the PATH",
        severity=Severity.WARNING,
        hint=f"the bundle holds the int8 model; run `{PROGRAM} -s model.tflite` where Google's compiler is installed, "
        "or build again there",
    )


def _reasons(verdict: Verdict) -> Mapping[str, str]:
    return {
        f"{kind} (operator {i})": why
        for i, (kind, why) in enumerate(zip(verdict.kinds, verdict.reasons, strict=True))
        if why
    }


def _unmapped(compiled: Compiled) -> Mapping[str, str]:
    return compiled.unmapped


def _share(job: Job, share: float, reasons: Mapping[str, str], judge_name: str) -> list[Finding]:
    npu = job.target.npu
    minimum = npu.min_share if npu is not None else 0.0
    if not reasons:
        return []
    enough = share >= minimum
    listing = "; ".join(f"{what}: {why}" for what, why in list(reasons.items())[:_SHOWN])
    more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
    return [
        Finding(
            code="backend/npu-share",
            message=f"{share:.1%} of the operators run on the Edge TPU {judge_name}: it takes what comes before the "
            f"first it cannot run" + ("" if enough else f" ({minimum:.0%} are required)"),
            severity=Severity.INFO if enough else Severity.ERROR,
            where=job.name,
            rule="npu.min_share",
            hint=f"{listing}{more}. Replace these in the source model, move them to its end, or lower npu.min_share "
            "in a profile of your own",
        )
    ]


def _size_findings(job: Job, weights: int) -> list[Finding]:
    npu = job.target.npu
    cache = npu.cache_bytes if npu is not None else None
    if cache is None or weights <= cache:
        return []
    return [
        Finding(
            code="backend/npu-cache",
            message=f"the weights take {weights / 2**20:.1f} MiB, the Edge TPU caches at most {cache / 2**20:.0f}: the "
            "rest is sent again at every run",
            severity=Severity.WARNING,
            where=job.name,
            rule="npu.cache_bytes",
            hint="take a smaller model, or split it over several Edge TPUs",
        )
    ]
