"""A reduction and the constants behind it: OpenVINO's plugin must not read beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edgec.frontends.base import load_source
from edgec.runners.base import run_artifact
from tests.support.graphs import run_ort
from tools.sklearn_cases import built

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMax", "ReduceMean"])
def test_constants_of_several_numbers_after_a_reduction(kind: str, tmp_path: Path) -> None:
    inits: dict[str, np.ndarray] = {
        "c": RNG.normal(size=(1, 3, 13)).astype(np.float32),
        "d": RNG.normal(size=(1, 3, 13)).astype(np.float32),
        "q": RNG.normal(size=(1, 3)).astype(np.float32),
        "axes": np.asarray([2], np.int64),
    }
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Mul", ["a", "d"], ["b"]),
        helper.make_node(kind, ["b", "axes"], ["r"], keepdims=0),
        helper.make_node("Sub", ["r", "q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [45, 1, 13])],
        [helper.make_tensor_value_info("y", 1, [45, 3])],
        [onnx.numpy_helper.from_array(v, k) for k, v in inits.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    feeds = {"x": RNG.normal(size=(45, 1, 13)).astype(np.float32)}
    [got] = run_artifact(built(load_source(path), "openvino"), [feeds])
    np.testing.assert_allclose(got["y"], run_ort(str(path), feeds)["y"], rtol=1e-5, atol=1e-5)
