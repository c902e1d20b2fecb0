"""The OpenVINO backend: what its IR computes, that kernels run in int8, that bytes repeat, and what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.errors import EdgecError, Severity
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.metrics import relative_error, sqnr_db, step_differences
from edgec.passes.pipelines import canonicalize
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.targets.load import load_target
from edgec.targets.profile import PrecisionName
from edgec.tensors import Array
from tests.support.graphs import graph, random_feeds, run_ort
from tests.support.models import model_inputs, model_path
from tests.support.plans import kernel, measured, typed

openvino = pytest.importorskip("openvino")

BACKEND = load_backend("openvino")
TARGET = load_target("intel-cpu")

NET = """(float[1,3,16,16] x) => (float[1,10] y)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=8>(r1, w2, b1) r2 = Relu(c2)
  s = Add(r1, r2) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s) a = Conv(p, w3) h = HardSwish(a)
  j = Concat<axis=1>(h, p) k = Conv(j, w5) v = GlobalAveragePool(k) f = Flatten(v) y = Gemm<transB=1>(f, w4, b4) }"""
CONSTANTS = {
    "w1": kernel(8, 3, 3, 3),
    "b1": kernel(8, seed=1),
    "w2": kernel(8, 1, 3, 3, seed=2),
    "w3": kernel(8, 8, 1, 1, seed=3),
    "w4": kernel(10, 128, seed=4, scale=0.1),
    "b4": kernel(10, seed=5),
    "w5": kernel(128, 16, 1, 1, seed=6),
}


def net() -> Model:
    return typed(NET, CONSTANTS)


def quantized(model: Model, precision: PrecisionName) -> Model:
    stats = measured(model, [random_feeds(model, seed) for seed in range(4)])
    return apply_plan(model, make_plan(model, stats, TARGET, "openvino", precision, range_method="minmax"))


def compiled(artifact: Artifact, folder: Path) -> Any:
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
    return openvino.Core().compile_model(str(folder / artifact.main), "CPU", options)


def run(network: Any, feeds: dict[str, Array], names: list[str]) -> dict[str, Array]:
    result = network(feeds)
    return {name: result[name] for name in names}


def kernels(network: Any) -> list[tuple[str, str]]:
    """Type and precision of every kernel that the plugin chose."""
    infos = [op.get_rt_info() for op in network.get_runtime_model().get_ordered_ops()]
    return [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in infos]


@pytest.mark.parametrize(
    ("precision", "relative"), [("float32", 1e-4), ("float16", 1e-4), ("dynamic", 2e-2), ("int8", 2e-2)]
)
def test_the_ir_computes_what_the_model_says(precision: PrecisionName, relative: float, tmp_path: Path) -> None:
    model = quantized(net(), precision)
    artifact = BACKEND.compile(model, TARGET, CompileOptions(precision=precision))
    feeds = random_feeds(model, 9)
    got = run(compiled(artifact, tmp_path), feeds, ["y"])["y"]
    assert relative_error(run_ort(model, feeds)["y"], got) <= relative


def test_int8_convolutions_run_in_int8_and_give_the_same_fidelity(tmp_path: Path) -> None:
    model = net()
    result = quantized(model, "int8")
    network = compiled(BACKEND.compile(result, TARGET, CompileOptions(precision="int8")), tmp_path)
    chosen = kernels(network)
    assert [p for kind, p in chosen if kind == "Convolution"] == ["u8"] * 4
    assert [p for kind, p in chosen if kind == "FullyConnected"] == ["u8"]
    feeds = [random_feeds(model, seed) for seed in range(20, 24)]
    real = np.concatenate([run_ort(model, f)["y"] for f in feeds])
    reference = np.concatenate([run_ort(result, f)["y"] for f in feeds])
    got = np.concatenate([run(network, f, ["y"])["y"] for f in feeds])
    assert abs(sqnr_db(real, reference) - sqnr_db(real, got)) <= 0.5
    step = float(reference.max() - reference.min()) / 255
    assert step_differences(reference, got, step=step).within_2 >= 0.99


def test_float_kernels_stay_float(tmp_path: Path) -> None:
    network = compiled(BACKEND.compile(net(), TARGET, CompileOptions()), tmp_path)
    assert {p for kind, p in kernels(network) if kind in ("Convolution", "FullyConnected")} == {"f32"}


def test_sizes_follow_the_precision() -> None:
    sizes = {
        p: len(BACKEND.compile(quantized(net(), p), TARGET, CompileOptions(precision=p)).files["model.bin"])
        for p in ("float32", "float16", "dynamic")
    }
    weights = 4 * sum(CONSTANTS[w].size for w in ("w4", "w5"))  # those that are large enough
    assert sizes["float32"] - sizes["float16"] == pytest.approx(weights / 2, abs=64)
    assert sizes["float32"] - sizes["dynamic"] >= weights * 0.7


def test_inputs_and_outputs_are_those_of_the_source() -> None:
    model = quantized(net(), "int8")
    artifact = BACKEND.compile(model, TARGET, CompileOptions(precision="int8"))
    assert artifact.inputs[0].source == artifact.inputs[0].artifact == model.inputs()[0]
    assert artifact.outputs[0].source == artifact.outputs[0].artifact == model.outputs()[0]
    assert artifact.inputs[0].perm is None and artifact.requirements == {"openvino": "2025.2"}


def test_integer_and_several_ends_keep_names_and_types(tmp_path: Path) -> None:
    text = """(float[2,3] x, int64[2] i) => (float[2,3] b, float[2,3] a, int64[2] n)
    { a = Gather(x, i) b = Relu(a) n = Add(i, i) }"""
    model = typed(text)
    network = compiled(BACKEND.compile(model, TARGET, CompileOptions()), tmp_path)
    feeds = {"x": kernel(2, 3), "i": np.asarray([1, 0], np.int64)}
    wanted, got = run_ort(model, feeds), run(network, feeds, ["b", "a", "n"])
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_array_equal(got[name], value)


def test_inputs_that_nothing_reads_and_that_are_outputs_keep_their_names(tmp_path: Path) -> None:
    model = typed("(float[2,3] x, float[3] unused) => (float[2,3] y) { y = Identity(x) }")
    network = compiled(BACKEND.compile(model, TARGET, CompileOptions()), tmp_path)
    feeds = {"x": kernel(2, 3), "unused": kernel(3)}
    np.testing.assert_array_equal(run(network, feeds, ["y"])["y"], feeds["x"])


def test_operators_and_transposes_are_counted() -> None:
    artifact = BACKEND.compile(net(), TARGET, CompileOptions())
    assert artifact.operators["Convolution"] == 3 and artifact.operators["GroupConvolution"] == 1
    assert artifact.transposes == () and artifact.op_versions["Convolution"] == 1
    turned = BACKEND.compile(typed("(float[2,3] x) => (float[3,2] y) { y = Transpose(x) }"), TARGET, CompileOptions())
    assert len(turned.transposes) == 1 and "source model" in turned.transposes[0]


def test_an_int32_bias_costs_no_arithmetic() -> None:
    artifact = BACKEND.compile(quantized(net(), "int8"), TARGET, CompileOptions(precision="int8"))
    weights = artifact.operators["Convolution"] + artifact.operators["GroupConvolution"] + artifact.operators["MatMul"]
    assert artifact.operators["Convert"] == weights  # one for each int8 weight, none for biases


def test_the_same_bytes_in_another_process_folder_and_hash_seed(tmp_path: Path) -> None:
    digests = set()
    for seed in ("0", "77"):
        folder = tmp_path / seed
        folder.mkdir()
        code = (
            "import sys; sys.path[:0] = [sys.argv[1]]\n"
            "from tests.backends.test_openvino import *\n"
            "for _ in range(2):\n"
            "    for p in ('float32', 'int8', 'float16'):\n"
            "        print(BACKEND.compile(quantized(net(), p), TARGET, CompileOptions(precision=p)).digest)\n"
        )
        root = str(Path(__file__).parents[2])
        environment = {"PYTHONHASHSEED": seed, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2", "TMPDIR": str(folder)}
        done = subprocess.run(
            [sys.executable, "-c", code, root],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
            env=environment,
            timeout=120,
        )
        lines = done.stdout.split()
        assert lines[:3] == lines[3:] and len(lines) == 6
        digests.add(tuple(lines))
        assert not list(folder.glob("edgec-*"))  # nothing is left behind
    assert len(digests) == 1


class TestRefusals:
    def test_all_unsupported_nodes_at_once_with_what_runs_left_out(self) -> None:
        text = "(float[5,5] x) => (float y, float z) { a = Relu(x) y = Det(a) b = Sigmoid(x) z = Det(b) }"
        findings = BACKEND.check(typed(text), TARGET)
        assert [(f.code, f.where) for f in findings] == [
            ("backend/unsupported-op", "Det_y"),
            ("backend/unsupported-op", "Det_z"),
        ]
        assert all(f.severity is Severity.ERROR and f.hint for f in findings)

    def test_compile_refuses_with_the_same_findings(self) -> None:
        model = typed("(float[5,5] x) => (float y) { y = Det(x) }")
        with pytest.raises(EdgecError) as caught:
            BACKEND.compile(model, TARGET, CompileOptions())
        assert [f.where for f in caught.value.findings] == ["Det_y"]

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ('(float[1,2,8,8] x) => (float[1,2,1,1] y) { y = RoiAlign<mode="max">(x, r, i) }', "mode=max"),
            ("(float[3,2,4] x) => (float[3,1,2,5] y) { y = LSTM<hidden_size=5>(x, w, u, b, l, h, h, p) }", "peephole"),
        ],
    )
    def test_what_openvino_would_compute_wrongly(self, text: str, part: str) -> None:
        constants: dict[str, Array] = {
            "r": np.asarray([[0, 0, 4, 4]], np.float32),
            "i": np.zeros(1, np.int64),
            "w": kernel(1, 20, 4),
            "u": kernel(1, 20, 5),
            "b": kernel(1, 40),
            "l": np.full(2, 3, np.int32),
            "h": np.zeros((1, 2, 5), np.float32),
            "p": kernel(1, 15),
        }
        model = typed(text, {k: v for k, v in constants.items() if re.search(rf"[ (]{k}[,)]", text)})
        errors = [f for f in BACKEND.check(model, TARGET) if f.severity is Severity.ERROR]
        assert any(part in f.message for f in errors)
        with pytest.raises(EdgecError):
            BACKEND.compile(model, TARGET, CompileOptions())

    def test_another_shape_than_onnx_has_is_refused(self) -> None:
        text = """(float[1,1,2,2] x) => (float[1,1,1,1] y)
        { y = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(x) }"""
        model = graph(text)  # onnx's own inference has the rounding wrong in this case
        assert [f.message for f in BACKEND.check(model, TARGET)] == [
            "OpenVINO gives output 'y' shape (1, 1, 2, 2) instead of (1, 1, 1, 1)"
        ]

    def test_what_is_taken_apart_is_not_refused(self, tmp_path: Path) -> None:
        model = typed("(float[4] x) => (uint8[4] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }")
        legal = BACKEND.legalize(model, TARGET, "float32")
        assert BACKEND.check(model, TARGET) == []
        network = compiled(BACKEND.compile(legal, TARGET, CompileOptions()), tmp_path)
        feeds = {"x": np.asarray([-1.0, 0.0, 0.3, 2.0], np.float32)}
        wanted, got = run_ort(model, feeds), run(network, feeds, ["y", "s", "z"])
        np.testing.assert_array_equal(got["y"], wanted["y"])

    def test_a_model_that_can_be_built_has_no_errors(self) -> None:
        assert [f for f in BACKEND.check(net(), TARGET) if f.severity is Severity.ERROR] == []

    def test_legalize_leaves_its_argument_alone(self) -> None:
        model = net()
        before = model.to_bytes()
        BACKEND.legalize(model, TARGET, "int8")
        BACKEND.compile(quantized(model, "int8"), TARGET, CompileOptions(precision="int8"))
        assert model.to_bytes() == before


@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "ppocr_cls"])
def test_real_models_in_float(name: str, tmp_path: Path) -> None:
    model = canonicalize(load_source(model_path(name), inputs=model_inputs(name)).model)
    network = compiled(BACKEND.compile(model, TARGET, CompileOptions()), tmp_path)
    feeds = random_feeds(model, 3, low=-1.0, high=1.0)
    wanted = Executor(model).run(feeds)
    got = run(network, feeds, list(wanted))
    for output, value in wanted.items():
        assert relative_error(value, got[output]) <= 1e-4
