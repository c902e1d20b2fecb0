"""What torch, its exporter and the user's own code complain about, as errors with the user's own line.

Own lines are those outside torch and edgec: the last of them in a traceback, or in the stack that the exporter
keeps with each operator.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgec.errors import EdgecError

_PACKAGE = Path(__file__).resolve().parent.parent
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_LIBRARIES = ("/torch/", "/onnxscript/", "/onnx_ir/", "/importlib/", "<frozen")
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']*)'\)>")
_NODE = re.compile(r"call_function\[target=([\w.]+)\]")
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
    """The first line of what an error says, or its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
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


def of_conversion(error: Exception, where: str) -> EdgecError:
    """The exporter has no ONNX for an operator, or fails on it."""
    chain = list(_chain(error))
    text = "\n".join(str(entry) for entry in chain)
    missing = _OPERATOR.search(text)
    node = _NODE.search(text)
    line = _line_in(text)
    if missing:
        return EdgecError(
            "source/unsupported-operator",
            f"{missing[1].replace('::', '.')} has no ONNX counterpart",
            where=where,
            source=line,
            hint="write it with plain torch operators, or register a decomposition of the custom operator",
        )
    return EdgecError(
        "source/export-failed",
        f"the exporter fails{' on ' + node[1] if node else ''}: {type(chain[-1]).__name__}: {first_line(chain[-1])}",
        where=where,
        source=line,
        hint="write the operation with plain torch operators, or export to ONNX by other means and give that file",
    )


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
