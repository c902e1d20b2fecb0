"""Reading ONNX files: what is found wrong is said with the place and the remedy, what is right is read as it is."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgec.errors import EdgecError, Severity
from edgec.frontends.base import SourceOptions, frontend_names, load_source
from edgec.graph.model import MIN_OPSET
from edgec.passes.pipelines import canonicalize
from tests.support.corrupted_net import base_model
from tests.support.graphs import graph, operators, run_ort


def save(path: Path, text: str, *, opset: int = 21, **constants: np.ndarray) -> Path:
    path.write_bytes(graph(text, opset=opset, constants=constants).to_bytes())
    return path


def code_of(path: Path, **inputs: tuple[int, ...]) -> EdgecError:
    with pytest.raises(EdgecError) as raised:
        load_source(path, inputs=inputs)
    assert raised.value.finding.hint
    return raised.value


def test_frontends_are_found() -> None:
    assert "onnx_file" in frontend_names()


def test_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(base_model().SerializeToString())
    loaded = load_source(path)
    assert loaded.model.name == "net"
    assert loaded.model.source.name == "net.onnx" and len(loaded.model.source.digest) == 64
    assert loaded.model.opset == MIN_OPSET
    assert [spec.shape for spec in loaded.model.inputs()] == [(1, 3, 8, 8)]
    (finding,) = loaded.findings
    assert finding.code == "source/default-shape" and finding.severity is Severity.INFO
    assert finding.message == "input 'x' dimension 'batch' fixed to 1"
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    got = run_ort(canonicalize(loaded.model), {"x": x})["y"]
    np.testing.assert_allclose(got, run_ort(str(path), {"x": x})["y"], rtol=1e-5)


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path in (first, second):
        path.write_bytes(base_model().SerializeToString(deterministic=True))
    assert load_source(first).model.source.digest == load_source(second).model.source.digest
    other = base_model()
    other.doc_string = "changed"
    second.write_bytes(other.SerializeToString())
    assert load_source(first).model.source.digest != load_source(second).model.source.digest


NOT_ONNX = {
    "archive.zip": (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
    "named.onnx": (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
    "pointer.onnx": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "page.onnx": (b"<!DOCTYPE html><html></html>", "an HTML page"),
    "empty.onnx": (b"", "empty"),
    "runtime.ort": (b"\x18\x00\x00\x00ORTM" + bytes(40), "ONNX Runtime's own form"),
    "renamed.onnx": (b"\x18\x00\x00\x00ORTM" + bytes(40), "ONNX Runtime's own form"),
    "net.edgec": (b"PK\x03\x04" + bytes(26) + b"agent.py", "a bundle, built already"),
    "noise.bin": (b"\xff\xfe\xfd" * 30, "of an unknown format"),
}


@pytest.mark.parametrize("name", NOT_ONNX)
def test_other_files_are_named(name: str, tmp_path: Path) -> None:
    data, what = NOT_ONNX[name]
    path = tmp_path / name
    path.write_bytes(data)
    error = code_of(path)
    assert error.code == "source/unknown-format"
    assert what in str(error)
    assert error.exit_code == 3


def test_missing_file(tmp_path: Path) -> None:
    assert code_of(tmp_path / "no.onnx").code == "source/not-found"


def test_folder_with_a_model_in_it(tmp_path: Path) -> None:
    (tmp_path / "inner.onnx").write_bytes(b"x")
    error = code_of(tmp_path)
    assert error.code == "source/unknown-format" and "inner.onnx" in error.finding.hint


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(base_model().SerializeToString()[:-100])
    assert code_of(path).code == "source/truncated"


def test_unknown_kind(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "(float[4] x) => (float[4] y) { y = Relu(x) }")
    with pytest.raises(EdgecError) as raised:
        load_source(path, options=SourceOptions(kind="onnx_fil"))
    assert raised.value.code == "cli/unknown-frontend" and "onnx_file" in raised.value.finding.hint


def test_cycle_names_the_node(tmp_path: Path) -> None:
    model = base_model()
    model.graph.node[1].input[0] = "y"
    path = tmp_path / "cycle.onnx"
    path.write_bytes(model.SerializeToString())
    error = code_of(path)
    assert error.code == "source/malformed"
    assert "'conv' reads 'y'" in str(error) and "cycle" in str(error)


def test_weight_that_does_not_fill_its_shape(tmp_path: Path) -> None:
    model = base_model()
    model.graph.initializer[1].dims[0] = 2**20
    path = tmp_path / "short.onnx"
    path.write_bytes(model.SerializeToString())
    error = code_of(path)
    assert error.code == "source/malformed" and "'w'" in str(error) and "bytes" in str(error)


SHAPED = "(float[N,3,H,W] x) => (float y) { y = Relu(x) }"


def test_given_shape(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", SHAPED)
    loaded = load_source(path, inputs={"x": (2, 3, 32, 48)})
    assert loaded.model.inputs()[0].shape == (2, 3, 32, 48) and loaded.findings == ()


def test_free_dimensions_ask_for_the_exact_flag(tmp_path: Path) -> None:
    error = code_of(save(tmp_path / "m.onnx", SHAPED))
    assert error.code == "source/free-dimension"
    assert "--input x:1x3xHxW" in error.finding.hint


def test_unknown_input_name(tmp_path: Path) -> None:
    error = code_of(save(tmp_path / "m.onnx", SHAPED.replace("x", "image")), imag=(1, 3, 4, 4))
    assert error.code == "source/unknown-input" and "did you mean 'image'" in error.finding.hint


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (1, 3, 8), (1, 3, 0, 8)])
def test_shape_that_contradicts_the_model(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert code_of(save(tmp_path / "m.onnx", SHAPED), x=shape).code == "source/input-shape"


def test_symbols_are_shared_between_inputs(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", "(float[B,S] a, float[B,S] b) => (float y) { y = Add(a, b) }")
    model = load_source(path, inputs={"a": (3, 7)}).model
    assert [spec.shape for spec in model.inputs()] == [(3, 7), (3, 7)]
    assert code_of(path, a=(3, 7), b=(3, 8)).code == "source/input-shape"


@pytest.mark.parametrize("name", ["sequence_length", "T", "num_frames", "height"])
def test_first_dimension_that_is_no_batch_is_not_guessed(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", f"(float[{name},4] x) => (float y) {{ y = Relu(x) }}")
    assert code_of(path).code == "source/free-dimension"


def test_initializers_listed_as_inputs(tmp_path: Path) -> None:
    model = base_model()
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    path = tmp_path / "old.onnx"
    path.write_bytes(model.SerializeToString())
    assert [spec.name for spec in load_source(path).model.inputs()] == ["x"]


def test_functions_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["r"]), helper.make_node("Neg", ["r"], ["b"])]
    function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 21)])
    nodes = [helper.make_node("F", ["x"], ["h"], domain="own"), helper.make_node("F", ["h"], ["y"], domain="own")]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("own", 1)],
        ir_version=10,
    )
    path = tmp_path / "f.onnx"
    path.write_bytes(proto.SerializeToString())
    model = load_source(path).model
    assert operators(model) == {"Relu": 2, "Neg": 2}
    assert len({node.name for node in model.ir.graph}) == 4


def external_model(folder: Path, size: int = 6) -> Path:
    weight = numpy_helper.from_array(np.arange(size * size, dtype=np.float32).reshape(size, size), "w")
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name in "xy"]
    proto = helper.make_model(
        helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", info[:1], info[1:], [weight]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    path = folder / "ext.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_external_data(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    loaded = load_source(path)
    x = np.ones((2, 6), np.float32)
    wanted = run_ort(str(path), {"x": x})["y"]
    np.testing.assert_array_equal(run_ort(loaded.model, {"x": x})["y"], wanted)
    np.testing.assert_allclose(run_ort(canonicalize(loaded.model), {"x": x})["y"], wanted, rtol=1e-6)
    before = loaded.model.source.digest
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[3] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load_source(path).model.source.digest != before


def test_external_data_missing_cut_or_outside(tmp_path: Path) -> None:
    path = external_model(tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    error = code_of(path)
    assert error.code == "source/external-data" and "143" not in str(error) and "144 bytes" in str(error)
    weights.unlink()
    assert "missing" in str(code_of(path))
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(proto.SerializeToString())
    assert "outside" in str(code_of(path))


@pytest.mark.slow
def test_model_over_two_gigabytes_is_not_held(tmp_path: Path) -> None:
    rows, columns = 2**15, 2**14 + 64
    path = external_model(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    tensor = proto.graph.initializer[0]
    tensor.dims[:] = [rows, columns]
    for entry in tensor.external_data:
        if entry.key == "length":
            entry.value = str(rows * columns * 4)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = rows
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = columns
    # Rank 3 data keeps the MatMul, so that canonicalising has no reason to touch the weight.
    proto.graph.input[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    proto.graph.output[0].type.tensor_type.shape.dim.insert(0, onnx.TensorShapeProto.Dimension(dim_value=1))
    path.write_bytes(proto.SerializeToString())
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(rows * columns * 4)  # sparse: takes no space on the disk
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = canonicalize(load_source(path).model)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 256 << 10  # kilobytes
    assert model.outputs()[0].shape == (1, 2, columns)
    with pytest.raises(EdgecError) as raised:
        model.to_bytes()
    assert raised.value.code == "graph/too-large"


def test_negative_lengths_are_unknown_ones(tmp_path: Path) -> None:
    """Paddle declares an output as [-1, 2] whose length is only known once its reshape's sizes are folded."""
    path = save(
        tmp_path / "paddle.onnx",
        """(float[1,4,1,1] x) => (float[n,4] y)
        { s = Shape(x) b = Slice(s, zero, one) r = Concat<axis = 0>(b, rest) f = Reshape(x, r) y = Identity(f) }""",
        opset=11,  # which is upgraded before anything is folded
        zero=np.asarray([0], np.int64),
        one=np.asarray([1], np.int64),
        rest=np.asarray([4], np.int64),
    )
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, path)
    model = canonicalize(load_source(path).model)
    assert model.outputs()[0].shape == (1, 4)
    np.testing.assert_array_equal(run_ort(model, {"x": np.ones((1, 4, 1, 1), np.float32)})["y"], np.ones((1, 4)))
