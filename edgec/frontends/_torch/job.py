"""What the torch frontend's process does: get the module of a source, its example inputs, and export it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from edgec.errors import EdgecError, Finding
from edgec.frontends._torch.examples import examples
from edgec.frontends._torch.factory import importable, make, stem
from edgec.frontends._torch.program import export_saved
from edgec.frontends._torch.script import export_script, load_script, script_examples
from edgec.frontends._torch.state import fill, read_weights
from edgec.frontends._torch_export import answers, export_module
from edgec.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to read and how: the frontend's request in plain values. `kind`: factory, program, script or state."""

    kind: str
    spec: str
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    factory: str | None = None
    trust: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """The model, the name that its bundle gets, what the user should know, and what torch itself computes once."""

    model: ir.Model
    name: str
    findings: tuple[Finding, ...] = ()
    inputs: Mapping[str, Array] = field(default_factory=dict)
    outputs: Mapping[str, Array] = field(default_factory=dict)


def run(job: Job) -> Exported:
    """Export a source. Raises `EdgecError` (`source/…`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # what is made with random weights is the same in two builds
        return _KINDS[job.kind](job)


def _factory(job: Job) -> Exported:
    return _export(job, make(job.spec, job.spec), stem(job.spec), ())


def _export(job: Job, module: nn.Module, name: str, findings: tuple[Finding, ...]) -> Exported:
    if isinstance(module, torch.jit.ScriptModule):
        inputs = script_examples(module, job.inputs, job.dtypes, where=job.spec)
        model = export_script(module, inputs, name=name, where=job.spec)
    else:
        inputs = examples(module, job.inputs, job.dtypes, where=job.spec)
        model = export_module(module, inputs, name=name, where=job.spec)
    fed, given = answers(module, inputs, [value.name or "" for value in model.graph.outputs])
    return Exported(model=model, name=name, findings=findings, inputs=fed, outputs=given)


def _program(job: Job) -> Exported:
    model, findings = export_saved(Path(job.spec), trust=job.trust, given=job.inputs)
    return Exported(model=model, name=Path(job.spec).stem, findings=findings)


def _script(job: Job) -> Exported:
    return _export(job, load_script(Path(job.spec)), Path(job.spec).stem, ())


def _state(job: Job) -> Exported:
    path = Path(job.spec)
    with importable(job.spec):  # a pickle that is trusted imports the classes it holds
        weights = read_weights(path, trust=job.trust)
    if isinstance(weights, nn.Module):
        return _export(job, weights, path.stem, ())
    if job.factory is None:
        raise EdgecError(
            "source/needs-factory",
            f"{path.name} holds weights only, and nothing says how they are computed with",
            where=job.spec,
            hint="name what makes the module: --factory package.module:function, or --factory file.py:function",
        )
    module = make(job.factory, job.spec)
    findings = fill(module, weights, where=job.spec)
    del weights  # a map of the file: its pages need not outlive the copy
    return _export(job, module, path.stem, findings)


_KINDS = {"factory": _factory, "program": _program, "script": _script, "state": _state}
