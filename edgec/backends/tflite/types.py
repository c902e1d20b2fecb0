"""Decide per operator whether it runs on integers or floats, and put QUANTIZE / DEQUANTIZE where that changes.

1. Storage passes through movers of data, forward and backward: moving commutes with rounding.
2. An operator whose kernel takes integers and whose values are all stored as integers runs on them.
3. Movers need one set of parameters: a differing output is requantized behind them, differing inputs before.
4. Anything else runs in float, and what the runtime has a faster float kernel for: stored inputs are dequantized,
   stored outputs quantized behind it.
5. int8 weights of a float operator stay int8 where the runtime has a hybrid kernel, else become float.
6. Where the target wants it, inputs and outputs of the graph are integers too, if all their readers take them so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgec.backends.tflite.quantized_ops import DATA_INPUTS, HYBRID, INT8, INT16, MOVERS, TRANSPARENT, WEIGHTED
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor
from edgec.backends.tflite.whole_range import in_whole_range
from edgec.tensors import DType, QParams

_FIXED = {
    "LOGISTIC": QParams.per_tensor(1 / 256, -128),
    "SOFTMAX": QParams.per_tensor(1 / 256, -128),
    "TANH": QParams.per_tensor(1 / 128, 0),
    "L2_NORMALIZATION": QParams.per_tensor(1 / 128, 0),
    "LOG_SOFTMAX": QParams.per_tensor(16 / 256, 127),
}
_FIXED_INT16 = dict.fromkeys(("LOGISTIC", "SOFTMAX", "TANH"), QParams.per_tensor(1 / 32768, 0))


def assign_types(
    graph: Graph,
    *,
    integer_io: bool = False,
    kernels: Mapping[str, Sequence[str]] | None = None,
    in_float: Collection[str] = (),
) -> None:
    """Rules 1 to 6, in place. `kernels`: the runtime's operators with their types, where it has not all of them;
    `in_float`: those whose int8 kernel is slower than float between two conversions."""
    if integer_io:
        _quantize_inputs(graph)
    _propagate(graph)
    worker = _Typer(graph, kernels or {}, in_float)
    for op in graph.ops:
        worker.place(op)
    if not integer_io:
        graph.outputs = [worker.as_float(t) if t.storage is not None else t for t in graph.outputs]
    graph.ops = worker.ops
    graph.prune()


def data_positions(op: Op) -> list[int]:
    """Which inputs hold values."""
    known = DATA_INPUTS.get(op.kind)
    return [i for i in (known or range(len(op.inputs))) if i < len(op.inputs)]


def _quantize_inputs(graph: Graph) -> None:
    """Rule 6: a QUANTIZE behind an input, also behind movers of it, becomes the input's own storage."""
    producers, consumers = graph.producers(), graph.consumers()
    for op in graph.ops:
        source = op.inputs[0] if op.inputs else None
        if op.kind != "QUANTIZE" or source is None or source.storage is not None:
            continue
        path: list[Tensor] = [source]
        while (maker := producers.get(path[-1])) is not None and maker.kind in TRANSPARENT and len(maker.outputs) == 1:
            before = maker.inputs[data_positions(maker)[0]]
            if before is None:
                break
            path.append(before)
        read_by_others = any(len(consumers.get(t, [])) != 1 or t in graph.outputs for t in path)
        if path[-1] not in graph.inputs or read_by_others or op.outputs[0] in graph.outputs:
            continue
        for t in path:
            t.storage = op.outputs[0].storage
        graph.replace_uses(op.outputs[0], source)
    graph.prune()


def _propagate(graph: Graph) -> None:
    for op in graph.ops:
        if op.kind in TRANSPARENT:
            source = op.inputs[data_positions(op)[0]]
            if source is not None and source.storage is not None and source.data is None:
                for t in op.outputs:
                    t.storage = t.storage or source.storage
    consumers = graph.consumers()
    for op in reversed(graph.ops):
        if op.kind not in TRANSPARENT or len(op.outputs) != 1 or op.outputs[0].storage is None:
            continue
        source = op.inputs[data_positions(op)[0]]
        if source is None or source.storage is not None or source.is_const or source in graph.inputs:
            continue
        if len(consumers.get(source, [])) == 1 and source not in graph.outputs and source.dtype == DType.FLOAT32:
            source.storage = op.outputs[0].storage


class _Typer:
    def __init__(self, graph: Graph, kernels: Mapping[str, Sequence[str]], in_float: Collection[str]) -> None:
        self.graph = graph
        self.kernels = kernels
        self.int8 = INT8 - frozenset(in_float)
        self.ops: list[Op] = []
        self.converted: dict[tuple[Tensor, Storage | None], Tensor] = {}
        self.widened: dict[tuple[Tensor, Storage | None], Tensor] = {}

    def place(self, op: Op) -> None:
        """Append an operator with whatever conversions it needs around it."""
        if op.kind in ("QUANTIZE", "DEQUANTIZE"):
            self.ops.append(op)
        elif self._runs_on_integers(op):
            self._place_integer(op)
        else:
            self._place_float(op)

    def _runs_on_integers(self, op: Op) -> bool:
        values = [op.inputs[i] for i in data_positions(op)]
        computed = [t for t in values if t is not None and not t.is_const]
        results = [t for t in op.outputs if t.dtype == DType.FLOAT32]
        if not computed or any(t.storage is None for t in (*computed, *results)) or not results:
            return False
        kinds = {t.storage.dtype for t in (*computed, *results) if t.storage}
        if len(kinds) != 1 or op.kind not in (self.int8 if kinds == {DType.INT8} else INT16):
            return False
        if self.kernels and str(next(iter(kinds))) not in self.kernels.get(op.kind, ()):
            return False
        if op.kind in WEIGHTED:
            w = op.inputs[1]
            return w is not None and (w.storage is not None) and w.is_const
        return True

    # --- integers -------------------------------------------------------------------------------------

    def _place_integer(self, op: Op) -> None:
        x = next(t for i in data_positions(op) if (t := op.inputs[i]) is not None and not t.is_const)
        if op.kind in WEIGHTED:
            self._integer_bias(op)
        elif op.kind in MOVERS:
            self._one_storage(op, x)
            return
        else:
            self._integer_constants(op, x)
        self._fixed_output(op)

    def _fixed_output(self, op: Op) -> None:
        """Operators with a fixed output range write that, and are requantized when the plan wanted another."""
        out = op.outputs[0]
        assert out.storage is not None
        table = _FIXED if out.storage.dtype == DType.INT8 else _FIXED_INT16
        fixed = table.get(op.kind)
        self.ops.append(op)
        if fixed is not None and out.storage.qparams != fixed:
            self._behind(op, 0, Storage(out.storage.dtype, fixed))

    def _behind(self, op: Op, index: int, storage: Storage | None) -> None:
        """Let the operator write `storage`, and convert to what its readers expect."""
        out = op.outputs[index]
        inner = Tensor(f"{out.name}/{'real' if storage is None else 'raw'}", out.shape, out.dtype, storage=storage)
        op.outputs[index] = inner
        self.ops.append(Op("QUANTIZE", [inner], [out], origin=op.origin))

    def _one_storage(self, op: Op, x: Tensor) -> None:
        target = x.storage
        if op.kind in ("CONCATENATION", "PACK", "MAXIMUM", "MINIMUM", "SELECT_V2"):
            target = op.outputs[0].storage  # rule 3: many inputs follow the output
        assert target is not None
        for i in data_positions(op):
            t = op.inputs[i]
            if t is None or (t.dtype == DType.BOOL):
                continue
            op.inputs[i] = _quantized_constant(t, target) if t.is_const else self._as(t, target, op)
        self.ops.append(op)
        for i, t in enumerate(op.outputs):
            if t.storage != target:
                self._behind(op, i, target)

    def _as(self, t: Tensor, storage: Storage, op: Op) -> Tensor:
        if t.storage == storage:
            return t
        key = (t, storage)
        if key not in self.converted:
            out = Tensor(f"{t.name}/requantized", t.shape, t.dtype, storage=storage)
            self.ops.append(Op("QUANTIZE", [t], [out], origin=op.origin))
            self.converted[key] = out
        return self.converted[key]

    def _integer_constants(self, op: Op, x: Tensor) -> None:
        assert x.storage is not None
        for i in data_positions(op):
            t = op.inputs[i]
            if t is not None and t.is_const and t.storage is None and t.dtype == DType.FLOAT32:
                op.inputs[i] = _quantized_constant(t, _range_storage(t, x.storage.dtype))

    def _integer_bias(self, op: Op) -> None:
        """bias = round(real / (s_x · s_w)), int32, or int64 beside int16 activations."""
        position, source = (3, 2) if op.kind == "TRANSPOSE_CONV" else (2, 0)
        x, w, bias = op.inputs[source], op.inputs[1], op.inputs[position]
        assert x is not None and x.storage is not None and w is not None and w.storage is not None
        assert bias is not None and bias.data is not None
        op.inputs[1] = w = self._wide(w, bias, x.storage.qparams.scale[0])
        assert w.storage is not None
        scale = np.asarray(w.storage.qparams.scale, np.float32) * np.float32(x.storage.qparams.scale[0])
        wide = x.storage.dtype == DType.INT16
        dtype = DType.INT64 if wide else DType.INT32
        axis = None if scale.size == 1 else 0
        qparams = QParams(scale=tuple(float(s) for s in scale), zero_point=(0,) * scale.size, axis=axis)
        kept = bias.storage is not None and bias.storage.qparams == qparams and bias.storage.dtype == dtype
        if not kept:
            exact = bias.real().astype(np.float64) / scale.astype(np.float64)
            low, high = dtype.limits
            data = np.clip(np.rint(exact), low, high).astype(dtype.numpy)
            bias = Tensor(bias.name, bias.shape, bias.dtype, data, Storage(dtype, qparams))
        op.inputs[position] = bias

    def _wide(self, weight: Tensor, bias: Tensor, data_scale: float) -> Tensor:
        """A weight whose few bits take the whole range of int8; readers whose biases leave as much room share one."""
        wide = in_whole_range(weight, bias, data_scale)
        return self.widened.setdefault((weight, wide.storage), wide)

    # --- floats ---------------------------------------------------------------------------------------

    def _place_float(self, op: Op) -> None:
        # a runtime that lists its kernels has none of those
        hybrid = op.kind in HYBRID and not self.kernels and _hybrid_weights(op)
        for i, t in enumerate(op.inputs):
            if t is None or t.storage is None:
                continue
            if not t.is_const:
                op.inputs[i] = self.as_float(t)
            elif not (hybrid and i == 1):
                op.inputs[i] = Tensor(t.name, t.shape, DType.FLOAT32, t.real())
        if hybrid and op.kind == "FULLY_CONNECTED":
            op.options["asymmetricQuantizeInputs"] = True
        self.ops.append(op)
        for i, t in enumerate(op.outputs):
            if t.storage is not None:
                self._behind(op, i, None)

    def as_float(self, t: Tensor) -> Tensor:
        """The float value of a stored tensor, dequantized once for all readers."""
        key = (t, None)
        if key not in self.converted:
            out = Tensor(f"{t.name}/float", t.shape, DType.FLOAT32)
            self.ops.append(Op("DEQUANTIZE", [t], [out]))
            self.converted[key] = out
        return self.converted[key]


def _hybrid_weights(op: Op) -> bool:
    """Rule 5: symmetric int8 weights under float activations."""
    w, x = op.inputs[1], op.inputs[0]
    if w is None or w.storage is None or w.storage.dtype != DType.INT8 or x is None:
        return False
    return x.storage is None and not any(w.storage.qparams.zero_point)


def _quantized_constant(t: Tensor, storage: Storage) -> Tensor:
    if t.storage == storage:
        return t
    data = storage.qparams.quantize(t.real(), storage.dtype)
    return replace(t, data=data, storage=storage)


def _range_storage(t: Tensor, dtype: DType) -> Storage:
    """Parameters from a constant's own range, zero included."""
    data = t.real()
    low, high = min(float(data.min(initial=0)), 0.0), max(float(data.max(initial=0)), 0.0)
    if dtype == DType.INT16:
        return Storage(dtype, QParams.per_tensor(max(high, -low, 1e-12) / 32767, 0))
    scale = max(high - low, 1e-12) / 255
    return Storage(dtype, QParams.per_tensor(scale, int(np.clip(round(-128 - low / scale), -128, 127))))
