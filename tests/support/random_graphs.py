"""Random graphs that mix convolutions with everything that moves axes, as ONNX text."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.plans import typed

Shape = tuple[int, ...]
_LARGEST = 6000


@dataclass(slots=True)
class Maker:
    """Grows a graph: `values` are the names made so far with their shapes."""

    rng: random.Random
    lines: list[str] = field(default_factory=list)
    values: list[tuple[str, Shape]] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def const(self, array: Array) -> str:
        """A new initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def weights(self, *shape: int) -> str:
        """Random weights of moderate size."""
        generator = np.random.default_rng(self.rng.randrange(1 << 30))
        fan = math.prod(shape[1:]) or 1
        return self.const((generator.standard_normal(shape) / math.sqrt(fan)).astype(np.float32))

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.const(np.asarray(values, np.int64))

    def emit(self, op: str, inputs: list[str], shape: Shape, attributes: str = "") -> None:
        """A node with one output."""
        name = f"v{len(self.values)}"
        self.lines.append(f"{name} = {op}{f' <{attributes}>' if attributes else ''} ({', '.join(inputs)})")
        self.values.append((name, shape))
        self.used.update(inputs)

    def pick(self, ranks: tuple[int, ...] = (1, 2, 3, 4, 5)) -> tuple[str, Shape] | None:
        """A value of one of the ranks, late ones more often."""
        known = [v for v in self.values if len(v[1]) in ranks and math.prod(v[1]) <= _LARGEST]
        if not known:
            return None
        return known[-1] if self.rng.random() < 0.6 else self.rng.choice(known)


def _conv(m: Maker) -> None:
    if not (v := m.pick((4,))):
        return
    x, (n, c, h, w) = v
    k, stride = m.rng.choice((1, 3)), m.rng.choice((1, 1, 2))
    pad = k // 2
    depthwise = m.rng.random() < 0.3
    out = c if depthwise else m.rng.choice((2, 3, 4, 8))
    group = c if depthwise else 1
    kernel = m.weights(out, c // group, k, k)
    shape = (n, out, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)
    attributes = f"kernel_shape=[{k},{k}], pads=[{pad},{pad},{pad},{pad}], strides=[{stride},{stride}], group={group}"
    m.emit("Conv", [x, kernel, m.weights(out)], shape, attributes)


def _conv1d(m: Maker) -> None:
    if v := m.pick((3,)):
        x, (n, c, t) = v
        m.emit("Conv", [x, m.weights(4, c, 3)], (n, 4, t), "kernel_shape=[3], pads=[1,1]")


def _unary(m: Maker) -> None:
    if v := m.pick():
        m.emit(m.rng.choice(("Relu", "Sigmoid", "Tanh", "Abs", "HardSwish", "LeakyRelu")), [v[0]], v[1])


def _constant_operand(m: Maker) -> None:
    if v := m.pick():
        x, shape = v
        operand = tuple(d if m.rng.random() < 0.5 else 1 for d in shape)[m.rng.randrange(len(shape)) :]
        names = [x, m.weights(*operand)]
        m.rng.shuffle(names)
        m.emit(m.rng.choice(("Add", "Mul", "Sub")), names, shape)


def _operands(m: Maker) -> None:
    """Two computed values that broadcast."""
    if not (v := m.pick()):
        return
    x, shape = v
    known = [
        u for u in m.values
        if len(u[1]) <= len(shape) and all(a in (1, b) for a, b in zip(u[1][::-1], shape[::-1], strict=False))
    ]  # fmt: skip
    m.emit(m.rng.choice(("Add", "Mul", "Sub", "Max")), [x, m.rng.choice(known)[0]], shape)


def _transpose(m: Maker) -> None:
    if v := m.pick((2, 3, 4, 5)):
        x, shape = v
        perm = list(range(len(shape)))
        m.rng.shuffle(perm)
        m.emit("Transpose", [x], tuple(shape[p] for p in perm), f"perm={perm}")


def _reshape(m: Maker) -> None:
    if not (v := m.pick()):
        return
    x, shape = v
    dims = list(shape)
    for _ in range(m.rng.choice((1, 2))):
        i = m.rng.randrange(len(dims))
        kind = m.rng.random()
        if kind < 0.4 and i + 1 < len(dims):
            dims[i : i + 2] = [dims[i] * dims[i + 1]]
        elif kind < 0.8 and len(dims) < 5:
            factor = next((f for f in m.rng.sample((2, 3, 4), 3) if dims[i] % f == 0), 1)
            dims[i : i + 1] = [factor, dims[i] // factor]
        elif len(dims) < 5:
            dims.insert(i, 1)
    m.emit("Reshape", [x, m.ints(*dims)], tuple(dims))


def _concat(m: Maker) -> None:
    if not (v := m.pick((2, 3, 4))):
        return
    x, shape = v
    axis = m.rng.randrange(len(shape))
    mates = [
        u for u in m.values
        if len(u[1]) == len(shape) and all(i == axis or u[1][i] == d for i, d in enumerate(shape))
    ]  # fmt: skip
    y, other = m.rng.choice(mates)
    out = (*shape[:axis], shape[axis] + other[axis], *shape[axis + 1 :])
    m.emit("Concat", [x, y], out, f"axis={axis - m.rng.choice((0, len(shape)))}")


def _reduce(m: Maker) -> None:
    if not (v := m.pick((2, 3, 4, 5))):
        return
    x, shape = v
    axes = sorted(m.rng.sample(range(len(shape)), m.rng.randint(1, min(2, len(shape) - 1))))
    keep = m.rng.randrange(2)
    out = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
    kind = m.rng.choice(("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin"))
    m.emit(kind, [x, m.ints(*axes)], out, f"keepdims={keep}")


def _pad(m: Maker) -> None:
    if v := m.pick((2, 3, 4)):
        x, shape = v
        before = [m.rng.choice((0, 0, 1)) for _ in shape]
        after = [m.rng.choice((0, 0, 1, 2)) for _ in shape]
        out = tuple(d + b + a for d, b, a in zip(shape, before, after, strict=True))
        value = m.const(np.asarray(m.rng.choice((0.0, 1.5)), np.float32))
        m.emit("Pad", [x, m.ints(*before, *after), value], out)


def _slice(m: Maker) -> None:
    if not (v := m.pick((2, 3, 4))):
        return
    x, shape = v
    axis = m.rng.randrange(len(shape))
    if shape[axis] < 3:
        return
    step = m.rng.choice((1, 1, 2, -1))
    start, end = (1, shape[axis]) if step > 0 else (shape[axis] - 1, 0)
    count = len(range(start, end, step))
    out = (*shape[:axis], count, *shape[axis + 1 :])
    m.emit("Slice", [x, m.ints(start), m.ints(end), m.ints(axis), m.ints(step)], out)


def _softmax(m: Maker) -> None:
    if v := m.pick((2, 3, 4)):
        m.emit("Softmax", [v[0]], v[1], f"axis={m.rng.randrange(len(v[1]))}")


def _matmul(m: Maker) -> None:
    if v := m.pick((2, 3, 4)):
        x, shape = v
        m.emit("MatMul", [x, m.weights(shape[-1], 5)], (*shape[:-1], 5))


def _attention(m: Maker) -> None:
    """x · xᵀ: both operands computed."""
    if v := m.pick((2, 3, 4)):
        x, shape = v
        rank = len(shape)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        m.emit("Transpose", [x], tuple(shape[p] for p in perm), f"perm={perm}")
        m.emit("MatMul", [x, m.values[-1][0]], (*shape[:-1], shape[-2]))


def _gather(m: Maker) -> None:
    if not (v := m.pick((2, 3, 4))):
        return
    x, shape = v
    axis = m.rng.randrange(len(shape))
    if m.rng.random() < 0.5:
        index, out = m.const(np.asarray(m.rng.randrange(shape[axis]), np.int64)), (*shape[:axis], *shape[axis + 1 :])
    else:
        where = [m.rng.randrange(-shape[axis], shape[axis]) for _ in range(3)]
        index, out = m.ints(*where), (*shape[:axis], 3, *shape[axis + 1 :])
    m.emit("Gather", [x, index], out, f"axis={axis}")


def _split(m: Maker) -> None:
    if not (v := m.pick((2, 3, 4))):
        return
    x, shape = v
    axes = [i for i, d in enumerate(shape) if d % 2 == 0]
    if not axes:
        return
    axis = m.rng.choice(axes)
    half = (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])
    a, b = f"v{len(m.values)}", f"v{len(m.values) + 1}"
    m.lines.append(f"{a}, {b} = Split <axis={axis}, num_outputs=2> ({x})")
    m.values += [(a, half), (b, half)]
    m.used.add(x)


def _pool(m: Maker) -> None:
    if not (v := m.pick((4,))):
        return
    x, (n, c, h, w) = v
    kind = m.rng.randrange(3)
    if kind == 0:
        m.emit("GlobalAveragePool", [x], (n, c, 1, 1))
    elif h > 1 and w > 1:
        op = ("MaxPool", "AveragePool")[kind - 1]
        m.emit(op, [x], (n, c, h // 2, w // 2), "kernel_shape=[2,2], strides=[2,2]")


def _resize(m: Maker) -> None:
    if (v := m.pick((4,))) and math.prod(v[1]) * 4 <= _LARGEST:
        x, (n, c, h, w) = v
        scales = m.const(np.asarray([1, 1, 2, 2], np.float32))
        attributes = 'mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
        m.emit("Resize", [x, "", scales], (n, c, 2 * h, 2 * w), attributes)


def _norm(m: Maker) -> None:
    if v := m.pick((2, 3, 4)):
        x, shape = v
        m.emit("LayerNormalization", [x, m.weights(shape[-1]), m.weights(shape[-1])], shape, "axis=-1, epsilon=0.01")


def _expand(m: Maker) -> None:
    if v := m.pick((2, 3, 4)):
        x, shape = v
        out = tuple(3 if d == 1 and m.rng.random() < 0.5 else d for d in shape)
        m.emit("Expand", [x, m.ints(*out)], out)


def _depth_to_space(m: Maker) -> None:
    if (v := m.pick((4,))) and v[1][1] % 4 == 0:
        x, (n, c, h, w) = v
        mode = m.rng.choice(("DCR", "CRD"))
        m.emit("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), f'blocksize=2, mode="{mode}"')


def _heads(m: Maker) -> None:
    """Products of one value with several matrices, scaled, as heads, moved; or one product taken apart."""
    if not (v := m.pick((3,))):
        return
    x, (n, t, c) = v
    scale = m.const(np.asarray(m.rng.choice((0.25, 0.3)), np.float32))
    shape = m.ints(n, t, 2, 3)
    if m.rng.random() < 0.5:
        for _ in range(m.rng.choice((1, 2, 3))):
            m.emit("MatMul", [x, m.weights(c, 6)], (n, t, 6))
            m.emit("Add", [m.values[-1][0], m.weights(6)], (n, t, 6))
            m.emit("Reshape", [m.values[-1][0], shape], (n, t, 2, 3))
            m.emit("Transpose", [m.values[-1][0]], (n, 2, t, 3), "perm=[0,2,1,3]")
            if m.rng.random() < 0.5:
                m.emit("Mul", [m.values[-1][0], scale], (n, 2, t, 3))
        return
    m.emit("MatMul", [x, m.weights(c, 12)], (n, t, 12))
    m.emit("Reshape", [m.values[-1][0], m.ints(n, t, 2, 2, 3)], (n, t, 2, 2, 3))
    m.emit("Transpose", [m.values[-1][0]], (2, n, 2, t, 3), "perm=[2,0,3,1,4]")
    whole = m.values[-1][0]
    for index in m.rng.sample((0, 1), 2):
        m.emit("Gather", [whole, m.const(np.asarray(index, np.int64))], (n, 2, t, 3), "axis=0")
        if m.rng.random() < 0.5:
            m.emit("Mul", [m.values[-1][0], scale], (n, 2, t, 3))


def _gemm(m: Maker) -> None:
    if v := m.pick((3, 4)):
        x, shape = v
        m.emit("Flatten", [x], (shape[0], math.prod(shape[1:])), "axis=1")
        m.emit("Gemm", [m.values[-1][0], m.weights(6, math.prod(shape[1:])), m.weights(6)], (shape[0], 6), "transB=1")


MAKERS: tuple[Callable[[Maker], None], ...] = (
    _conv, _conv, _conv, _conv1d, _unary, _constant_operand, _operands, _transpose, _transpose, _reshape, _reshape,
    _concat, _reduce, _pad, _slice, _softmax, _matmul, _attention, _gather, _split, _pool, _resize, _norm, _expand,
    _depth_to_space, _gemm, _heads, _heads,
)  # fmt: skip


def random_model(seed: int, *, steps: int = 14, makers: tuple[Callable[[Maker], None], ...] = MAKERS) -> Model:
    """A graph of about `steps` operators on one or two images; everything that nobody reads is an output."""
    m = Maker(random.Random(seed))
    side = m.rng.choice((6, 8))
    m.values = [("v0", (1, m.rng.choice((3, 4)), side, side))]
    if m.rng.random() < 0.3:
        m.values.append(("v1", (1, 4, side)))
    inputs = list(m.values)
    while len(m.values) < steps:
        m.rng.choice(makers)(m)
    outputs = [v for v in m.values if v[0] not in m.used and v not in inputs] or [m.values[-1]]
    declared = ", ".join(f"float[{','.join(map(str, s))}] {n}" for n, s in inputs)
    result = ", ".join(f"float[{','.join(map(str, s))}] {n}" for n, s in outputs)
    return typed(f"({declared}) => ({result}) {{ {' '.join(m.lines)} }}", m.constants)
