"""Read a .tflite file as TIR, so that what is checked on our own graphs is checked on anybody's.

Weights are views into the file's bytes. Of the operators only what checks and estimates ask for is read: kinds,
tensors, the versions declared, and options by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.backends.tflite.schema import DTYPE_OF, fb, op_name
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor
from edgec.errors import EdgecError
from edgec.tensors import DType, QParams

CUSTOM = "CUSTOM "


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """A named way to call a file: its subgraph, and names of inputs and outputs by the tensors' names."""

    name: str
    subgraph: int
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatModel:
    """A .tflite file: its main graph, and what TIR has no place for.

    `free` has the axes that are free at run time by tensor, `foreign` the element types of tensors that no DType is,
    `misquantized` what is wrong with the axes of scales, a sentence a tensor.
    """

    graph: Graph
    free: dict[Tensor, tuple[int, ...]]
    foreign: dict[Tensor, str]
    signatures: tuple[Signature, ...]
    misquantized: tuple[str, ...]


def read_graph(data: bytes, where: str) -> FlatModel:
    """Raises `EdgecError` (source/not-tflite) for other bytes and for damaged ones."""
    if data[4:8] != b"TFL3":
        raise EdgecError("source/not-tflite", "this is not a TFLite file", where=where, hint="it lacks TFL3 at byte 4")
    try:
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
        return _Reader(model, data).read()
    except Exception as error:  # offsets that lead nowhere: struct, index, attribute and value errors
        raise EdgecError(
            "source/not-tflite", f"the TFLite file is damaged: {error}", where=where, hint="copy or export it again"
        ) from error


class _Reader:
    def __init__(self, model: Any, data: bytes) -> None:
        self._model, self._data = model, data
        self._misquantized: list[str] = []
        self._free: dict[Tensor, tuple[int, ...]] = {}
        self._foreign: dict[Tensor, str] = {}
        codes = model.operatorCodes or ()
        self._kinds = [_kind(code) for code in codes]
        self._versions = [int(code.version) for code in codes]
        self._graphs: dict[int, Graph] = {}

    def read(self) -> FlatModel:
        graph = self._graph(0)
        return FlatModel(
            graph=graph,
            free=self._free,
            foreign=self._foreign,
            signatures=tuple(_signature(s, self._model.subgraphs) for s in self._model.signatureDefs or ()),
            misquantized=tuple(self._misquantized),
        )

    def _graph(self, index: int) -> Graph:
        if index not in self._graphs:
            sub = self._model.subgraphs[index]
            self._graphs[index] = graph = Graph(_text(sub.name))
            tensors = [self._tensor(t) for t in sub.tensors]
            graph.inputs = [tensors[i] for i in _ints(sub.inputs)]
            graph.outputs = [tensors[i] for i in _ints(sub.outputs)]
            graph.ops = [self._op(op, tensors) for op in sub.operators or ()]
        return self._graphs[index]

    def _op(self, op: Any, tensors: Sequence[Tensor]) -> Op:
        outputs = [tensors[i] for i in _ints(op.outputs)]
        made = Op(
            kind=self._kinds[op.opcodeIndex],
            inputs=[None if i < 0 else tensors[i] for i in _ints(op.inputs)],
            outputs=outputs,
            options=_options(op),
            origin=outputs[0].name if outputs else "",
            version=self._versions[op.opcodeIndex],
        )
        for field in ("condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "subgraph"):
            if field in made.options:
                made.subgraphs.append(self._graph(int(made.options[field])))
        return made

    def _tensor(self, t: Any) -> Tensor:
        name = _text(t.name)
        dtype = DTYPE_OF.get(t.type, DType.UINT8)
        shape = tuple(_ints(t.shape))
        storage = None if dtype.is_float else self._storage(t, dtype, shape, name)
        real = DType.FLOAT32 if storage is not None else dtype
        tensor = Tensor(name, shape, real, self._constant(t, dtype, shape), storage)
        if t.type not in DTYPE_OF:
            self._foreign[tensor] = _type_name(t.type)
        loose = tuple(axis for axis, size in enumerate(_ints(t.shapeSignature)) if size < 0)
        if loose:
            self._free[tensor] = loose
        return tensor

    def _storage(self, t: Any, dtype: DType, shape: tuple[int, ...], name: str) -> Storage | None:
        q = t.quantization
        scales = [] if q is None or q.scale is None else [float(s) for s in q.scale]
        if not scales:
            return None
        zeros = [int(z) for z in q.zeroPoint] if q.zeroPoint is not None else [0] * len(scales)
        if len(zeros) == 1:
            zeros *= len(scales)
        axis = int(q.quantizedDimension) if len(scales) > 1 else None
        if axis is not None and (not 0 <= axis < len(shape) or shape[axis] != len(scales)):
            self._misquantized.append(f"{name!r} of shape {list(shape)} has {len(scales)} scales along its axis {axis}")
            axis = next((i for i, size in enumerate(shape) if size == len(scales)), None)
            if axis is None:
                return None
        return Storage(dtype, QParams(scale=tuple(scales), zero_point=tuple(zeros), axis=axis))

    def _constant(self, t: Any, dtype: DType, shape: tuple[int, ...]) -> Any:
        buffer = self._model.buffers[t.buffer] if t.buffer else None
        if buffer is None:
            return None
        raw = buffer.data
        if raw is None and buffer.size:
            raw = np.frombuffer(self._data, np.uint8, buffer.size, buffer.offset)
        if raw is None or len(raw) == 0:
            return None
        flat = np.asarray(raw, np.uint8)
        if flat.size != dtype.numpy.itemsize * int(np.prod(shape, dtype=np.int64)):
            return flat  # packed or sparse: its size still counts
        return flat.view(dtype.numpy).reshape(shape)


def _kind(code: Any) -> str:
    if code.customCode:
        return CUSTOM + _text(code.customCode)
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    try:
        return op_name(number)
    except KeyError:
        return f"{CUSTOM}builtin operator {number}"


def _options(op: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in (op.builtinOptions, op.builtinOptions2):
        found.update(vars(table) if table is not None else {})
    return found


def _signature(signature: Any, subgraphs: Any) -> Signature:
    tensors = subgraphs[signature.subgraphIndex].tensors
    return Signature(
        name=_text(signature.signatureKey),
        subgraph=int(signature.subgraphIndex),
        inputs={_text(tensors[e.tensorIndex].name): _text(e.name) for e in signature.inputs or ()},
        outputs={_text(tensors[e.tensorIndex].name): _text(e.name) for e in signature.outputs or ()},
    )


def _type_name(code: int) -> str:
    return next((name for name, value in vars(fb.TensorType).items() if value == code and name.isupper()), str(code))


def _ints(values: Any) -> list[int]:
    return [] if values is None else [int(v) for v in values]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
