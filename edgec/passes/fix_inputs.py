"""Give every input a static shape: what the user says, what follows from it, and batch 1, which is announced.

1. A shape given by the user must agree with the dimensions that the model fixes.
2. A symbol (`batch`, `height`) that one input fixes is fixed in all.
3. A free first dimension becomes 1, unless its name says that it is no batch.
4. Anything else cannot be guessed: the error lists the exact flag to give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.registry import did_you_mean

#: Names that exporters give to dimensions that are no batch.
_NOT_BATCH = re.compile(r"seq|len|time|frame|token|height|width|chan|step|^[hwtslc]$", re.IGNORECASE)


def fix_inputs(model: Model, given: Mapping[str, tuple[int, ...]]) -> tuple[Finding, ...]:
    """Set static shapes on the graph inputs in place; returns what was assumed.

    Raises `EdgecError`: `source/unknown-input`, `source/input-shape`, `source/free-dimension`.
    """
    inputs = {value.name or "": value for value in model.ir.graph.inputs}
    for name in given:
        if name not in inputs:
            raise EdgecError(
                "source/unknown-input",
                f"the model has no input {name!r}",
                where=name,
                hint=did_you_mean(name, inputs),
            )
    changed = any(inputs[name].shape is None or tuple(inputs[name].shape) != shape for name, shape in given.items())  # type: ignore[arg-type]
    symbols: dict[str, int] = {}
    for name, shape in given.items():
        _apply_given(inputs[name], shape, symbols)
    findings: list[Finding] = []
    for name, value in inputs.items():
        if name not in given:
            _apply_symbols(value, symbols, findings)
    free = [value for name, value in inputs.items() if name not in given and not _is_static(value)]
    if free:
        raise _free_dimension(free)
    if findings or changed:
        for graph_output in model.ir.graph.outputs:
            graph_output.shape = None  # inferred anew from the inputs
    return tuple(findings)


def _dims(value: ir.Value) -> list[int | str | None]:
    """Dimensions: an integer, a symbol's name, or None.

    Negative numbers mean free in old exporters' files, and so does 0 for the first of several; elsewhere 0 is 0.
    """
    assert value.shape is not None
    dims: list[int | str | None] = []
    for axis, dim in enumerate(value.shape):
        if isinstance(dim, int):
            batch = axis == 0 and len(value.shape) > 1
            dims.append(dim if dim > 0 or (dim == 0 and not batch) else None)
        else:
            dims.append(dim.value if dim.value not in (None, "", "?") else None)
    return dims


def _is_static(value: ir.Value) -> bool:
    if not isinstance(value.type, ir.TensorType):
        return True  # sequences have no shape to fix; the backend refuses them by name
    return value.shape is not None and all(isinstance(d, int) for d in _dims(value))


def _apply_given(value: ir.Value, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    if any(d <= 0 for d in shape) and not _declared_empty(value, shape):
        raise EdgecError(
            "source/input-shape",
            f"shape {_text(shape)} for input {value.name!r} has a dimension below 1",
            where=value.name or "",
            hint="give positive numbers, such as 1x3x224x224",
        )
    if value.shape is not None:
        dims = _dims(value)
        fits = len(dims) == len(shape) and all(
            want == has for want, has in zip(shape, dims, strict=True) if isinstance(has, int)
        )
        clash = [d for d, s in zip(dims, shape, strict=False) if isinstance(d, str) and symbols.get(d, s) != s]
        if not fits or clash:
            raise EdgecError(
                "source/input-shape",
                f"shape {_text(shape)} does not fit input {value.name!r}, which is {_text(dims)}",
                where=value.name or "",
                hint=f"dimension {clash[0]!r} was given two sizes" if clash else "change only the free dimensions",
            )
        symbols.update({d: s for d, s in zip(dims, shape, strict=True) if isinstance(d, str)})
    value.shape = ir.Shape(shape)


def _declared_empty(value: ir.Value, shape: tuple[int, ...]) -> bool:
    """Whether the zeros in a given shape are the model's own, or the shape is that of a list of free length."""
    if value.shape is not None and shape == (0,) and len(value.shape) == 1 and not isinstance(value.shape[0], int):
        return True
    return (
        value.shape is not None
        and len(value.shape) == len(shape)
        and all(d > 0 or (d == 0 and own == 0) for d, own in zip(shape, value.shape, strict=True))
    )


def _apply_symbols(value: ir.Value, symbols: dict[str, int], findings: list[Finding]) -> None:
    if value.shape is None:
        return
    dims = _dims(value)
    sizes: list[int | str | None] = []
    for axis, dim in enumerate(dims):
        if isinstance(dim, str) and dim in symbols:
            sizes.append(symbols[dim])
            continue
        if axis == 0 and not isinstance(dim, int) and not (dim and _NOT_BATCH.search(dim)):
            sizes.append(1)
            if dim:
                symbols[dim] = 1
            findings.append(
                Finding(
                    code="source/default-shape",
                    severity=Severity.INFO,
                    message=f"input {value.name!r} dimension {dim or axis!r} fixed to 1",
                    where=value.name or "",
                    hint="another batch: --input " + _flag(value, [2, *dims[1:]]),
                )
            )
            continue
        sizes.append(dim)
    value.shape = ir.Shape(sizes)


def _free_dimension(free: list[ir.Value]) -> EdgecError:
    flags = " ".join("--input " + _flag(value, None) for value in free)
    names = ", ".join(
        f"{value.name!r} ({_text(_dims(value)) if value.shape is not None else 'of unknown rank'})" for value in free
    )
    return EdgecError(
        "source/free-dimension",
        f"the shape of {names} is not fixed, and cannot be guessed",
        where=free[0].name or "",
        hint=f"give it, with numbers for the letters: {flags}",
    )


def _flag(value: ir.Value, dims: list[int | str | None] | None) -> str:
    if value.shape is None:
        return f"{value.name}:AxBx…"
    letters = iter("HWLKMNPQRS")
    shown = [str(d) if isinstance(d, int) else next(letters, "X") for d in dims or _dims(value)]
    return f"{value.name}:{'x'.join(shown)}"


def _text(dims: Sequence[int | str | None]) -> str:
    return "x".join("?" if d is None else str(d) for d in dims)
