"""The inputs that a module is exported with: those the user gives, else those the module brings along."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgec.errors import EdgecError
from edgec.frontends._torch_errors import first_line, own_line
from edgec.frontends._torch_tree import leaves
from edgec.registry import did_you_mean

#: Where a module may keep example inputs: ours, and what Lightning and transformers call theirs.
_ATTRIBUTES = ("example_inputs", "example_input_array", "dummy_inputs")
_DTYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.bool,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
    )
}  # fmt: skip


def examples(
    module: nn.Module, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], *, where: str
) -> dict[str, Tensor]:
    """Example inputs by (dotted) argument name. Raises `EdgecError` (`source/…`)."""
    if shapes:
        return {name: example(module, shape, dtypes.get(name), where) for name, shape in shapes.items()}
    own = next((getattr(module, name) for name in _ATTRIBUTES if getattr(module, name, None) is not None), None)
    if callable(own) and not isinstance(own, Tensor):
        own = _call(own, where)
    if own is None:
        flags = " ".join(f"--input {name}:1x3x224x224" for name in parameters(module) or ["x"])
        raise EdgecError(
            "source/needs-inputs",
            f"nothing says which inputs {type(module).__name__} takes",
            where=where,
            hint=f"give every input's shape, with your numbers: {flags}; or set example_inputs on the module",
        )
    return named(module, own)


def named(module: nn.Module, given: Any) -> dict[str, Tensor]:
    """Example inputs by name, from a dict by name, or from positional values."""
    if not isinstance(given, Mapping):
        values = list(given) if isinstance(given, (list, tuple)) else [given]
        given = dict(zip([*parameters(module), *(f"arg{i}" for i in range(len(values)))], values, strict=False))
    return {".".join(path): leaf for path, leaf in leaves(given) if isinstance(leaf, Tensor)}


def example(module: nn.Module | None, shape: tuple[int, ...], dtype: str | None, where: str) -> Tensor:
    """Noise of the shape: floats about zero, ones of integers (index 1, a length of 1, a mask that is set)."""
    kind = default_dtype(module) if dtype is None else _DTYPES.get(dtype)
    if kind is None:
        raise EdgecError(
            "source/input-type",
            f"there is no element type {dtype!r}",
            where=where,
            hint=did_you_mean(dtype or "", _DTYPES),
        )
    if not kind.is_floating_point:
        return torch.ones(shape, dtype=kind)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(kind)


def default_dtype(module: nn.Module | None) -> torch.dtype:
    """The type of float inputs: that of the module's weights."""
    weights = module.parameters() if module is not None else iter(())
    return next((w.dtype for w in weights if w.dtype in (torch.float16, torch.bfloat16, torch.float64)), torch.float32)


def parameters(module: nn.Module) -> list[str]:
    """Names of the arguments that `forward` cannot do without."""
    try:
        known = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    skipped = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in known if p.kind not in skipped and p.default is p.empty]


def _call(make: Any, where: str) -> Any:
    try:
        return make()
    except Exception as error:  # whatever the user's own code raises
        raise EdgecError(
            "source/factory-failed",
            f"the module's example_inputs() fails: {type(error).__name__}: {first_line(error)}",
            where=where,
            source=own_line(error),
            hint="give the shapes with --input",
        ) from error
