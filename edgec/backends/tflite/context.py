"""What a lowering works with: the TIR under construction and the few moves that every family needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.graph.model import dtype_of, label, origin, shape_of
from edgec.tensors import Array, DType


class Refusal(Exception):  # noqa: N818  # not an error of ours: a node that is declined
    """A node that TFLite cannot express: the rule that is broken, and what the user can do."""

    def __init__(self, rule: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.rule, self.message, self.hint = rule, message, hint


@dataclass(slots=True)
class Context:
    """Lowers ONNX nodes into `graph`; `values` maps ONNX values to tensors."""

    graph: Graph
    opset: int
    values: dict[ir.Value, Tensor] = field(default_factory=dict)
    node: ir.Node | None = None
    counter: int = 0
    #: Results of refused nodes of which not even the shape is known: nothing is said about what reads them.
    blind: set[ir.Value] = field(default_factory=set)
    constants: dict[tuple[str, bytes], Tensor] = field(default_factory=dict)
    #: float32 results that a tensor of another float type was rounded from
    wider: dict[Tensor, Tensor] = field(default_factory=dict)
    #: float64 is computed as such, see `ops.double`
    double: bool = False

    # --- reading the node -------------------------------------------------------------------------

    def tensor(self, value: ir.Value | None) -> Tensor:
        """The tensor of an ONNX value. Raises Refusal for an absent or unknown one."""
        if value is None or value not in self.values:
            raise Refusal("inputs", f"input {value.name if value else '(absent)'} is not available")
        return self.values[value]

    def inputs(self, node: ir.Node) -> list[Tensor | None]:
        """Tensors of all inputs; None where an optional one is left out."""
        return [None if v is None else self.tensor(v) for v in node.inputs]

    def out_spec(self, node: ir.Node, index: int = 0) -> tuple[str, tuple[int, ...], DType]:
        """Name, shape and element type of an output."""
        value = node.outputs[index]
        return value.name or f"{node.name}:{index}", shape_of(value), dtype_of(value)

    def const(self, t: Tensor | None, what: str) -> Array:
        """A constant operand's real values. Raises Refusal when it is computed at run time."""
        if t is None or t.data is None:
            raise Refusal(f"{what}-constant", f"{what} must be known when compiling")
        return t.real()

    # --- writing TIR ------------------------------------------------------------------------------

    def name(self, hint: str = "") -> str:
        """A fresh tensor name that tells which node it belongs to."""
        self.counter += 1
        stem = self.node.outputs[0].name if self.node is not None and self.node.outputs else "t"
        return f"{stem}/{hint or 't'}{self.counter}"

    def emit(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        dtype: DType,
        **options: Any,
    ) -> Tensor:
        """Append an operator with one output and return that output."""
        out = Tensor(name=self.name(kind.lower()), shape=tuple(int(d) for d in shape), dtype=dtype)
        self.emit_multi(kind, inputs, [out], **options)
        return out

    def emit_multi(self, kind: str, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], **options: Any) -> None:
        """Append an operator with the given outputs."""
        where = "" if self.node is None else label(self.node)
        source = "" if self.node is None else origin(self.node)
        self.graph.ops.append(
            Op(
                kind=kind,
                inputs=list(inputs),
                outputs=list(outputs),
                options=options,
                origin=f"{where} ({source})" if source else where,
            )
        )

    def new(self, shape: Sequence[int], dtype: DType, hint: str = "") -> Tensor:
        """A tensor that a following `emit_multi` computes."""
        return Tensor(name=self.name(hint), shape=tuple(int(d) for d in shape), dtype=dtype)

    def constant(self, data: Array | Sequence[int] | Sequence[float] | float, dtype: DType) -> Tensor:
        """A constant tensor of this graph; equal constants are shared."""
        array = np.asarray(data, dtype.numpy)
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if array.size > 1024:
            return constant(self.name("const"), array)
        if key not in self.constants:
            self.constants[key] = constant(self.name("const"), array)
        return self.constants[key]

    def int32(self, values: Sequence[int] | int | Array) -> Tensor:
        """An int32 constant."""
        return self.constant(np.asarray(values, np.int32), DType.INT32)

    def transpose(self, t: Tensor, perm: Sequence[int]) -> Tensor:
        """`t` with its axes permuted (numpy convention); constants are permuted at once."""
        if tuple(perm) == tuple(range(t.rank)):
            return t
        if t.data is not None:
            return _permute_const(t, tuple(perm))
        if t in self.wider:
            return self._narrowed(self.transpose(self.wider[t], perm), t.dtype)
        shape = [t.shape[p] for p in perm]
        return self.emit("TRANSPOSE", [t, self.int32(list(perm))], shape, t.dtype)

    def reshape(self, t: Tensor, shape: Sequence[int]) -> Tensor:
        """`t` with another shape of the same size; constants are reshaped at once."""
        shape = tuple(int(d) for d in shape)
        if shape == t.shape:
            return t
        if t.data is not None and (t.storage is None or t.storage.qparams.axis is None):
            return Tensor(
                name=self.name("reshaped"), shape=shape, dtype=t.dtype, data=t.data.reshape(shape), storage=t.storage
            )
        if not shape:  # the file cannot hold an empty list of sizes as a constant
            return self.emit("SQUEEZE", [t], shape, t.dtype, squeezeDims=np.arange(t.rank, dtype=np.int32))
        if t in self.wider:
            return self._narrowed(self.reshape(self.wider[t], shape), t.dtype)
        return self.emit("RESHAPE", [t, self.int32(list(shape))], shape, t.dtype, newShape=np.asarray(shape, np.int32))

    def _narrowed(self, wide: Tensor, dtype: DType) -> Tensor:
        """A float32 value in the type it is to have; operators that compute in float32 find the value itself."""
        narrow = self.emit("CAST", [wide], wide.shape, dtype, inDataType=wide.dtype, outDataType=dtype)
        self.wider[narrow] = wide
        return narrow

    def cast(self, t: Tensor, dtype: DType) -> Tensor:
        """`t` with another element type; constants are cast at once."""
        if t.dtype == dtype:
            return t
        if t.data is not None and t.storage is None:
            return constant(self.name("cast"), t.data.astype(dtype.numpy))
        return self.emit("CAST", [t], t.shape, dtype, inDataType=t.dtype, outDataType=dtype)

    def binary(self, kind: str, a: Tensor, b: Tensor, **options: Any) -> Tensor:
        """An elementwise operator with numpy broadcasting."""
        shape = broadcast_shapes(a.shape, b.shape)
        return self.emit(kind, [a, b], shape, a.dtype, **options)

    def unary(self, kind: str, a: Tensor, **options: Any) -> Tensor:
        """An elementwise operator with one operand."""
        return self.emit(kind, [a], a.shape, a.dtype, **options)

    def scalar(self, value: float, like: Tensor) -> Tensor:
        """A scalar constant of `like`'s element type."""
        return self.constant(np.asarray(value, like.dtype.numpy), like.dtype)


Lowering = Callable[[Context, ir.Node], Any]


def _permute_const(t: Tensor, perm: tuple[int, ...]) -> Tensor:
    if t.data is None:
        raise ValueError(f"{t.name} is not constant")
    storage = t.storage
    if storage is not None and storage.qparams.axis is not None:
        storage = Storage(storage.dtype, replace(storage.qparams, axis=perm.index(storage.qparams.axis)))
    data = np.ascontiguousarray(t.data.transpose(perm))
    return Tensor(name=f"{t.name}/T", shape=tuple(data.shape), dtype=t.dtype, data=data, storage=storage)


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """numpy's rule for shapes of which sizes may be unknown (-1): a known size above 1 decides."""
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
        known = sizes - {-1}
        if len(known) > 1:
            raise Refusal("broadcast", f"shapes {', '.join(map(str, shapes))} do not fit together")
        result.append(known.pop() if known else -1 if sizes else 1)
    return tuple(result)


def normalize_axis(axis: int, rank: int) -> int:
    """A non-negative axis. Raises Refusal when it lies outside the rank."""
    if not -max(rank, 1) <= axis < max(rank, 1):
        raise Refusal("axis", f"axis {axis} is out of range for rank {rank}")
    return axis + rank if axis < 0 else axis


__all__ = ["Context", "Lowering", "Refusal", "broadcast_shapes", "normalize_axis"]
