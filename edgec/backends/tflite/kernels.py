"""What the target's runtime can run: its kernels by operator and element type, as the profile lists them.

1. A table with no rows means a runtime that has every kernel.
2. A row without types means a kernel that takes any type.
3. What counts is the type of the values an operator works on: its computed data inputs, else its output.
4. A runtime with a table takes no dynamic shapes and no float values beside integer weights either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgec.backends.tflite.quantized_ops import HYBRID
from edgec.backends.tflite.tir import Graph, Op
from edgec.backends.tflite.types import data_positions
from edgec.backends.tflite.versions import stored
from edgec.errors import Finding
from edgec.targets.profile import Target
from edgec.tensors import DType

Kernels = Mapping[str, Sequence[str]]


def kernels_of(target: Target) -> Kernels:
    """The kernels that a target's TFLite runtime has; empty for all."""
    facts = target.backends.get("tflite")
    return {} if facts is None else facts.kernels


def faster_in_float(target: Target) -> frozenset[str]:
    """Operators that a target's TFLite runtime runs faster in float than in int8."""
    facts = target.backends.get("tflite")
    return frozenset() if facts is None else frozenset(facts.faster_in_float)


def has_kernel(kernels: Kernels, kind: str, dtype: DType | None = None) -> bool:
    """Whether the runtime has the operator, on a type or on any."""
    if not kernels:  # rule 1
        return True
    row = kernels.get(kind)
    return row is not None and (not row or dtype is None or str(dtype) in row)  # rule 2


def working_type(op: Op) -> DType | None:
    """Rule 3; None for an operator that works on no tensor, such as CALL_ONCE."""
    values = [t for i in data_positions(op) if (t := op.inputs[i]) is not None]
    computed = [t for t in values if not t.is_const]
    known = computed or values or op.outputs
    return stored(known[0]) if known else None


def check_kernels(graph: Graph, target: Target) -> list[Finding]:
    """Every operator that the runtime has no kernel for, and every shape it cannot plan memory for."""
    kernels = kernels_of(target)
    if not kernels:
        return []
    findings = [found for op in graph.every_op() if (found := _missing(op, kernels, target)) is not None]
    loose = [t for t in graph.inputs if any(d < 0 for d in t.shape)]
    loose += [t for op in graph.every_op() for t in op.outputs if any(d < 0 for d in t.shape)]
    findings += [
        Finding(
            code="backend/dynamic-shape",
            message=f"{t.name!r} has the shape {list(t.shape)}; {target.id} plans its memory when compiling",
            where=t.name,
            rule="tflite/static-shapes",
            hint="fix the inputs' shapes, as in --input image:1x3x96x96",
        )
        for t in dict.fromkeys(loose)
    ]
    return findings


def _missing(op: Op, kernels: Kernels, target: Target) -> Finding | None:
    dtype = working_type(op)
    runtime = target.backends["tflite"].runtime.package
    if op.kind in HYBRID and dtype == DType.FLOAT32 and stored(op.inputs[1]) == DType.INT8:  # rule 4
        what = "float values with int8 weights"
        hint = "take --precision int8, or float32"
    elif has_kernel(kernels, op.kind, dtype):
        return None
    elif op.kind not in kernels:
        what, hint = "this operator", f"replace it in the source model by operators that {runtime} has"
    else:
        what = f"{dtype} (it has {', '.join(kernels[op.kind])})"
        hint = "take another --precision, or replace the operator in the source model"
    return Finding(
        code="backend/no-kernel",
        message=f"{op.kind}: {runtime} has no kernel for {what}",
        where=op.origin,
        rule="backends.tflite.kernels",
        hint=hint,
    )
