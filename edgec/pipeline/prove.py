"""`edgec validate` as a whole: a bundle's goldens on a device, then the application, a labelled set, the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgec.bundle.bundle import Bundle
from edgec.bundle.open import open_bundle
from edgec.bundle.proofs import write_proof
from edgec.devices.base import Facts, Transport
from edgec.devices.inventory import find_inventory
from edgec.devices.open import open_device
from edgec.devices.probe import probe
from edgec.errors import EdgecError, Finding, Severity
from edgec.pipeline.proof.application import Application, judge_application
from edgec.pipeline.proof.cuts import Stage
from edgec.pipeline.proof.labelled import Labelled, judge_labelled
from edgec.pipeline.proof.layers import Layers, compare_layers
from edgec.pipeline.stages import Progress
from edgec.runners.kernels import EXACT, SETS
from edgec.runners.validate import Validation, validate_bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What to do beside the goldens.

    `runs` are the benchmark's, 0 for none. `app` or `dump` judge an application on `data`; without them `data` is
    a labelled set, judged by `metric`. `record` writes what was found beside the bundle, signed with `sign_key`.
    """

    threads: Sequence[int] = (1,)
    runs: int = 50
    kernels: str = "default"
    sustained_s: float = 0.0
    data: str | None = None
    metric: str | None = None
    samples: int | None = None
    app: Path | None = None
    dump: str | None = None
    record: bool = False
    sign_key: Path | None = None
    timeout_s: float = 300.0


def run_validate(
    path: str | Path,
    *,
    device: str = "local",
    inventory: str | Path | None = None,
    wishes: Wishes | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Everything that was found, as the JSON object of the command line.

    Raises `EdgecError`: bundle/…, device/…, calibration/…, cli/validate-options.
    """
    asked = wishes or Wishes()
    _check(asked)
    with open_bundle(path) as bundle, open_device(device, inventory=find_inventory(inventory)) as opened:
        return prove(bundle, opened, asked, progress)


def prove(bundle: Bundle, device: Transport, wishes: Wishes, progress: Progress | None = None) -> dict[str, Any]:
    """`run_validate` for what is open already."""
    steps = 2 + (wishes.data is not None)
    done = 0

    def step(name: str) -> None:
        nonlocal done
        if progress is not None:
            progress(name, done, steps)
        done += 1

    step("look")
    facts = probe(device)
    step("goldens")
    validation = validate_bundle(
        bundle,
        device=device,
        threads=wishes.threads,
        runs=wishes.runs,
        kernels=wishes.kernels,
        sustained_s=wishes.sustained_s,
        timeout_s=wishes.timeout_s,
        facts=facts,
    )
    layers = _layers(bundle, device, validation, wishes)
    validation = _with_layer(validation, layers)
    stages: tuple[Stage, ...] = ()
    labelled: Labelled | None = None
    findings = list(validation.findings)
    if wishes.data is not None and validation.runtime:
        step("data")
        if wishes.app is not None or wishes.dump is not None:
            stages = _application(bundle, device, validation, wishes)
            findings += [finding for stage in stages for finding in stage.findings]
        else:
            labelled = judge_labelled(
                bundle, device, wishes.data, metric=wishes.metric, samples=wishes.samples, timeout_s=wishes.timeout_s
            )
            findings += labelled.findings
    answer = _answer(validation, facts, stages, labelled, findings)
    if layers is not None:
        answer["integer_tensors"] = {"compared": layers.integers, "equal": layers.integers_equal}
    if wishes.record:
        answer["record"] = str(_record(bundle, device.name, answer, wishes))
    return answer


def _check(wishes: Wishes) -> None:
    """Options that mean nothing together."""
    problem = ""
    if (wishes.app or wishes.dump) and wishes.data is None:
        problem = "--app and --dump need the samples: --data FOLDER"
    elif wishes.app and wishes.dump:
        problem = "--app and --dump exclude each other"
    elif wishes.metric and (wishes.data is None or wishes.app or wishes.dump):
        problem = "--metric is measured on labelled --data, without --app or --dump"
    elif wishes.sign_key and not wishes.record:
        problem = "--sign-key signs a record: add --record"
    if problem:
        raise EdgecError("cli/validate-options", problem, hint="edgec validate --help")


def _application(bundle: Bundle, device: Transport, validation: Validation, wishes: Wishes) -> tuple[Stage, ...]:
    """The three cut points, the model's with the kernels that ran there."""
    assert wishes.data is not None
    kernels = next((name for name, called in SETS.items() if called == validation.kernel_set), "default")
    manifest = bundle.manifest
    # Bits are asked for where the goldens had them; a runtime that an application brings itself may be another one.
    exact = bool(validation.bit_exact) and manifest.precision in EXACT and wishes.dump is None
    return judge_application(
        bundle,
        device,
        Application(data=wishes.data, app=wishes.app, dump=wishes.dump, samples=wishes.samples),
        kernels=kernels if manifest.runner == "tflite" else "default",
        exact=exact,
        timeout_s=wishes.timeout_s,
    )


#: What is looked into layer by layer.
_LOOKED_INTO = ("validate/not-exact", "validate/float-rounding")


def _layers(bundle: Bundle, device: Transport, validation: Validation, wishes: Wishes) -> Layers | None:
    """All tensors there and here, where the outputs are not equal and the kernels should be."""
    if not any(finding.code in _LOOKED_INTO for finding in validation.findings):
        return None
    return compare_layers(bundle, device, kernels=wishes.kernels, timeout_s=wishes.timeout_s)


def _with_layer(validation: Validation, layers: Layers | None) -> Validation:
    """Bits that differ get the name of the first layer in which they do."""
    if layers is None:
        return validation
    first = layers.first
    where = "no single layer: with all tensors as outputs, none differs" if first is None else f"first in {first}"
    return replace(
        validation,
        findings=tuple(
            replace(finding, where=where) if finding.code in _LOOKED_INTO else finding
            for finding in validation.findings
        ),
    )


def _answer(
    validation: Validation,
    facts: Facts,
    stages: Sequence[Stage],
    labelled: Labelled | None,
    findings: Sequence[Finding],
) -> dict[str, Any]:
    """The object for --json: what was validated, on what, and how it went."""
    found = replace(
        validation,
        passed=all(finding.severity != Severity.ERROR for finding in findings),
        findings=tuple(findings),
    ).as_dict()
    known = asdict(facts)
    shown = ("board", "cpu", "cpus", "arch", "system", "kernel", "libc", "python", "features", "celsius", "cpu_mhz",
             "governor", "memory_bytes", "sys_visible")  # fmt: skip
    answer = {**found, "hardware": {key: known[key] for key in shown if known[key] not in (None, "", (), {})}}
    guilty = [stage.stage for stage in stages if stage.passed is False]
    if stages:
        answer["stages"] = [stage.as_dict() for stage in stages]
        answer["guilty"] = guilty
    if labelled is not None:
        answer["task"] = labelled.as_dict()
    return answer


def _record(bundle: Bundle, device: str, answer: dict[str, Any], wishes: Wishes) -> Path:
    """The answer as a record beside the bundle."""
    facts = answer["hardware"]
    found = {key: value for key, value in answer.items() if key != "hardware"}
    return write_proof(
        bundle,
        device=device,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict="proven" if answer["passed"] else "failed",
        facts=facts,
        validation=found,
        sign_key=wishes.sign_key,
    )
