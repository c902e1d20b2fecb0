"""Weights from a file into a module: state dicts, checkpoints around them, and the prefixes that wrappers leave.

Which entry of a checkpoint is the state dict, and which prefix its keys have, follows from the module's own keys:
no list of names could hold what all training scripts do.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._torch_errors import first_line

#: Not used in inference, and absent from old checkpoints.
_NOT_NEEDED = "num_batches_tracked"
_SHOWN = 6


def read_weights(path: Path, *, trust: bool) -> Any:
    """What a file of weights holds, mapped where its format allows. Raises `EdgecError` (`source/…`)."""
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix == ".npz":
        return _arrays(path)
    try:
        return _load(path, weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise EdgecError(
            "source/untrusted",
            f"{path.name} is a pickle of more than tensors, and reading it runs whatever code it holds: "
            f"{_refused(error)}",
            where=str(path),
            hint="save the weights alone, torch.save(model.state_dict(), …); or give --trust if you made this file",
        ) from error
    except Exception as error:  # damaged archives raise several types
        raise EdgecError(
            "source/malformed",
            f"torch cannot read {path.name}: {type(error).__name__}: {first_line(error)}",
            where=str(path),
            hint="it was cut short or damaged, or is no PyTorch file: copy or save it again",
        ) from error


def _load(path: Path, *, weights_only: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=weights_only)  # the format before 1.6


def _refused(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "Unsupported" in line or "WeightsUnpickler" in line]
    return (lines[0] if lines else first_line(error)).partition("WeightsUnpickler error: ")[2][:200] or "refused"


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise EdgecError(
            "env/missing-extra",
            "reading .safetensors needs the package safetensors",
            where=str(path),
            hint="pip install 'edgec[torch]'",
        ) from error
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise EdgecError(
            "source/malformed",
            f"{path.name} is no complete safetensors file: {first_line(error)}",
            where=str(path),
            hint="it was cut short or damaged: copy it again",
        ) from error


def _arrays(path: Path) -> Mapping[str, Tensor]:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def fill(module: nn.Module, weights: Any, *, where: str) -> tuple[Finding, ...]:
    """Copy the weights into the module; returns what was left over. Raises `EdgecError` (`source/weights`)."""
    if isinstance(weights, nn.Module):
        weights = weights.state_dict()
    wanted = module.state_dict()
    candidates = [(path, _renamed(table, wanted)) for path, table in _tables(weights)]
    if not candidates:
        raise EdgecError(
            "source/weights",
            f"the file holds {type(weights).__name__}, and no table of tensors by name in it",
            where=where,
            hint="save it with torch.save(model.state_dict(), …)",
        )
    path, table = max(candidates, key=lambda c: len(wanted.keys() & c[1].keys()))
    _check(table, wanted, type(module).__name__, where)
    with torch.no_grad():
        for name, tensor in wanted.items():
            if name in table:
                tensor.copy_(table[name])
    return _left_over(table, wanted, path, where)


def _tables(found: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping of names to tensors in a checkpoint, however deep."""
    if isinstance(found, nn.Module):
        found = found.state_dict()
    if not isinstance(found, Mapping):
        return
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in found.items():
        yield from _tables(value, f"{path}.{key}" if path else str(key))


def _renamed(table: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The table under the module's own names: the prefix taken off, or put before, that most keys agree about."""
    votes: dict[tuple[str, str], int] = {("", ""): len(table.keys() & wanted.keys())}
    ends: dict[str, list[str]] = {}
    for name in wanted:
        ends.setdefault(name.rpartition(".")[2], []).append(name)
    for key in table:
        for name in ends.get(key.rpartition(".")[2], ()):
            if key.endswith("." + name):
                change = (key[: -len(name)], "")
            elif name.endswith("." + key):
                change = ("", name[: -len(key)])
            else:
                continue
            if table[key].shape == wanted[name].shape:
                votes[change] = votes.get(change, 0) + 1
    cut, add = max(votes, key=lambda change: (votes[change], change == ("", "")))
    return {add + key.removeprefix(cut): tensor for key, tensor in table.items()}


def _check(table: Mapping[str, Tensor], wanted: Mapping[str, Tensor], module: str, where: str) -> None:
    missing = [name for name in wanted if name not in table and not name.endswith(_NOT_NEEDED)]
    other = [
        f"{name} is {list(table[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted
        if name in table and table[name].shape != wanted[name].shape
    ]
    if not missing and not other:
        return
    left = [name for name in table if name not in wanted]
    parts = [
        f"{len(names)} {what} ({_some(names)})"
        for names, what in ((missing, "missing"), (other, "of another shape"), (left, "left over"))
        if names
    ]
    raise EdgecError(
        "source/weights",
        f"the weights are not those of {module}: of {len(wanted)} tensors {', '.join(parts)}",
        where=where,
        hint="--factory must make the module that was trained: same class, same sizes",
    )


def _left_over(table: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: str, where: str) -> tuple[Finding, ...]:
    left = [name for name in table if name not in wanted]
    if not left:
        return ()
    return (
        Finding(
            code="source/weights-unused",
            severity=Severity.INFO,
            message=f"{len(left)} tensors of {path or 'the file'} belong to nothing in the module ({_some(left)})",
            where=where,
            hint="heads and losses that inference does not need are fine; else check --factory",
        ),
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
