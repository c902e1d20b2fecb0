"""The file: alignment, shared buffers, the same bytes every time, names, metadata."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as fb

from edgec.backends.tflite.backend import MODEL_FILE
from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.backends.tflite.writer import unique_names, write
from edgec.tensors import DType, QParams
from tests.support.plans import kernel, typed
from tests.support.random_graphs import random_model
from tests.support.tflite import emit

ROOT = Path(__file__).resolve().parents[3]


def value(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32)


def small() -> Graph:
    """Two additions of equal constants, and a third of others."""
    x, a, b, y = (value(n, 5) for n in "xaby")
    one, same, other = (constant(n, np.arange(5, dtype=np.float32) + k) for n, k in (("c", 0), ("d", 0), ("e", 1)))
    options = {"fusedActivationFunction": "NONE"}
    ops = [Op("ADD", [x, one], [a], options), Op("MUL", [a, same], [b], options), Op("SUB", [b, other], [y], options)]
    return Graph("main", [x], [y], ops)


def read(data: bytes) -> fb.ModelT:
    return fb.ModelT.InitFromPackedBuf(data, 0)


def test_buffers_are_aligned() -> None:
    model = emit(random_model(3, steps=20))
    data = model.files[MODEL_FILE]
    root = fb.Model.GetRootAs(data, 0)
    sizes = []
    for i in range(root.BuffersLength()):
        buffer = root.Buffers(i)
        if not buffer.DataIsNone():
            # the vector's elements start behind its length
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0, i
            sizes.append(buffer.DataLength())
    assert len(sizes) > 3


def test_equal_constants_share_a_buffer() -> None:
    model = read(write(small(), description="", metadata={}))
    tensors = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    assert tensors["c"].buffer == tensors["d"].buffer != tensors["e"].buffer
    assert len(model.buffers) == 3
    assert model.buffers[0].data is None


def test_computed_tensors_have_no_bytes() -> None:
    model = read(write(small(), description="", metadata={}))
    tensors = {t.name.decode(): t for t in model.subgraphs[0].tensors}
    assert all(tensors[n].buffer == 0 for n in "xaby")


def test_metadata_description_and_signature() -> None:
    model = read(write(small(), description="what it is", metadata={"b": b"2", "a": b"1"}))
    assert model.description == b"what it is" and model.version == 3
    assert [m.name for m in model.metadata] == [b"a", b"b"]
    assert [bytes(model.buffers[m.buffer].data) for m in model.metadata] == [b"1", b"2"]
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [t.name for t in signature.inputs] == [b"x"] and [t.name for t in signature.outputs] == [b"y"]


def test_quantization_is_written_per_channel() -> None:
    x, y = value("x", 1, 3), value("y", 1, 2)
    w = Tensor("w", (2, 3), DType.FLOAT32, np.ones((2, 3), np.int8))
    w.storage = Storage(DType.INT8, QParams(scale=(0.5, 0.25), zero_point=(0, 0), axis=0))
    bias = constant("b", np.zeros(2, np.float32))
    ops = [Op("FULLY_CONNECTED", [x, w, bias], [y], {"fusedActivationFunction": "NONE"})]
    model = read(write(Graph("main", [x], [y], ops), description="", metadata={}))
    written = next(t for t in model.subgraphs[0].tensors if t.name == b"w")
    assert written.type == fb.TensorType.INT8
    np.testing.assert_array_equal(written.quantization.scale, np.asarray([0.5, 0.25], np.float32))
    assert written.quantization.quantizedDimension == 0


def test_options_that_a_table_lacks_are_an_error() -> None:
    graph = small()
    graph.ops[0].options["nonsense"] = 1
    with pytest.raises(KeyError, match="nonsense"):
        write(graph, description="", metadata={})


def test_names_are_unique() -> None:
    assert unique_names([value("a", 1), value("a", 1), value("b", 1), value("a", 1)]) == ["a", "a;1", "b", "a;2"]


def test_a_name_that_looks_numbered_is_left_alone() -> None:
    assert unique_names([value("a;1", 1), value("a", 1), value("a", 1)]) == ["a;1", "a", "a;2"]


def test_builtins_beyond_127_carry_a_placeholder_for_old_readers() -> None:
    x, y = value("x", 4), value("y", 4)
    graph = Graph("main", [x], [y], [Op("GELU", [x], [y], {"approximate": False})])
    (code,) = read(write(graph, description="", metadata={})).operatorCodes
    assert code.builtinCode == fb.BuiltinOperator.GELU and code.deprecatedBuiltinCode == 127


def digest_of_random_models() -> str:
    """What the subprocesses below print."""
    sha = hashlib.sha256()
    for seed in range(8):
        sha.update(emit(random_model(seed, steps=20)).files[MODEL_FILE])
    model = typed(
        "(float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w) }",
        {"w": kernel(4, 3, 3, 3)},
    )
    sha.update(emit(model).files[MODEL_FILE])
    return sha.hexdigest()


def test_the_same_bytes_with_any_hash_seed_and_from_any_folder(tmp_path: Path) -> None:
    code = "import json, tests.backends.tflite.test_writer as t; print(json.dumps(t.digest_of_random_models()))"
    found = {digest_of_random_models()}
    for seed in ("1", "4711"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=folder, check=True, capture_output=True, timeout=120
        )
        found.add(json.loads(done.stdout))
    assert len(found) == 1


def test_released_constants_are_in_the_file_all_the_same() -> None:
    kept, released = small(), small()
    data = write(kept, description="", metadata={})
    assert write(released, description="", metadata={}, release=True) == data
    assert all(t is None or t.data is None for op in released.ops for t in op.inputs)
    assert all(op.inputs[1] is not None and op.inputs[1].data is not None for op in kept.ops)
