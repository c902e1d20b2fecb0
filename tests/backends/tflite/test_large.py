"""Models beyond 2 GiB: constants behind the FlatBuffer, read by LiteRT from the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgec.backends.tflite import writer
from edgec.backends.tflite.reader import describe
from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import run_build
from tests.support.graphs import random_feeds
from tests.support.tflite import emit, run, unpacked

RNG = np.random.default_rng(4)


def save_products(path: Path, count: int, size: int) -> None:
    """`count` products with different matrices of `size` x `size`, their weights beside the file."""
    nodes, weights, value = [], [], "x"
    for index in range(count):
        weight = RNG.normal(0, size**-0.5, (size, size)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [f"v{index}"]))
        value = f"v{index}"
    io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, size]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "products", io[:1], io[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_constants_behind_the_flatbuffer_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_products(tmp_path / "m.onnx", 3, 160)
    model = canonicalize(load_source(tmp_path / "m.onnx").model)
    feeds = random_feeds(model)
    inside = emit(model.clone())
    monkeypatch.setattr(writer, "_INLINE_BYTES", 1000)
    outside = emit(model)
    for name, value in run(inside, feeds).items():
        np.testing.assert_array_equal(run(outside, feeds)[name], value)
    large = [b for b in unpacked(outside).buffers if b.size]
    data = outside.files["model.tflite"]
    assert len(large) == 3
    assert all(b.data is None and b.offset % 16 == 0 and b.offset + b.size <= len(data) for b in large)
    first = np.frombuffer(data, np.float32, 160 * 160, large[0].offset)
    assert any(np.array_equal(first.reshape(160, 160), w.T) or np.array_equal(first.reshape(160, 160), w)
               for w in (v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value is not None)
               if w.shape == (160, 160))  # fmt: skip
    assert describe(data)["weights_bytes"] >= 3 * 160 * 160 * 4


@pytest.mark.slow
@pytest.mark.skipif("EDGEC_LARGE" not in os.environ, reason="needs 12 GB of memory: set EDGEC_LARGE=1 to run it")
def test_a_bundle_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    save_products(tmp_path / "m.onnx", 9, 8192)  # 2.25 GiB
    built = run_build(tmp_path / "m.onnx", target="linux-x86_64", precision="float32", output=tmp_path)
    assert built.bundle is not None
    assert built.path.stat().st_size > 2**31
    assert built.summary["fidelity"]["sqnr_db"] > 100
