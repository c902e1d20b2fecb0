"""The whole road: every precision on both backends, every stage alone, the same bytes each time, clean failures."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import edgec
from edgec.bundle.open import open_bundle
from edgec.errors import EdgecError
from edgec.pipeline import STAGES, BuildResult, run_build
from edgec.pipeline.precision import keeps_accuracy
from tests.support.graphs import graph, run_ort
from tests.support.plans import kernel, typed
from tests.support.small_net import samples, small_net, write_small_net

ROOT = Path(__file__).resolve().parents[2]
#: What `--json` promises to scripts.
SUMMARY_KEYS = {
    "name", "target", "backend", "precision", "why", "inputs", "outputs", "operators", "operator_count", "transposes",
    "transpose_reasons", "size_bytes", "fidelity", "agreement", "findings", "validation", "latency", "bundle", "stages",
    "peak_memory_bytes",
}  # fmt: skip
FIDELITY_KEYS = {"sqnr_db", "cosine", "max_abs", "top1_agreement", "outputs", "samples", "reference_sqnr_db"}
#: Precision → the least SQNR in dB that the small net must keep.
FLOORS = {"float32": 90.0, "float16": 50.0, "int16x8": 25.0, "int8": 18.0, "dynamic": 25.0}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def built(folder: Path, *, precision: str = "int8", target: str = "raspberrypi4", **options: Any) -> BuildResult:
    model, data = write_small_net(folder)
    calibration = data if precision in ("int8", "int16x8") else None
    options.setdefault("calibration", calibration)
    return run_build(model, target=target, precision=precision, output=folder / "dist", **options)


CASES = [
    *(("raspberrypi4", "tflite", p) for p in ("float32", "float16", "dynamic", "int8", "int16x8")),
    *(("intel-cpu", "openvino", p) for p in ("float32", "float16", "dynamic", "int8")),
]


@pytest.mark.parametrize(("target", "backend", "precision"), CASES)
def test_end_to_end(tmp_path: Path, target: str, backend: str, precision: str) -> None:
    result = built(tmp_path, precision=precision, target=target, backend=backend)
    summary, bundle = result.summary, result.bundle
    assert bundle is not None
    assert summary.keys() >= SUMMARY_KEYS and summary["fidelity"].keys() >= FIDELITY_KEYS
    json.dumps(summary)
    assert summary["precision"] == precision and summary["backend"] == backend
    assert {"serve.pyz", "edgec-agent.service"} <= set(bundle.names)
    assert ("calibration.json" in bundle.names) == (precision in ("int8", "int16x8"))
    assert summary["validation"]["passed"] is True
    assert summary["transposes"] == 0 or backend == "openvino"
    assert summary["bundle"] == str(result.path) and result.path.suffix == ".edgec"
    assert not [f for f in summary["findings"] if f["severity"] == "error"]
    data = samples(6)
    reference = np.stack([run_ort(small_net(), {"image": x[None]})["scores"] for x in data])
    with bundle:
        assert bundle.manifest.precision == precision
        outputs = np.stack([bundle.run({"image": x[None]})["scores"] for x in data])
    assert outputs.shape == reference.shape and outputs.dtype == np.float32
    noise = float(np.sum((reference - outputs) ** 2)) or 1e-30
    assert 10 * np.log10(float(np.sum(reference**2)) / noise) >= FLOORS[precision]


def test_int8_agrees_with_the_qdq_model(tmp_path: Path) -> None:
    stopped = built(tmp_path, stop_after="quantize")
    qdq = stopped.path.read_bytes()
    result = built(tmp_path)
    (agreement,) = result.summary["agreement"].values()
    assert agreement["within_2"] >= 0.99
    assert result.bundle is not None
    step = 2.01 * float(np.ptp(run_ort(qdq, {"image": samples(1)})["scores"])) / 100
    with result.bundle as bundle:
        for x in samples(4):
            wanted = run_ort(qdq, {"image": x[None]})["scores"]
            np.testing.assert_allclose(bundle.run({"image": x[None]})["scores"], wanted, rtol=0, atol=step)


def test_run_raw_takes_what_the_artifact_takes(tmp_path: Path) -> None:
    with edgec.build(
        write_small_net(tmp_path)[0], target="raspberrypi4", precision="float32", output=tmp_path
    ) as bundle:
        (binding,) = bundle.inputs
        assert binding.artifact.shape == (1, 16, 16, 3) and binding.perm == (0, 2, 3, 1)
        x = samples(1)
        raw = bundle.run_raw({binding.artifact.name: np.ascontiguousarray(x.transpose(0, 2, 3, 1))})
        (value,) = raw.values()
        np.testing.assert_array_equal(value, bundle.run({"image": x})["scores"])


# --- stages -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "suffix"),
    [
        ("load", ".load.onnx"),
        ("passes", ".passes.onnx"),
        ("legalize", ".legalize.onnx"),
        ("calibrate", ".statistics.json"),
        ("quantize", ".quantize.onnx"),
        ("compile", ".tflite"),
        ("bundle", ".edgec"),
    ],
)
def test_stop_after(tmp_path: Path, stage: str, suffix: str) -> None:
    result = built(tmp_path, stop_after=stage)
    assert result.path.name.endswith(suffix) and result.path.stat().st_size > 0
    assert "validation" not in result.summary and stage in result.summary["stages"]
    later = STAGES[STAGES.index(stage) + 1 :]
    assert not set(later) & set(result.summary["stages"])
    # What was quantized is said as soon as it is known: bench-int8 goes by it to tell a mix from int8 throughout.
    assert ({"nodes", "ladder"} <= set(result.summary)) == (stage in STAGES[STAGES.index("quantize") :])
    if suffix.endswith(".onnx"):
        onnx.checker.check_model(onnx.load(result.path), full_check=True)
    elif suffix == ".statistics.json":
        assert json.loads(result.path.read_text())["samples"] == 24
    elif suffix == ".edgec":
        with open_bundle(result.path) as bundle:
            assert bundle.manifest.precision == "int8"


def test_stop_after_validate_is_the_whole_build(tmp_path: Path) -> None:
    assert built(tmp_path, precision="float32", stop_after="validate").summary["validation"]["passed"] is True


def test_stop_after_a_stage_that_this_build_has_not(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, precision="float32", stop_after="calibrate")
    assert error.value.code == "cli/no-product"


def test_the_plan_lies_beside_the_quantized_model(tmp_path: Path) -> None:
    result = built(tmp_path, stop_after="quantize")
    plan = json.loads((result.path.parent / "net.plan.json").read_text())
    decisions = [d for kind in ("activations", "weights", "biases", "nodes") for d in plan[kind].values()]
    assert len(plan["weights"]) == 4 and all(d["reason"] for d in decisions)


def test_an_unknown_stage_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, stop_after="compil")
    assert error.value.code == "cli/unknown-stage" and "compile" in error.value.finding.hint


# --- the same bytes -----------------------------------------------------------------------------------


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    """A second one that finds its statistics in the cache, and one from another folder under another hash seed."""
    first = built(tmp_path).path.read_bytes()
    again = tmp_path / "again"
    again.mkdir()
    assert built(again).path.read_bytes() == first
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    write_small_net(elsewhere)
    code = (
        "from edgec.pipeline import run_build; "
        "run_build('net.onnx', target='raspberrypi4', precision='int8', calibration='samples.npy', output='.')"
    )
    environment = {
        **os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT), "EDGEC_CACHE": str(elsewhere / "cache"),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, check=True, timeout=300)
    (bundle,) = elsewhere.glob("*.edgec")
    assert hashlib.sha256(bundle.read_bytes()).digest() == hashlib.sha256(first).digest()


# --- failures -----------------------------------------------------------------------------------------


def test_int8_without_calibration_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, calibration=None)
    assert error.value.code == "calibration/missing" and "--calibration" in error.value.finding.hint
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"target": "raspberypi4"}, "target/unknown"),
        ({"precision": "int4"}, "cli/unknown-precision"),
        ({"backend": "openvno"}, "target/no-backend"),
        ({"target": "intel-cpu", "precision": "int16x8"}, "target/no-precision"),
        ({"inputs": {"imge": (1, 3, 16, 16)}}, "source/unknown-input"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(EdgecError) as error:
        built(tmp_path, **options)
    assert error.value.code == code
    assert not (tmp_path / "dist").exists()


def test_an_unsupported_model_leaves_nothing(tmp_path: Path) -> None:
    model = typed("(float[2] x) => (string[2] y, string[2] z) { y = Cast<to=8>(x) a = Relu(x) z = Cast<to=8>(a) }")
    (tmp_path / "strings.onnx").write_bytes(model.to_bytes())
    with pytest.raises(EdgecError) as error:
        run_build(tmp_path / "strings.onnx", target="raspberrypi4", precision="float32", output=tmp_path / "dist")
    assert len(error.value.findings) == 2
    assert not (tmp_path / "dist").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "dist").write_text("a file, not a folder")
    with pytest.raises(EdgecError) as error:
        built(tmp_path, precision="float32")
    assert error.value.code.startswith("io/")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "cache") == ["dist", "net.onnx", "samples.npy"]


def test_calibration_data_of_the_wrong_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "wrong.npy", np.zeros((4, 5, 6), np.float32))
    with pytest.raises(EdgecError) as error:
        built(tmp_path, calibration=tmp_path / "wrong.npy")
    assert error.value.code.startswith("calibration/")


# --- sources ------------------------------------------------------------------------------------------


def test_a_model_that_comes_quantized_is_compiled_as_it_is(tmp_path: Path) -> None:
    qdq = built(tmp_path, stop_after="quantize").path
    result = run_build(qdq, target="raspberrypi4", output=tmp_path / "again")
    assert result.summary["precision"] == "int8" and "as it is" in result.summary["why"]
    assert result.bundle is not None
    with result.bundle as bundle, built(tmp_path).bundle as direct:  # type: ignore[union-attr]  # builds end in one
        x = {"image": samples(1)}
        np.testing.assert_array_equal(bundle.run(x)["scores"], direct.run(x)["scores"])


def test_auto_takes_int8_where_it_keeps_the_accuracy_or_says_why_not(tmp_path: Path) -> None:
    summary = built(tmp_path, precision="auto", calibration=write_small_net(tmp_path)[1]).summary
    assert summary["precision"] in ("int8", "dynamic", "float32") and summary["why"]
    if summary["precision"] != "int8":
        assert "quant/fell-back" in {f["code"] for f in summary["findings"]}


def test_auto_without_data_says_that_int8_was_not_tried(tmp_path: Path) -> None:
    summary = built(tmp_path, precision="auto").summary
    assert summary["precision"] != "int8"
    assert "calibration/none" in {f["code"] for f in summary["findings"]}


def test_progress_is_told_stage_by_stage(tmp_path: Path) -> None:
    seen: list[str] = []
    built(tmp_path, progress=lambda stage, done, total: seen.append(stage))
    assert [stage for stage in STAGES if stage in seen] == list(STAGES)


def test_large_inputs_are_judged_by_fewer_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert built(tmp_path, stop_after="quantize").summary["fidelity"]["samples"] == 24
    monkeypatch.setattr("edgec.pipeline.forms._JUDGE_BYTES", 1000)
    assert built(tmp_path, stop_after="quantize").summary["fidelity"]["samples"] == 3


# --- control flow -------------------------------------------------------------------------------------

_BRANCH = """(float[1,4,8,8] x) => (float[1,4] y)
{ f = Conv<pads=[1,1,1,1]>(x, w) m = ReduceMean<keepdims=0>(x) c = Greater(m, zero)
  r = If(c)<then_branch = t () => (float[1,4,8,8] a) { a = Conv<pads=[1,1,1,1]>(f, w) },
            else_branch = e () => (float[1,4,8,8] b) { b = Relu(f) }>
  y = ReduceMean<keepdims=0>(r, axes) }"""
_LOOP = """(float[1,4,8,8] x) => (float[1,4] y)
{ f = Conv<pads=[1,1,1,1]>(x, w)
  r = Loop(five, going, f)<body = l (int64 i, bool before, float[1,4,8,8] s) => (bool on, float[1,4,8,8] n)
    { q = Conv<pads=[1,1,1,1]>(s, w) o = Add(q, f) n = Tanh(o) m = ReduceMean<keepdims=0>(n) on = Less(m, zero) }>
  d = Conv(r, w) y = ReduceMean<keepdims=0>(d, axes) }"""


@pytest.mark.parametrize("target", ["raspberrypi4", "intel-cpu"])
@pytest.mark.parametrize("text", [_BRANCH, _LOOP])
def test_int8_around_branches_and_loops(tmp_path: Path, text: str, target: str) -> None:
    """Bodies read values that are int8 outside, and what is behind them may have no known shape."""
    rng = np.random.default_rng(1)
    constants = {
        "w": rng.normal(scale=0.2, size=(4, 4, 3, 3)).astype(np.float32), "zero": np.asarray(0, np.float32),
        "axes": np.asarray([2, 3]), "five": np.asarray(5), "going": np.asarray(True),
    }  # fmt: skip
    used = {name: value for name, value in constants.items() if name in text}
    (tmp_path / "model.onnx").write_bytes(graph(text, constants=used).to_bytes())
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(24, 4, 8, 8)).astype(np.float32))
    found = run_build(
        tmp_path / "model.onnx", target=target, precision="int8", calibration=tmp_path / "data.npz",
        output=tmp_path / "dist",
    )  # fmt: skip
    assert found.summary["validation"]["passed"] and found.summary["fidelity"]["sqnr_db"] > 25


@pytest.mark.parametrize("target", ["raspberrypi", "intel-cpu"])
def test_a_detectors_boxes_and_scores_are_told_apart_from_the_build_to_the_device(tmp_path: Path, target: str) -> None:
    model = typed(
        """(float[1,3,8,8] x) => (float[1,6,64] y)
        { b = Conv(x, wide) c = Conv(x, narrow) s = Sigmoid(c) m = Concat<axis=1>(b, s) y = Reshape(m, flat) }""",
        {"wide": 300 * kernel(4, 3, 1, 1), "narrow": kernel(2, 3, 1, 1), "flat": np.array([1, 6, 64])},
    )
    path, data = tmp_path / "head.onnx", tmp_path / "data.npz"
    path.write_bytes(model.to_bytes())
    np.savez(data, x=np.random.default_rng(0).normal(size=(16, 1, 3, 8, 8)).astype(np.float32))
    result = run_build(path, target=target, precision="int8", calibration=data, output=tmp_path / "dist")
    assert result.bundle is not None
    (output,) = result.bundle.manifest.outputs
    assert output.kinds == ((((0, 1), (0, 4), (0, 64)),), (((0, 1), (4, 6), (0, 64)),))
    kinds = result.summary["fidelity"]["outputs"]["y"]["kinds"]
    assert list(kinds) == ["[:,0:4,:]", "[:,4:6,:]"]
    assert result.summary["fidelity"]["sqnr_db"] == min(db for db in kinds.values() if db is not None)
    assert result.summary["validation"]["passed"]
    (worst,) = (which for which, db in kinds.items() if db == result.summary["fidelity"]["sqnr_db"])
    assert f"dB (y{worst})" in keeps_accuracy(result.summary["fidelity"])[1]
