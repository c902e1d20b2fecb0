"""Read an ExportedProgram (`.pt2`): names from its record of the call, training mode turned off.

torch's loader falls back to full unpickling where the safe way fails; without the user's trust that is closed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._torch_errors import first_line
from edgec.frontends._torch_export import export_program
from edgec.frontends._torch_quiet import quiet
from edgec.frontends._torch_tree import dotted, leaves, unique
from edgec.registry import did_you_mean

#: Operators with a `training` argument, and its position.
_TRAINING = {"aten.dropout.default": 2, "aten.batch_norm.default": 5, "aten.feature_dropout.default": 2}


def export_saved(
    path: Path, *, trust: bool, given: Mapping[str, tuple[int, ...]]
) -> tuple[ir.Model, tuple[Finding, ...]]:
    """The program in a file, as an ONNX model. Raises `EdgecError` (`source/…`)."""
    program = _load(path, trust)
    findings = _to_inference(program, path)
    inputs, outputs = _names(program)
    for name in given:
        if name not in inputs:
            raise EdgecError(
                "source/unknown-input",
                f"the program has no input {name!r}",
                where=str(path),
                hint=did_you_mean(name, inputs),
            )
    return export_program(program, inputs, outputs, name=path.stem, where=str(path)), findings


def _load(path: Path, trust: bool) -> ExportedProgram:
    try:
        with quiet(), contextlib.nullcontext() if trust else _only_weights():
            return torch.export.load(path)
    except Exception as error:  # damaged archives, other versions and refused pickles raise many types
        text = f"{type(error).__name__}: {first_line(error)}"
        if "weights" in text.lower() and "load failed" in text.lower():
            raise EdgecError(
                "source/untrusted",
                f"{path.name} holds a pickle of more than tensors, and reading it would run its code",
                where=str(path),
                hint="save it again with a current torch; or give --trust if you made this file",
            ) from error
        raise EdgecError(
            "source/malformed",
            f"torch {torch.__version__} cannot read {path.name} as an ExportedProgram: {text}",
            where=str(path),
            hint="save it again with torch.export.save of the torch that is installed here",
        ) from error


@contextlib.contextmanager
def _only_weights() -> Iterator[None]:
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def _to_inference(program: ExportedProgram, path: Path) -> tuple[Finding, ...]:
    changed = 0
    for node in program.graph.nodes:
        position = _TRAINING.get(str(node.target))
        if position is not None and len(node.args) > position and node.args[position] is True:
            node.update_arg(position, False)
            changed += 1
    if not changed:
        return ()
    return (
        Finding(
            code="source/training-mode",
            severity=Severity.WARNING,
            message=f"captured in training mode; {changed} dropouts and BatchNorms are set to inference",
            where=str(path),
            hint="call model.eval() before torch.export.export: other parts may behave differently too",
        ),
    )


def _names(program: ExportedProgram) -> tuple[list[str], list[str]]:
    """Names of the tensors that go in, and of those that come out."""
    user = program.graph_signature.user_inputs
    inputs = [str(name) for name in user if isinstance(name, str)]
    spec = program.call_spec.in_spec
    if spec is not None:
        paths = _paths(_by_name(program, pytree.tree_unflatten(list(range(len(user))), spec)))
        if len(paths) == len(user):
            tensors = [index for index, name in enumerate(user) if isinstance(name, str) and _is_tensor(program, name)]
            inputs = [dotted(paths[index], "input") for index in tensors]
    given = program.graph_signature.user_outputs
    outputs = [f"output_{index}" for index in range(len(given))] if len(given) > 1 else ["output"]
    if program.call_spec.out_spec is not None:
        result = pytree.tree_unflatten(list(range(len(given))), program.call_spec.out_spec)
        paths = _paths(result)
        if len(paths) == len(given):
            outputs = [dotted(paths[index], "output") for index, name in enumerate(given) if isinstance(name, str)]
    return inputs, unique(outputs, inputs)


def _by_name(program: ExportedProgram, call: Any) -> dict[str, Any]:
    args, kwargs = call
    record = program.module_call_graph[0].signature if program.module_call_graph else None
    names = getattr(record, "forward_arg_names", None) or [f"arg{index}" for index in range(len(args))]
    return {**dict(zip(names, args, strict=False)), **kwargs}


def _paths(tree: Any) -> dict[int, tuple[str, ...]]:
    return {leaf: path for path, leaf in leaves(tree) if isinstance(leaf, int)}


def _is_tensor(program: ExportedProgram, name: str) -> bool:
    return any(
        node.name == name and isinstance(node.meta.get("val"), Tensor)
        for node in program.graph.nodes
        if node.op == "placeholder"
    )
