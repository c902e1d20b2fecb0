"""What torch, its exporter and the user's own code complain about, as errors with the user's own line.

Own lines are those outside torch and edgec: the last of them in a traceback, or in the stack that the exporter
keeps with each operator.
"""

from __future__ import annotations

import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgec.errors import EdgecError, Finding
from edgec.frontends._torch_quiet import quiet

_PACKAGE = Path(__file__).resolve().parent.parent
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
#: Not the user's: torch and its exporter, here or where a program was saved, and Python's import machinery.
_LIBRARIES = (
    *(f"-packages/{name}/" for name in ("torch", "onnxscript", "onnx_ir")),
    f"{Path(torch.__file__).parent}/",
    f"{Path(importlib.__file__).parent}/",
    "<frozen",
)
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']*)'\)>")
_NODE = re.compile(r"translating node %(\w+) .*?call_function\[target=([\w.]+)\]")
_DATA = ("DataDependent", "data-dependent", "unbacked", "control flow", "Could not guard on")


def own_line(error: BaseException) -> str:
    """`file.py:12` of the last line of the user's own in the error's traceback, or nothing."""
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    own = [frame for frame in frames if _is_own(frame[0])]
    if isinstance(error, SyntaxError) and error.filename:
        own.append((error.filename, error.lineno or 0))
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""


def _is_own(file: str) -> bool:
    if file.startswith(str(_PACKAGE)):
        return False
    return not any(part in file for part in _LIBRARIES)


def first_line(error: BaseException) -> str:
    """The first line of what an error says (TorchScript's last one), or its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and "TorchScript interpreter" in lines[0]:
        lines.reverse()
    return lines[0][:300] if lines else type(error).__name__


def of_forward(error: Exception, module: nn.Module, arguments: Mapping[str, Any], where: str) -> EdgecError:
    """The module itself fails on the example inputs."""
    wanted = _parameters(module)
    unknown = [name for name in arguments if wanted and name not in wanted]
    if isinstance(error, TypeError) and (unknown or "missing" in str(error)):
        return EdgecError(
            "source/unknown-input",
            f"forward() of {type(module).__name__} takes {', '.join(wanted)}; given was {', '.join(arguments)}",
            where=where,
            source=own_line(error),
            hint="name the inputs as forward() does: " + " ".join(f"--input {name}:SHAPE" for name in wanted),
        )
    given = ", ".join(f"{name} {_shape(value)}" for name, value in arguments.items())
    return EdgecError(
        "source/forward-failed",
        f"{type(module).__name__} fails on the inputs given ({given}): {type(error).__name__}: {first_line(error)}",
        where=where,
        source=own_line(error),
        hint="check the shapes and types of --input: name:1x3x224x224 or name:1x128:int64",
    )


def _parameters(module: nn.Module) -> list[str]:
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    return [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return "(" + ", ".join(_shape(member) for member in value) + ")"
    return type(value).__name__


def check_outputs(given: Sequence[tuple[tuple[str, ...], Any]], where: str) -> None:
    """Every output must be a tensor. Raises `EdgecError` (`source/bad-output`)."""
    wrong = [(".".join(path) or "the output", value) for path, value in given if not isinstance(value, Tensor)]
    if wrong or not given:
        names = ", ".join(f"{name} is {type(value).__name__}" for name, value in wrong[:5]) or "it gives none"
        raise EdgecError(
            "source/bad-output",
            f"forward() must return tensors, alone or in tuples, lists, dicts or dataclasses: {names}",
            where=where,
            hint="return tensors only; wrap the module in one whose forward() picks them",
        )


def of_capture(error: Exception, where: str) -> EdgecError:
    """torch.export refuses the module."""
    text = f"{type(error).__name__}: {error}"
    line = own_line(error) or _line_in(str(error))
    if any(word in text for word in _DATA):
        return EdgecError(
            "source/data-dependent",
            f"what is computed depends on the values of a tensor, which no fixed graph can hold: {first_line(error)}",
            where=where,
            source=line,
            hint="choose with torch.where, or with torch.cond where a branch must not run; make sizes constants",
        )
    return EdgecError(
        "source/export-failed",
        f"torch.export cannot capture the module: {type(error).__name__}: {first_line(error)}",
        where=where,
        source=line,
        hint="see https://pytorch.org/docs/stable/export.html for what it can; or give an ONNX file",
    )


def of_conversion(error: Exception, program: ExportedProgram, where: str) -> EdgecError:
    """The exporter has no ONNX for operators, or fails on one."""
    chain = _chain(error)
    text = "\n".join(str(entry) for entry in chain)
    missing = _OPERATOR.search(text)
    if missing:
        return _unsupported(missing[1], program, where)
    failed = _NODE.search(text)
    source = next((_place(node) for node in program.graph.nodes if failed and node.name == failed[1]), "")
    return EdgecError(
        "source/export-failed",
        f"the exporter fails{' on ' + failed[2] if failed else ''}: "
        f"{type(chain[-1]).__name__}: {first_line(chain[-1])}",
        where=where,
        source=source,
        hint="write the operation with plain torch operators, or export to ONNX by other means and give that file",
    )


def _unsupported(first: str, program: ExportedProgram, where: str) -> EdgecError:
    """Every node whose operator has no ONNX counterpart, though the exporter stops at the first."""
    known, stem = _known_to_exporter(), first.replace("::", ".") + "."
    nodes = [
        node
        for node in _decomposed(program)
        if isinstance(node.target, torch._ops.OpOverload)
        and (str(node.target).startswith(stem) or not known(node.target))
    ]
    findings = [
        Finding(
            code="source/unsupported-operator",
            message=f"{str(node.target).rpartition('.')[0]} has no ONNX counterpart",
            where=str(node.name),
            source=_place(node),
            hint="write it with plain torch operators, or register a decomposition of the custom operator",
        )
        for node in nodes
    ]
    names = sorted({finding.message.partition(" ")[0] for finding in findings}) or [first.replace("::", ".")]
    return EdgecError(
        "source/unsupported-operator",
        f"the module uses operators that have no ONNX counterpart: {', '.join(names)}",
        where=where,
        source=findings[0].source if findings else "",
        hint="write them with plain torch operators, or register decompositions of custom operators",
        findings=findings if len(findings) > 1 else (),
    )


def _decomposed(program: ExportedProgram) -> list[torch.fx.Node]:
    """The nodes as the exporter sees them, near enough: composites taken apart by torch's own rules."""
    try:
        with quiet():
            return list(program.run_decompositions().graph.nodes)
    except Exception:  # noqa: BLE001  # an operator may fail in its own decomposition: the message says less then
        return list(program.graph.nodes)


def _known_to_exporter() -> Callable[[Any], bool]:
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        with quiet():
            return ONNXRegistry.from_torchlib().is_registered
    except (ImportError, AttributeError):  # no public way asks the exporter what it knows
        return lambda _: True


def _place(node: torch.fx.Node) -> str:
    """`layer3.0.conv2, resnet.py:92` of a node in an exported program."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    layer = str(stack[-1][0]) if stack else ""
    line = _line_in(str(node.meta.get("stack_trace") or ""))
    return ", ".join(part for part in (layer, line) if part)


def of_script(error: Exception, where: str) -> EdgecError:
    """The exporter of TorchScript fails."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    operator = re.search(r"operator '?([\w:]+)'?", lines[0]) if lines else None
    unsupported = operator is not None and "support" in lines[0].lower()
    return EdgecError(
        "source/unsupported-operator" if unsupported else "source/export-failed",
        f"the TorchScript exporter fails: {first_line(error)}",
        where=where,
        source=_line_in(str(error)),
        hint="save it with torch.export.save, or give the Python that makes it: package.module:factory",
    )


def _chain(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _line_in(text: str) -> str:
    own = [(file, line) for file, line, _ in _FRAME.findall(text) if _is_own(file)]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""


def of_count(what: str, found: int, names: Sequence[str]) -> EdgecError:
    """The exported graph has another number of inputs or outputs than the module."""
    return EdgecError(
        "source/export-failed",
        f"the exported graph has {found} {what} where the module has {len(names)} ({', '.join(names)})",
        hint=f"torch {torch.__version__} changed the model's interface: report it, with the model if you can",
    )
