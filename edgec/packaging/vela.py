"""Arm Ethos-U: compile with Vela, read its report, refuse what would run on the CPU, write the C++ project.

1. Vela exits with 0 for a model of which it maps nothing. What counts is the share of the model's own operators that
   are gone from the compiled file, each replaced by a part of an `ethos-u` operator.
2. Cycles, bandwidth and memory are what Vela's performance model says; nothing obtainable executes the command stream.
   The numbers are labelled as its estimates.
3. The plain model stays the bundle's model: it is what runs here, in TFLM, for the goldens.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from edgec.artifact import OpWork
from edgec.backends.tflite.reader import describe
from edgec.errors import EdgecError, Finding, Severity
from edgec.packaging._tflm.arena import arena_facts, budget_findings, measure_arena
from edgec.packaging._tflm.project import Project, project_files
from edgec.packaging.base import Job, Package

NPU_OPERATOR = "CUSTOM ethos-u"
_TIMEOUT_S = 600.0
_TAIL = 1500
#: Columns of Vela's summary that go into the report: name, column, factor.
_COLUMNS = (
    ("cycles", "cycles_total", 1.0),
    ("cycles_npu", "cycles_npu", 1.0),
    ("inference_ms", "inference_time", 1e3),
    ("clock_hz", "core_clock", 1.0),
    ("sram_bytes", "sram_memory_used", 1024.0),
    ("dram_bytes", "dram_memory_used", 1024.0),
    ("flash_bytes", "off_chip_flash_memory_used", 1024.0),
    ("npu_macs", "nn_macs", 1.0),
)
_WHOLE = frozenset({"cycles", "cycles_npu", "clock_hz", "sram_bytes", "dram_bytes", "flash_bytes", "npu_macs"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiled:
    """What Vela gave: the file, its summary by our names, why operators stayed on the CPU, and the names it used."""

    model: bytes
    figures: Mapping[str, float | int]
    system_config: str
    memory_mode: str
    refused: tuple[tuple[str, str], ...] = field(default=())


def package(job: Job) -> Package:
    """The compiled model and the project around it. Raises `EdgecError` (env/missing-extra, backend/npu-…)."""
    artifact, npu = job.artifact, job.target.npu
    assert npu is not None
    plain = artifact.files[artifact.main]
    compiled = compile_model(plain, npu.config)
    left = describe(compiled.model)["operators"]
    cpu = {kind: count for kind, count in left.items() if kind != NPU_OPERATOR}
    total = sum(artifact.operators.values())
    share = max(0.0, 1.0 - sum(cpu.values()) / total) if total else 0.0
    findings = [*_share_findings(job, share, cpu, compiled), *_memory_findings(job, compiled)]
    if any(f.severity == Severity.ERROR for f in findings):
        return Package(findings=tuple(findings))
    arena = measure_arena(plain, artifact.work)
    findings += budget_findings(arena, job.target, where=job.name)
    macs = sum(op.macs for op in artifact.work)
    facts = {
        "figures": "estimates of Vela's performance model, not measurements",
        "compiler": f"ethos-u-vela {_version()}",
        "accelerator": npu.config,
        "system_config": compiled.system_config,
        "memory_mode": compiled.memory_mode,
        "npu_operator_share": round(share, 4),
        "npu_mac_share": _mac_share(artifact.work, cpu),
        "model_macs": macs,
        "cpu_operators": dict(sorted(cpu.items())),
        **compiled.figures,
        "on_the_cpu_instead": arena_facts(arena, artifact.peak_bytes),
    }
    project = Project(
        name=job.name,
        target_id=job.target.id,
        model=compiled.model,
        operators=tuple(left),
        arena_bytes=_planned_bytes(compiled) + arena.allocations.get("tail", 0),
        scratch_bytes=0,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        goldens=job.goldens,
        steps=1,
        notes=(
            "The arena is an upper bound: what Vela plans, and TensorFlow Lite Micro's records for the plain model.",
            "The goldens are of the plain model in the reference kernels; the NPU may round one step otherwise.",
        ),
    )
    files = {"model_vela.tflite": compiled.model, **project_files(project)}
    return Package(files=files, facts=facts, findings=tuple(findings))


def compile_model(model: bytes, config: str) -> Compiled:
    """Run Vela in a process of its own. Raises `EdgecError` (env/missing-extra, backend/npu-compiler)."""
    if find_spec("ethosu") is None:
        raise EdgecError(
            "env/missing-extra", "Ethos-U targets need Arm's Vela compiler", hint="pip install 'edgec[vela]'"
        )
    with tempfile.TemporaryDirectory(prefix="edgec-") as name:
        folder = Path(name)
        source = folder / "model.tflite"
        source.write_bytes(model)
        command = [sys.executable, "-c", "import sys; from ethosu.vela.vela import main; sys.exit(main())"]
        command += [str(source), "--accelerator-config", config, "--output-dir", str(folder / "out")]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=_TIMEOUT_S, check=False, errors="replace"
            )
        except subprocess.TimeoutExpired as error:
            raise EdgecError(
                "backend/npu-compiler",
                f"Vela gave no answer within {_TIMEOUT_S:g} s",
                hint="the model may be too large for the accelerator; report it with the model to Arm",
            ) from error
        files = sorted((folder / "out").glob("*_vela.tflite"))
        summaries = sorted((folder / "out").glob("*_summary_*.csv"))
        if done.returncode != 0 or not files or not summaries:
            raise EdgecError(
                "backend/npu-compiler",
                f"Vela ended with exit code {done.returncode} and no compiled model: "
                + (done.stderr.strip() or done.stdout.strip())[-_TAIL:],
                hint="build for a plain microcontroller to see whether the model itself is sound",
            )
        return _read(files[0], summaries[0], done.stdout)


def _read(compiled: Path, summary: Path, output: str) -> Compiled:
    with summary.open(newline="") as stream:
        row = next(csv.DictReader(stream), None)
    if row is None:
        raise EdgecError(
            "backend/npu-compiler", "Vela's summary is empty", hint="install the version in constraints.txt"
        )
    try:
        figures = {name: _number(name, float(row[column]) * factor) for name, column, factor in _COLUMNS}
        return Compiled(
            model=compiled.read_bytes(),
            figures=figures,
            system_config=row["system_config"],
            memory_mode=row["memory_mode"],
            refused=_refusals(output),
        )
    except (KeyError, ValueError) as error:
        raise EdgecError(
            "backend/npu-compiler",
            f"Vela's summary has another form than expected: {error}",
            hint="install the version in constraints.txt",
        ) from error


def _number(name: str, value: float) -> float | int:
    if value != value:  # a float model has no cycles
        return 0
    return round(value) if name in _WHOLE else float(f"{value:.6g}")


def _refusals(output: str) -> tuple[tuple[str, str], ...]:
    """Operator and reason of each warning: Vela prints the operator, then the rule and what broke it on two lines."""
    found: dict[tuple[str, str], None] = {}
    for match in re.finditer(r"operator: (\w+), ofm:[^\n]*\n(?:\s*-?\s*)?(?:Reason: )?([^\n]*)\n([^\n]*)", output):
        kind, first, second = match.groups()
        rule = second.strip() if second.strip() and not second.startswith("Warning") else first.strip()
        found[kind, re.sub(r"\s+", " ", rule)[:200]] = None
    return tuple(found)


def _share_findings(job: Job, share: float, cpu: Mapping[str, int], compiled: Compiled) -> list[Finding]:
    """Rule 1."""
    npu = job.target.npu
    assert npu is not None
    if not cpu:
        return []
    listing = ", ".join(f"{kind} {count}" for kind, count in sorted(cpu.items()))
    reasons = "; ".join(f"{kind}: {why}" for kind, why in compiled.refused[:5])
    message = f"{share:.1%} of the operators run on the {npu.config}; on the CPU are {listing}"
    enough = share >= npu.min_share
    return [
        Finding(
            code="backend/npu-share",
            message=message + ("" if enough else f" ({npu.min_share:.0%} are required)"),
            severity=Severity.INFO if enough else Severity.ERROR,
            where=job.name,
            rule="npu.min_share",
            hint=(f"Vela says {reasons}. " if reasons else "")
            + "build in int8 with calibration data and without --min-sqnr; replace the operators named, or lower "
            "npu.min_share in a profile of your own",
        )
    ]


def _memory_findings(job: Job, compiled: Compiled) -> list[Finding]:
    limit, wanted = job.target.limits.max_arena_bytes, int(compiled.figures["sram_bytes"])
    if limit is None or wanted <= limit:
        return []
    return [
        Finding(
            code="backend/arena-too-large",
            message=f"Vela plans {wanted:,} bytes of SRAM, {job.target.id} has {limit:,}",
            where=job.name,
            rule="limits.max_arena_bytes",
            hint="take smaller inputs or fewer channels; for a system with more memory write a profile that extends "
            f'"{job.target.id}" and gives limits.max_arena_bytes',
        )
    ]


def _mac_share(work: Sequence[OpWork], cpu: Mapping[str, int]) -> float | None:
    """The share of the multiply-accumulates that is not in operators left on the CPU; None for a model without any.

    An operator kind of which some run here and some there is counted by their number.
    """
    total = sum(op.macs for op in work)
    if not total:
        return None
    by_kind: dict[str, list[int]] = {}
    for op in work:
        by_kind.setdefault(op.kind, []).append(op.macs)
    left = sum(
        sum(by_kind[kind]) * min(1.0, count / len(by_kind[kind])) for kind, count in cpu.items() if kind in by_kind
    )
    return round(1.0 - left / total, 4)


def _planned_bytes(compiled: Compiled) -> int:
    """What lies in TFLM's arena: SRAM, and with a memory mode that dedicates it to the NPU the DRAM behind it too."""
    dedicated = compiled.memory_mode.startswith("Dedicated")
    return int(compiled.figures["sram_bytes"]) + (int(compiled.figures["dram_bytes"]) if dedicated else 0)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("ethos-u-vela")
    except metadata.PackageNotFoundError:
        return ""
