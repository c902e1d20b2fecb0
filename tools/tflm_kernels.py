"""Ask TensorFlow Lite Micro which operators it runs on which element types, and print the rows of a target profile.

One model of one operator for each type, written by edgec's own emitter and run in a process of its own, because the
interpreter may abort. `python -m tools.tflm_kernels` prints `[backends.tflite.kernels]` as TOML.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.backends.tflite.writer import write
from edgec.tensors import Array, DType, QParams

_RUN = """
import sys, numpy as np
from tflite_micro.python.tflite_micro import runtime
i = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 18)
for n in range(int(sys.argv[2])):
    d = i.get_input_details(n)
    i.set_input(np.ones(d["shape"], d["dtype"]), n)
i.invoke()
"""

REAL = (DType.FLOAT32, DType.INT8, DType.INT16)
WHOLE = (DType.INT32, DType.INT64)
FLOAT = (DType.FLOAT32,)
BOOL = (DType.BOOL,)
_FIXED = {"LOGISTIC": (1 / 256, -128), "SOFTMAX": (1 / 256, -128), "TANH": (1 / 128, 0)}
_FIXED |= {"L2_NORMALIZATION": (1 / 128, 0), "LOG_SOFTMAX": (16 / 256, 127)}
_NONE = {"fusedActivationFunction": "NONE"}
_POOL = {"padding": "VALID", "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2, **_NONE}
_CONV = {"padding": "VALID", "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1, **_NONE}
X4, X2 = (1, 4, 4, 8), (2, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One operator: the shapes of its data inputs, constants by position, its output, options, types to try."""

    kind: str
    inputs: tuple[tuple[int, ...], ...] = (X2,)
    consts: dict[int, Array] = field(default_factory=dict)
    outputs: tuple[tuple[int, ...], ...] = (X2,)
    options: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[DType, ...] = REAL
    out_dtype: DType | None = None
    weighted: bool = False


def _ints(*values: Any) -> Array:
    return np.array(values[0] if len(values) == 1 else values, np.int32)


def _each(kinds: str, **same: Any) -> list[Case]:
    return [Case(kind=kind, **same) for kind in kinds.split()]


_UNARY = _each(
    "ABS NEG RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 LOGISTIC TANH ELU HARD_SWISH EXP LOG SQRT RSQRT SQUARE SIN COS CEIL "
    "FLOOR ROUND SIGN GELU L2_NORMALIZATION LOG_SOFTMAX ZEROS_LIKE",
    dtypes=(*REAL, *WHOLE),
)
_BINARY = _each("ADD SUB MUL DIV", inputs=(X2, X2), options=_NONE, dtypes=(*REAL, *WHOLE))
_BINARY += _each(
    "MAXIMUM MINIMUM SQUARED_DIFFERENCE POW FLOOR_DIV FLOOR_MOD ATAN2", inputs=(X2, X2), dtypes=(*REAL, *WHOLE)
)
_COMPARE = _each(
    "EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL",
    inputs=(X2, X2),
    out_dtype=DType.BOOL,
    dtypes=(*REAL, *WHOLE, DType.BOOL),
)
_LOGIC = _each("LOGICAL_AND LOGICAL_OR", inputs=(X2, X2), dtypes=BOOL) + _each("LOGICAL_NOT", dtypes=BOOL)
_REDUCE = _each(
    "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD", consts={1: _ints([1])}, outputs=((2,),), dtypes=(*REAL, *WHOLE)
)
_REDUCE += _each("REDUCE_ANY REDUCE_ALL", consts={1: _ints([1])}, outputs=((2,),), dtypes=BOOL)
_REDUCE += _each("ARG_MAX ARG_MIN", consts={1: _ints(1)}, outputs=((2,),), out_dtype=DType.INT32)
_MOVED = (*REAL, *WHOLE, DType.BOOL)
_MOVERS = [
    Case(kind="RESHAPE", consts={1: _ints([16])}, outputs=((16,),), dtypes=_MOVED),
    Case(kind="SQUEEZE", inputs=((1, 8),), outputs=((8,),), options={"squeezeDims": [0]}, dtypes=_MOVED),
    Case(kind="EXPAND_DIMS", consts={1: _ints(0)}, outputs=((1, 2, 8),), dtypes=_MOVED),
    Case(kind="TRANSPOSE", consts={1: _ints([1, 0])}, outputs=((8, 2),), dtypes=_MOVED),
    Case(kind="SLICE", consts={1: _ints([0, 0]), 2: _ints([2, 4])}, outputs=((2, 4),), dtypes=_MOVED),
    Case(
        kind="STRIDED_SLICE",
        consts={1: _ints([0, 0]), 2: _ints([2, 8]), 3: _ints([1, 2])},
        outputs=((2, 4),),
        dtypes=_MOVED,
    ),
    Case(kind="CONCATENATION", inputs=(X2, X2), outputs=((2, 16),), options={"axis": 1, **_NONE}, dtypes=_MOVED),
    Case(kind="PACK", inputs=(X2, X2), outputs=((2, 2, 8),), options={"axis": 0, "valuesCount": 2}, dtypes=_MOVED),
    Case(kind="UNPACK", outputs=((8,), (8,)), options={"axis": 0, "num": 2}, dtypes=_MOVED),
    Case(kind="SPLIT_V", consts={1: _ints([3, 5]), 2: _ints(1)}, outputs=((2, 3), (2, 5)), options={"numSplits": 2}),
    Case(kind="PAD", consts={1: _ints([[0, 0], [1, 1]])}, outputs=((2, 10),), dtypes=_MOVED),
    Case(kind="MIRROR_PAD", consts={1: _ints([[0, 0], [1, 1]])}, outputs=((2, 10),), options={"mode": "REFLECT"}),
    Case(kind="GATHER", consts={1: _ints([0, 2])}, outputs=((2, 2),), options={"axis": 1}, dtypes=_MOVED),
    Case(kind="GATHER_ND", consts={1: _ints([[0, 1]])}, outputs=((1,),), dtypes=_MOVED),
    Case(kind="TILE", consts={1: _ints([1, 2])}, outputs=((2, 16),), dtypes=_MOVED),
    Case(kind="BROADCAST_TO", inputs=((1, 8),), consts={1: _ints([2, 8])}, dtypes=_MOVED),
    Case(kind="REVERSE_V2", consts={1: _ints([1])}, dtypes=_MOVED),
    Case(kind="CUMSUM", consts={1: _ints(1)}),
    Case(kind="SPACE_TO_DEPTH", inputs=(X4,), outputs=((1, 2, 2, 32),), options={"blockSize": 2}),
    Case(kind="DEPTH_TO_SPACE", inputs=(X4,), outputs=((1, 8, 8, 2),), options={"blockSize": 2}),
    Case(
        kind="SPACE_TO_BATCH_ND",
        inputs=(X4,),
        consts={1: _ints([2, 2]), 2: _ints([[0, 0], [0, 0]])},
        outputs=((4, 2, 2, 8),),
    ),
    Case(
        kind="BATCH_TO_SPACE_ND",
        inputs=((4, 2, 2, 8),),
        consts={1: _ints([2, 2]), 2: _ints([[0, 0], [0, 0]])},
        outputs=(X4,),
    ),
    Case(
        kind="RESIZE_BILINEAR",
        inputs=(X4,),
        consts={1: _ints([8, 8])},
        outputs=((1, 8, 8, 8),),
        options={"halfPixelCenters": True},
    ),
    Case(
        kind="RESIZE_NEAREST_NEIGHBOR",
        inputs=(X4,),
        consts={1: _ints([8, 8])},
        outputs=((1, 8, 8, 8),),
        options={"halfPixelCenters": True},
    ),
]
_REST = [
    Case(kind="SOFTMAX", options={"beta": 1.0}),
    Case(kind="LEAKY_RELU", options={"alpha": 0.1}),
    Case(kind="CAST", dtypes=(DType.FLOAT32, DType.INT32), out_dtype=DType.INT32),
    Case(kind="QUANTIZE"),
    Case(kind="DEQUANTIZE", dtypes=(DType.INT8, DType.INT16), out_dtype=DType.FLOAT32),
    Case(kind="AVERAGE_POOL_2D", inputs=(X4,), outputs=((1, 2, 2, 8),), options=_POOL),
    Case(kind="MAX_POOL_2D", inputs=(X4,), outputs=((1, 2, 2, 8),), options=_POOL),
    Case(kind="L2_POOL_2D", inputs=(X4,), outputs=((1, 2, 2, 8),), options=_POOL, dtypes=FLOAT),
    Case(kind="BATCH_MATMUL", inputs=((1, 4, 8), (1, 8, 4)), outputs=((1, 4, 4),)),
]
_WEIGHTED = [
    Case(kind="CONV_2D", inputs=(X4,), consts={1: np.ones((3, 1, 1, 8)), 2: np.zeros(3)}, outputs=((1, 4, 4, 3),),
         options=_CONV, weighted=True),
    Case(kind="DEPTHWISE_CONV_2D", inputs=(X4,), consts={1: np.ones((1, 3, 3, 8)), 2: np.zeros(8)},
         outputs=((1, 2, 2, 8),), options={**_CONV, "depthMultiplier": 1}, weighted=True),
    Case(kind="FULLY_CONNECTED", consts={1: np.ones((4, 8)), 2: np.zeros(4)}, outputs=((2, 4),), options=_NONE,
         weighted=True),
    Case(kind="TRANSPOSE_CONV", inputs=(X4,), consts={0: _ints([1, 8, 8, 3]), 1: np.ones((3, 2, 2, 8)), 3: np.zeros(3)},
         outputs=((1, 8, 8, 3),), options={"padding": "VALID", "strideW": 2, "strideH": 2}, weighted=True),
]  # fmt: skip
_MIXED = [
    # operators whose inputs are not all of one type, or come in another order
    Case(kind="SPLIT", consts={0: _ints(1)}, outputs=((2, 4), (2, 4)), options={"numSplits": 2}),
    Case(kind="PRELU", inputs=(X4,), consts={1: np.full((1, 1, 8), 0.1)}, outputs=(X4,)),
    Case(kind="PADV2", consts={1: _ints([[0, 0], [1, 1]]), 2: np.zeros(())}, outputs=((2, 10),)),
    Case(kind="SELECT_V2", inputs=(X2, X2), consts={0: np.ones(X2, np.bool_)}, dtypes=_MOVED),
    Case(kind="TOPK_V2", consts={1: _ints(2)}, outputs=((2, 2), (2, 2)), dtypes=FLOAT),
    Case(kind="FILL", inputs=((),), consts={0: _ints([2, 8])}, dtypes=(*REAL, *WHOLE)),
]
CASES = [*_UNARY, *_BINARY, *_COMPARE, *_LOGIC, *_REDUCE, *_MOVERS, *_REST, *_WEIGHTED, *_MIXED]


def graph_of(case: Case, dtype: DType) -> Graph:
    """The operator on one type: int8 and int16 are stored real numbers, everything else is what it is."""
    quantized = dtype in (DType.INT8, DType.INT16)
    value = DType.FLOAT32 if quantized else dtype
    zero = 0 if dtype == DType.INT16 else 1
    storage = Storage(dtype, QParams.per_tensor(0.05 if dtype == DType.INT8 else 0.001, zero)) if quantized else None
    data = [Tensor(name=f"x{i}", shape=shape, dtype=value, storage=storage) for i, shape in enumerate(case.inputs)]
    feeds, inputs = iter(data), []
    for position in range(len(case.inputs) + len(case.consts)):
        if position not in case.consts:
            inputs.append(next(feeds))
        else:
            inputs.append(_constant(case, position, case.consts[position], value, storage))
    out_storage = None if case.out_dtype else _output_storage(case.kind, storage)
    outputs = [
        Tensor(name=f"y{i}", shape=shape, dtype=case.out_dtype or value, storage=out_storage)
        for i, shape in enumerate(case.outputs)
    ]
    if case.kind == "QUANTIZE":
        outputs[0].dtype, outputs[0].storage = DType.FLOAT32, Storage(DType.INT8, QParams.per_tensor(0.05, 0))
    if case.kind == "TOPK_V2":
        outputs[1].dtype, outputs[1].storage = DType.INT32, None
    return Graph("main", data, outputs, [Op(case.kind, list(inputs), outputs, dict(case.options))])


def _constant(case: Case, position: int, array: Array, value: DType, storage: Storage | None) -> Tensor:
    if array.dtype != np.float64:
        return constant(f"c{position}", array)
    if storage is None:
        return constant(f"c{position}", array.astype(value.numpy))
    if not case.weighted:
        return Tensor(name=f"c{position}", shape=array.shape, dtype=value, storage=storage,
                      data=storage.qparams.quantize(array, storage.dtype))  # fmt: skip
    bias = array.ndim == 1
    axis = 3 if case.kind == "DEPTHWISE_CONV_2D" and not bias else 0
    channels = array.shape[axis]
    scale = 0.01 * (storage.qparams.scale[0] if bias else 1.0)
    wide = DType.INT32 if storage.dtype == DType.INT8 else DType.INT64
    kind = wide if bias else DType.INT8
    kept = Storage(kind, QParams(scale=(scale,) * channels, zero_point=(0,) * channels, axis=axis))
    return Tensor(name=f"c{position}", shape=array.shape, dtype=value, storage=kept, data=array.astype(kind.numpy))


def _output_storage(kind: str, storage: Storage | None) -> Storage | None:
    if storage is None or kind not in _FIXED:
        return storage
    scale, zero = _FIXED[kind] if storage.dtype == DType.INT8 else (1 / 32768, 0)
    return Storage(storage.dtype, QParams.per_tensor(scale, zero))


def runs(case: Case, dtype: DType, folder: Path) -> str:
    """Empty when TFLM runs the operator on the type, else its last line about why not."""
    path = folder / "case.tflite"
    try:
        path.write_bytes(write(graph_of(case, dtype), description="", metadata={}))
    except (KeyError, ValueError) as error:
        return f"not written: {error}"
    command = [sys.executable, "-c", _RUN, str(path), str(len(case.inputs))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("  ", "Traceback"))]
    return f"exit {done.returncode}: {' | '.join(lines[:2])}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--why", action="store_true", help="say on stderr why a type is refused")
    parser.add_argument("--only", nargs="*", default=[], help="operators to try")
    args = parser.parse_args()
    print("[backends.tflite.kernels]")
    with tempfile.TemporaryDirectory() as folder:
        for case in sorted(CASES, key=lambda case: case.kind):
            if args.only and case.kind not in args.only:
                continue
            reasons = {dtype: runs(case, dtype, Path(folder)) for dtype in case.dtypes}
            if args.why:
                for dtype, reason in reasons.items():
                    if reason:
                        print(f"{case.kind} {dtype}: {reason}", file=sys.stderr)
            good = [str(dtype) for dtype, reason in reasons.items() if not reason]
            if good:
                listing = ", ".join(f'"{dtype}"' for dtype in good)
                print(f"{case.kind} = [{listing}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
