"""Compare a quantized model with its float model layer by layer: what each one computes, and where they part.

1. Every value that the float model's nodes write is held against what stands in its place in the quantized one: the
   DequantizeLinear behind it, or the value of the same name. Values inside a kernel are not looked at.
2. `loss_db` is what a layer adds: the signal to noise of the worst thing it reads, less that of what it writes.
3. The first layer that diverges is the first in graph order whose output is below the limit.
4. What lies beyond where all readers are flat (HardSwish below −3) is held at that end in both models: the plan gives
   it no steps, and it changes nothing. A value that only a function of single numbers reads (SiLU, Gelu taken apart)
   counts as what that function makes of it.

Samples stream through once a slice of values, so memory is bounded by the model and the limit, not by the samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model, const_of, label, origin, static_shape
from edgec.metrics import MAX_DB
from edgec.quantization.flat import flat_outside
from edgec.quantization.measures.fidelity import Comparison, stand_ins
from edgec.quantization.response import Response, response_of
from edgec.quantization.run.apply import REASON_KEY, SCHEME_KEY
from edgec.quantization.run.executor import Executor
from edgec.quantization.types import NodeScheme
from edgec.tensors import Array

#: Points between which a function is taken for straight: over a range of 20 that is 120 dB.
_POINTS = 1 << 13

#: Bins of a histogram.
BINS = 24

#: Values of one slice of the graph that are held at a time, in both models together.
SLICE_BYTES = 256 << 20

#: What is nearer than this is float's own rounding.
_EXACT_DB = 100.0

_UNKNOWN_BYTES = 1 << 20
_INSIDE = "part of the kernel of"

#: What a kernel does to its sums before it rounds them, in sources that came quantized.
_IN_KERNEL = frozenset({"Clip", "Relu"})

Samples = Iterable[Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Counts of the same bins in both models; values outside [low, high] fall into the end bins."""

    low: float
    high: float
    float_counts: tuple[int, ...]
    quantized_counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerComparison:
    """One layer. `reason` is the plan's for the layer, `constants` for its weights and bias, repairs included.

    `loss_db` is None where everything that the layer reads is exact, but for float's own rounding; `clipped_share`
    where nothing is quantized.
    """

    layer: str
    op: str
    source: str
    tensor: str
    scheme: str
    sqnr_db: float
    loss_db: float | None
    cosine: float
    max_abs: float
    clipped_share: float | None
    reason: str
    constants: tuple[str, ...]
    histogram: Histogram

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; an SQNR of None means: no difference at all."""
        return {
            "layer": self.layer,
            "op": self.op,
            "source": self.source,
            "tensor": self.tensor,
            "scheme": self.scheme,
            "sqnr_db": None if self.sqnr_db >= MAX_DB else round(self.sqnr_db, 2),
            "loss_db": None if self.loss_db is None else round(self.loss_db, 2),
            "cosine": round(self.cosine, 6),
            "max_abs": float(f"{self.max_abs:.6g}"),
            "clipped_share": None if self.clipped_share is None else round(self.clipped_share, 6),
            "reason": self.reason,
            "constants": list(self.constants),
            "histogram": {
                "low": self.histogram.low,
                "high": self.histogram.high,
                "float": list(self.histogram.float_counts),
                "quantized": list(self.histogram.quantized_counts),
            },
        }


def compare_layers(
    model: Model, quantized: Model, samples: Samples, *, threads: int | None = None, slice_bytes: int = SLICE_BYTES
) -> tuple[LayerComparison, ...]:
    """All layers in graph order. `samples` must be re-iterable, as one pass is made for each slice."""
    pairs = _pairs(model, quantized)
    views = _views(model, quantized, pairs)
    found: dict[str, _Tensor] = {}
    for part in _slices(model, pairs, slice_bytes):
        found.update(_measure(model, quantized, samples, {n: pairs[n] for n in part}, views, threads))
    return _rows(model, quantized, found)


def first_diverging(layers: Sequence[LayerComparison], limit_db: float) -> LayerComparison | None:
    """Rule 3."""
    return next((layer for layer in layers if layer.sqnr_db < limit_db), None)


def worst_first(layers: Sequence[LayerComparison]) -> tuple[LayerComparison, ...]:
    """The layers by signal to noise, equals in graph order."""
    return tuple(sorted(layers, key=lambda layer: layer.sqnr_db))


def _pairs(model: Model, quantized: Model) -> dict[str, str]:
    """Rule 1: value of the float model → value of the quantized one, in graph order."""
    replaced = stand_ins(model, quantized)
    theirs = {v.name for n in quantized.nodes() for v in n.outputs}
    reasons = {n.name: n.metadata_props.get(REASON_KEY, "") for n in quantized.nodes()}
    pairs = {v.name: replaced[v.name] for v in model.graph.inputs if v.name in replaced}
    for node in model.nodes():
        for value in node.outputs:
            name = value.name or ""
            if value.dtype != ir.DataType.FLOAT or const_of(value) is not None or node.op_type == "DequantizeLinear":
                continue
            if name in replaced:
                pairs[name] = replaced[name]
            elif name in theirs and not _is_inside(value, reasons):
                pairs[name] = name
    return {ours: other for ours, other in pairs.items() if ours}


def _is_inside(value: ir.Value, reasons: Mapping[str | None, str]) -> bool:
    """True for a value that one kernel hands from one of its nodes to the next."""
    readers = [node for node, _ in value.uses()]
    return len(readers) == 1 and reasons.get(readers[0].name, "").startswith(_INSIDE)


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """How a value is looked at: what its integers can hold, and what its readers make of it (rule 4)."""

    extent: tuple[float, float] | None = None
    flat: tuple[float, float] = (-math.inf, math.inf)
    response: Response | None = None


def _views(model: Model, quantized: Model, pairs: Mapping[str, str]) -> dict[str, _View]:
    extents = _extents(quantized, pairs)
    values = {v.name: v for n in model.nodes() for v in n.outputs} | {v.name: v for v in model.graph.inputs}

    def known(value: ir.Value) -> tuple[float, float] | None:
        return extents.get(value.name or "")

    return {
        name: _View(
            extent=extents.get(name), flat=flat_outside(values[name], known), response=response_of(values[name])
        )
        for name in pairs
    }


def _extents(quantized: Model, pairs: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The range that the integers of each quantized value can hold."""
    wanted = {other: ours for ours, other in pairs.items()}
    found = {}
    for node in quantized.nodes():
        name = node.outputs[0].name if node.outputs else None
        if node.op_type != "DequantizeLinear" or name not in wanted:
            continue
        scale = const_of(node.inputs[1])
        zero = const_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
        kind = node.inputs[0].dtype if node.inputs[0] is not None else None
        if scale is None or scale.size != 1 or kind is None or (zero is not None and zero.size != 1):
            continue
        limits = np.iinfo(kind.numpy())
        middle = 0 if zero is None else int(zero.reshape(-1)[0])
        step = float(scale.reshape(-1)[0])
        found[wanted[name]] = ((limits.min - middle) * step, (limits.max - middle) * step)
    return found


def _slices(model: Model, pairs: Mapping[str, str], limit: int) -> Iterator[list[str]]:
    sizes = {v.name: _bytes(v) for v in model.graph.inputs}
    sizes.update({v.name: _bytes(v) for n in model.nodes() for v in n.outputs})
    part: list[str] = []
    used = 0
    for name in pairs:
        size = 2 * sizes.get(name, _UNKNOWN_BYTES)
        if part and used + size > limit:
            yield part
            part, used = [], 0
        part.append(name)
        used += size
    if part:
        yield part


def _bytes(value: ir.Value) -> int:
    shape = static_shape(value)
    return _UNKNOWN_BYTES if shape is None else 4 * math.prod(shape)


def _seen(response: Response, *arrays: Array) -> tuple[Array, ...]:
    """What a function makes of arrays, between points so near that what is between them is straight."""
    finite = [array[np.isfinite(array)] for array in arrays]
    low = min((float(part.min()) for part in finite if part.size), default=0.0)
    high = max((float(part.max()) for part in finite if part.size), default=0.0)
    points = np.linspace(low, high, _POINTS)
    made = response(points)
    return tuple(np.interp(array.ravel(), points, made) for array in arrays)


class _Tensor:
    """Sums and histograms of one value over all samples."""

    def __init__(self, name: str, view: _View) -> None:
        self.sums = Comparison(name)
        self._extent = view.extent
        self._flat = None if view.flat == _View().flat else view.flat
        self._response = view.response
        self._low = self._high = 0.0
        self._edges: Array | None = None
        self._counts = np.zeros((2, BINS), np.int64)
        self._clipped = self._values = 0

    def add(self, expected: Array, actual: Array) -> None:
        if self._flat is not None:
            expected, actual = expected.clip(*self._flat), actual.clip(*self._flat)
        self.sums.add(*(expected, actual) if self._response is None else _seen(self._response, expected, actual))
        if self._edges is None:
            self._low, self._high = self._extent or _span(expected)
            self._edges = np.linspace(self._low, self._high, BINS + 1)[1:-1]
        for counts, values in zip(self._counts, (expected, actual), strict=True):
            bins = np.searchsorted(self._edges, np.nan_to_num(values.ravel()), side="right")
            counts += np.bincount(bins, minlength=BINS)
        if self._extent is not None:
            half = (self._high - self._low) / 510  # half a step beyond the end still rounds to it
            outside = (expected < self._low - half) | (expected > self._high + half)
            self._clipped += int(np.count_nonzero(outside))
        self._values += expected.size

    @property
    def clipped(self) -> float | None:
        return self._clipped / max(self._values, 1) if self._extent is not None else None

    def histogram(self) -> Histogram:
        ours, theirs = (tuple(int(c) for c in counts) for counts in self._counts)
        return Histogram(
            low=float(f"{self._low:.6g}"),
            high=float(f"{self._high:.6g}"),
            float_counts=ours,
            quantized_counts=theirs,
        )


def _span(values: Array) -> tuple[float, float]:
    """The range of the finite values, a little wider than nothing."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _measure(
    model: Model,
    quantized: Model,
    samples: Samples,
    pairs: Mapping[str, str],
    views: Mapping[str, _View],
    threads: int | None,
) -> dict[str, _Tensor]:
    reference = Executor(model, fetch=tuple(pairs), threads=threads)
    candidate = Executor(quantized, fetch=tuple(dict.fromkeys(pairs.values())), threads=threads)
    found = {name: _Tensor(name, views[name]) for name in pairs}
    ours, theirs = itertools.tee(samples)
    for expected, actual in zip(reference.run_all(ours), candidate.run_all(theirs), strict=True):
        for name, other in pairs.items():
            found[name].add(expected[name], actual[other])
    return found


def _rows(model: Model, quantized: Model, found: Mapping[str, _Tensor]) -> tuple[LayerComparison, ...]:
    """Rule 2, in graph order."""
    plans = {n.name: n for n in quantized.nodes()}
    known: dict[str, float] = {}
    rows = []
    for value in model.graph.inputs:
        name = value.name or ""
        known[name] = MAX_DB
        if name in found:
            row = _row(_Layer(layer=name, op="Input", scheme="int8"), found[name], name, MAX_DB)
            rows.append(row)
            known[name] = row.sqnr_db
    for node in model.nodes():
        read = [known[v.name] for v in node.inputs if v is not None and v.name in known]
        before = min(read, default=MAX_DB)
        for value in node.outputs:
            name = value.name or ""
            known[name] = before
            if name in found:
                row = _row(_layer(node, plans), found[name], name, before)
                rows.append(row)
                known[name] = row.sqnr_db
    return tuple(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """What is known of a layer without running it."""

    layer: str
    op: str
    scheme: str
    source: str = ""
    reason: str = ""
    constants: tuple[str, ...] = ()


def _layer(node: ir.Node, plans: Mapping[str | None, ir.Node]) -> _Layer:
    """A node of the float model; the last node of a kernel speaks for all of it, under its head's name."""
    last = plans.get(node.name, node)
    reason = last.metadata_props.get(REASON_KEY, "")
    head = plans.get(reason.removeprefix(_INSIDE).strip(" '"), last) if reason.startswith(_INSIDE) else last
    inside = [head] if head is last else [head, last]
    return _Layer(
        layer=label(head),
        op="+".join(n.op_type for n in inside),
        scheme=last.metadata_props.get(SCHEME_KEY) or _scheme_of(last),
        source=origin(head) or origin(node),
        reason=head.metadata_props.get(REASON_KEY, ""),
        constants=tuple(line for n in inside for line in _constants(n)),
    )


def _scheme_of(node: ir.Node) -> NodeScheme:
    """What a node of a source that came quantized runs in: integers where it reads and writes them."""
    read = [writer for v in node.inputs if v is not None and (writer := v.producer()) is not None]
    stored = [writer.inputs[0] for writer in read if writer.op_type == "DequantizeLinear"]
    data = [v for v in stored if v is not None and const_of(v) is None]
    if not data:
        return "dynamic" if stored else "float32"
    written = [user for v in node.outputs for user, _ in v.uses()]
    while len(written) == 1 and written[0].op_type in _IN_KERNEL:
        written = [user for user, _ in written[0].outputs[0].uses()]
    if not written or any(user.op_type != "QuantizeLinear" for user in written):
        return "float32"
    return "int16x8" if any(v.dtype in (ir.DataType.INT16, ir.DataType.UINT16) for v in data) else "int8"


def _row(layer: _Layer, tensor: _Tensor, name: str, before: float) -> LayerComparison:
    result = tensor.sums.result()
    return LayerComparison(
        layer=layer.layer,
        op=layer.op,
        source=layer.source,
        tensor=name,
        scheme=layer.scheme,
        sqnr_db=result.sqnr_db,
        loss_db=None if before >= _EXACT_DB else before - result.sqnr_db,
        cosine=result.cosine,
        max_abs=result.max_abs,
        clipped_share=tensor.clipped,
        reason=layer.reason,
        constants=layer.constants,
        histogram=tensor.histogram(),
    )


def _constants(node: ir.Node) -> Iterator[str]:
    """Why its weights and bias are what they are."""
    for value in node.inputs:
        writer = None if value is None else value.producer()
        if writer is None or writer.op_type != "DequantizeLinear" or const_of(writer.inputs[0]) is None:
            continue
        if reason := writer.metadata_props.get(REASON_KEY, ""):
            assert writer.inputs[0] is not None
            yield f"{(writer.inputs[0].name or '').removesuffix('/quantized')}: {reason}"
