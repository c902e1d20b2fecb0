"""Write TIR as a TFLite FlatBuffer, byte for byte reproducible.

Constants with equal bytes share one buffer; buffer data is aligned to 16 bytes as the schema demands.
A FlatBuffer's own offsets end at 2 GiB: beyond it the constants follow the FlatBuffer in the same file, and each
buffer says where (`offset`, counted from the start of the file) and how long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from edgec.backends.tflite.schema import TENSOR_TYPE, fb, make_options, op_code
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.backends.tflite.versions import op_version
from edgec.tensors import Array

_ALIGNMENT = 16
#: Constants of more bytes than this go behind the FlatBuffer.
_INLINE_BYTES = 2**31 - 2**26
#: What is smaller stays inside: the runtime looks for metadata nowhere else.
_SMALL_BYTES = 2**16


class _Buffer(fb.BufferT):  # type: ignore[misc]  # the generated schema has no type hints
    """A buffer whose bytes are aligned: the generated Pack aligns to one byte only."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802  # the schema's own name
        if self.data is None:
            fb.BufferStart(builder)
            if self.size:
                fb.BufferAddOffset(builder, self.offset)
                fb.BufferAddSize(builder, self.size)
            return int(fb.BufferEnd(builder))
        array: Array = self.data
        builder.StartVector(1, array.size, _ALIGNMENT)
        start = builder.Head() - array.size
        builder.head = start
        builder.Bytes[start : start + array.size] = array.data
        vector = builder.EndVector()
        fb.BufferStart(builder)
        fb.BufferAddData(builder, vector)
        return int(fb.BufferEnd(builder))


def _as_bytes(data: Array) -> Array:
    if data.dtype.kind == "O":
        return _texts(data)
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _texts(data: Array) -> Array:
    """Strings as TFLite keeps them: how many, where each begins and the last one ends, and their bytes."""
    parts = [str(text).encode() for text in data.reshape(-1)]
    ends = np.cumsum([4 * (len(parts) + 2), *map(len, parts)])
    head = np.asarray([len(parts), *ends], "<i4").tobytes()
    return np.frombuffer(head + b"".join(parts), np.uint8)


class _Writer:
    def __init__(self) -> None:
        self.buffers: list[Any] = [_Buffer()]  # buffer 0 is the empty one, by convention
        self.by_digest: dict[bytes, int] = {}
        self.codes: dict[tuple[int, int], int] = {}
        self.subgraphs: list[Any] = []
        self.positions: dict[int, int] = {}

    def buffer(self, data: Array | bytes) -> int:
        # a view, not a copy: a model's weights are most of the memory that a compile takes
        raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else _as_bytes(data)
        digest = hashlib.sha256(raw.data).digest()
        if digest not in self.by_digest:
            entry = _Buffer()
            entry.data = raw
            self.by_digest[digest] = len(self.buffers)
            self.buffers.append(entry)
        return self.by_digest[digest]

    def tensor(self, t: Tensor, name: str) -> Any:
        entry = fb.TensorT()
        entry.name = name
        entry.shape = np.asarray(t.shape, np.int32)
        if any(d < 0 for d in t.shape):
            entry.shapeSignature = entry.shape
            entry.shape = np.asarray([max(d, 1) for d in t.shape], np.int32)
        entry.hasRank = True
        entry.type = TENSOR_TYPE[t.dtype if t.storage is None else t.storage.dtype]
        # an empty constant still needs a buffer of its own, or the runtime takes it for a computed tensor
        entry.buffer = 0 if t.data is None or t.data.size == 0 else self.buffer(t.data)
        if t.storage is not None:
            q = t.storage.qparams
            entry.quantization = fb.QuantizationParametersT()
            entry.quantization.scale = np.asarray(q.scale, np.float32)
            entry.quantization.zeroPoint = np.asarray(q.zero_point, np.int64)
            entry.quantization.quantizedDimension = q.axis or 0
        return entry

    def operator(self, op: Op, index: Mapping[Tensor, int]) -> Any:
        key = (op_code(op.kind), op_version(op))
        entry = fb.OperatorT()
        entry.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        entry.inputs = np.asarray([-1 if t is None else index[t] for t in op.inputs], np.int32)
        entry.outputs = np.asarray([index[t] for t in op.outputs], np.int32)
        options, code, union = make_options(op.kind, op.options)
        if union == 1:
            entry.builtinOptions, entry.builtinOptionsType = options, code
        else:
            entry.builtinOptions2, entry.builtinOptions2Type = options, code
        return entry

    def subgraph(self, graph: Graph) -> int:
        """Add a graph and those its operators call; returns its index. Operators may share a graph."""
        if id(graph) in self.positions:
            return self.positions[id(graph)]
        position = len(self.subgraphs)
        self.positions[id(graph)] = position
        self.subgraphs.append(None)
        calls = {"IF": ("thenSubgraphIndex", "elseSubgraphIndex"), "WHILE": ("condSubgraphIndex", "bodySubgraphIndex")}
        for op in graph.ops:
            if op.subgraphs:
                op.options.update(
                    {key: self.subgraph(sub) for key, sub in zip(calls[op.kind], op.subgraphs, strict=True)}
                )
        tensors = ordered_tensors(graph)
        index = {t: i for i, t in enumerate(tensors)}
        entry = fb.SubGraphT()
        entry.name = graph.name
        entry.tensors = [self.tensor(t, name) for t, name in zip(tensors, unique_names(tensors), strict=True)]
        entry.inputs = np.asarray([index[t] for t in graph.inputs], np.int32)
        entry.outputs = np.asarray([index[t] for t in graph.outputs], np.int32)
        entry.operators = [self.operator(op, index) for op in graph.ops]
        self.subgraphs[position] = entry
        return position


def ordered_tensors(graph: Graph) -> list[Tensor]:
    """All tensors of a graph: inputs first, then in the order in which operators name them."""
    seen: dict[Tensor, None] = dict.fromkeys(graph.inputs)
    for op in graph.ops:
        seen.update(dict.fromkeys(t for t in op.inputs if t is not None))
        seen.update(dict.fromkeys(op.outputs))
    seen.update(dict.fromkeys(graph.outputs))
    return list(seen)


def unique_names(tensors: Sequence[Tensor]) -> list[str]:
    """Tensor names, made unique by a number where two are equal."""
    used: set[str] = set()
    names = []
    for t in tensors:
        name, n = t.name, 1
        while name in used:
            name, n = f"{t.name};{n}", n + 1
        used.add(name)
        names.append(name)
    return names


def write(graph: Graph, *, description: str, metadata: Mapping[str, bytes], release: bool = False) -> bytes:
    """The FlatBuffer of a graph; `metadata` entries are stored under their names.

    With `release` the graph gives up its constants as soon as they are in the buffer: one copy less in memory.
    """
    writer = _Writer()
    writer.subgraph(graph)
    model = fb.ModelT()
    model.version = 3
    model.description = description
    model.subgraphs = writer.subgraphs
    model.operatorCodes = [_opcode(code, version) for code, version in writer.codes]
    model.metadata = []
    for name in sorted(metadata):
        entry = fb.MetadataT()
        entry.name, entry.buffer = name, writer.buffer(metadata[name])
        model.metadata.append(entry)
    model.buffers = writer.buffers
    model.signatureDefs = [_signature(graph)]
    total = sum(b.data.size for b in writer.buffers if b.data is not None)
    parts = [_packed(model, total)] if total <= _INLINE_BYTES else _with_constants_behind(model)
    if release:
        model.buffers = writer.buffers = []
        _release(graph)
    return b"".join(parts)


def _packed(model: Any, total: int) -> memoryview:
    builder = flatbuffers.Builder(total + total // 64 + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return memoryview(builder.Bytes)[builder.Head() :]


def _with_constants_behind(model: Any) -> list[memoryview | bytes]:
    """The FlatBuffer, then the constants; packed twice, since its length decides where they are."""
    # the runtime takes offsets 0 and 1 for "not outside"; any other number packs to the same length
    moved = [(b, b.data) for b in model.buffers if b.data is not None and b.data.size >= _SMALL_BYTES]
    for buffer, data in moved:
        buffer.data, buffer.offset, buffer.size = None, _ALIGNMENT, data.size
    inside = sum(b.data.size for b in model.buffers if b.data is not None)
    length = len(_packed(model, inside))
    position = length
    behind: list[memoryview | bytes] = []
    for buffer, data in moved:
        gap = -position % _ALIGNMENT
        buffer.offset = position + gap
        behind += [bytes(gap), data.data]
        position = int(buffer.offset) + data.size
    head = _packed(model, inside)
    assert len(head) == length
    return [head, *behind]


def _release(graph: Graph) -> None:
    for every in graph.graphs():
        for t in ordered_tensors(every):
            t.data = None


def _opcode(code: int, version: int) -> Any:
    entry = fb.OperatorCodeT()
    entry.builtinCode, entry.version = code, version
    entry.deprecatedBuiltinCode = min(code, 127)  # readers older than builtin 127 look here
    return entry


def _signature(graph: Graph) -> Any:
    tensors = ordered_tensors(graph)
    index = {t: i for i, t in enumerate(tensors)}
    names = unique_names(tensors)
    signature = fb.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.subgraphIndex = 0
    for field, members in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        entries = []
        for t in dict.fromkeys(members):
            entry = fb.TensorMapT()
            entry.name, entry.tensorIndex = names[index[t]], index[t]
            entries.append(entry)
        setattr(signature, field, entries)
    return signature
