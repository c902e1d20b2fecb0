"""One ONNX node in LiteRT against ONNX Runtime, with its parameters as constants or as run-time inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from edgec.graph.model import Model, SourceInfo
from edgec.graph.names import name_everything
from edgec.tensors import Array
from tests.support.graphs import run_ort
from tests.support.tflite import emit, run

#: The largest difference, as a part of the largest magnitude.
TOLERANCE = 1e-5


class Node:
    """A node with its operands' values. `data` are the positions that always come at run time."""

    def __init__(
        self,
        op: str,
        *operands: Array | None,
        data: Sequence[int] = (0,),
        outputs: int = 1,
        opset: int = 21,
        **attributes: Any,
    ) -> None:
        self.op, self.operands, self.data = op, operands, tuple(data)
        self.outputs, self.opset, self.attributes = outputs, opset, attributes

    def __repr__(self) -> str:
        shapes = ",".join("-" if a is None else f"{a.dtype.name}{list(a.shape)}" for a in self.operands)
        return f"{self.op}({shapes}){self.attributes or ''}"

    def _proto(self, constant: bool, declared: Sequence[Array] | None) -> onnx.ModelProto:
        names = ["" if a is None else f"x{i}" for i, a in enumerate(self.operands)]
        results = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, results, **self.attributes)
        inputs, initializers = [], []
        for i, array in enumerate(self.operands):
            if array is None:
                continue
            if constant and i not in self.data:
                initializers.append(numpy_helper.from_array(array, names[i]))
            else:
                inputs.append(_info(names[i], array))
        if declared is None:
            outs = [helper.make_empty_tensor_value_info(r) for r in results]
        else:
            outs = [_info(r, a) for r, a in zip(results, declared, strict=True)]
        graph = helper.make_graph([node], "g", inputs, outs, initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    @property
    def feeds(self) -> dict[str, Array]:
        """Every operand by name."""
        return {f"x{i}": a for i, a in enumerate(self.operands) if a is not None}

    def reference(self) -> list[Array]:
        """What ONNX Runtime computes."""
        proto = self._proto(False, None)
        return list(run_ort(proto.SerializeToString(), self.feeds).values())

    def model(self, *, constant: bool, declared: Sequence[Array]) -> Model:
        """The node as a model whose outputs have the shapes of `declared`."""
        loaded = ir.serde.deserialize_model(self._proto(constant, declared))
        name_everything(loaded)
        return Model(ir=loaded, source=SourceInfo(kind="onnx", name="node.onnx", digest=""), name="node")


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def check(
    node: Node,
    *,
    constant: bool,
    expected: Sequence[Array] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """LiteRT's outputs are those expected, or ONNX Runtime's."""
    wanted = node.reference() if expected is None else list(expected)
    artifact = emit(node.model(constant=constant, declared=wanted))
    names = {b.source.name for b in artifact.inputs}
    got = list(run(artifact, {k: v for k, v in node.feeds.items() if k in names}).values())
    for value, reference in zip(got, wanted, strict=True):
        assert value.shape == reference.shape and value.dtype == reference.dtype, (value.shape, value.dtype)
        if reference.dtype.kind != "f":
            np.testing.assert_array_equal(value, reference)
            continue
        magnitude = float(
            np.max(np.abs(reference, where=np.isfinite(reference), out=np.zeros(reference.shape)), initial=0)
        )
        np.testing.assert_allclose(value, reference, rtol=0, atol=max(magnitude, 1e-6) * tolerance)


def draw(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    """Random values: floats in −2 … 2, bools, and integers −9 … 9 (from 0 where there is no sign)."""
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return rng.uniform(-2, 2, shape).astype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.integers(0 if dtype.startswith("u") else -9, 10, shape).astype(dtype)


def ints(*values: int, dtype: str = "int64") -> Array:
    """A list of integers."""
    return np.asarray(values, np.dtype(dtype))
