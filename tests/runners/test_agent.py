"""The agent as a script: old Pythons, no dependencies, stateless runs, clean errors."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.bundle.worker import AGENT, Worker
from tests.support import tiny_bundles as tiny

ZOO = Path(os.environ.get("EDGEC_ZOO", str(Path(__file__).resolve().parents[2].parent / "shared" / "zoo")))


def call(*arguments: str) -> tuple[int, dict[str, object]]:
    done = subprocess.run([sys.executable, "-P", str(AGENT), *arguments], check=False, capture_output=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return done.returncode, answer


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with open_bundle(tiny.pack(folder / "x.edgec", tiny.tflite_artifact())) as bundle:
        bundle.extract(folder / "bundle")
    return folder / "bundle"


def test_source_is_python_3_9_and_needs_only_numpy_and_the_runtimes() -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 9))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(str(node.module).split(".")[0])
    assert roots - sys.stdlib_module_names == {"numpy", "ai_edge_litert", "tflite_runtime", "tflite_micro", "openvino"}


def test_info_names_machine_and_packages() -> None:
    code, answer = call("info")
    assert code == 0
    assert answer["agent"] == 1
    packages = answer["packages"]
    assert isinstance(packages, dict)
    assert packages["numpy"] == np.__version__
    assert "ai-edge-litert" in packages


def test_run_writes_every_output(unpacked: Path, tmp_path: Path) -> None:
    code, answer = call("run", str(unpacked), "--out", str(tmp_path / "out"), "--threads", "2")
    assert code == 0
    assert answer["goldens"] == 2
    for golden in range(2):
        got = np.load(tmp_path / "out" / f"{golden:03d}.0.npy")
        np.testing.assert_array_equal(got, tiny.expected(tiny.sample(golden)).transpose(0, 2, 3, 1))


def test_bench_obeys_runs_and_time(unpacked: Path) -> None:
    code, answer = call("bench", str(unpacked), "--runs", "7", "--warmup", "1")
    assert code == 0
    assert answer["runs"] == 7
    code, answer = call("bench", str(unpacked), "--runs", "1000000000", "--max-seconds", "0.2")
    assert code == 0
    assert isinstance(answer["runs"], int)
    assert 5 <= answer["runs"] < 1_000_000_000


def test_memory_is_the_agents_own_not_its_parents(unpacked: Path) -> None:
    ballast = bytearray(os.urandom(1 << 20) * 400)  # resident in this process, not in the agent
    _, answer = call("bench", str(unpacked), "--runs", "5")
    assert isinstance(answer["peak_rss_bytes"], int)
    assert 10 << 20 < answer["peak_rss_bytes"] < 300 << 20
    assert len(ballast) == 400 << 20


def test_check_accepts_its_own_outputs_and_refuses_others(unpacked: Path, tmp_path: Path) -> None:
    assert call("check", str(unpacked))[0] == 0
    copy = tmp_path / "copy"
    with open_bundle(unpacked.parent / "x.edgec") as bundle:
        bundle.extract(copy)
    golden = copy / "golden" / "001" / "raw.0.npy"
    right = np.load(golden)
    for wrong in (right * np.float32(1.5), right[:, :2], right.astype(np.float64), right * np.float32(np.nan)):
        np.save(golden, wrong)
        code, answer = call("check", str(copy))
        assert code == 1
        assert answer["passed"] is False


@pytest.mark.parametrize("damage", ["manifest", "model", "golden", "pickle"])
def test_damaged_folders_are_clean_errors(unpacked: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    with open_bundle(unpacked.parent / "x.edgec") as bundle:
        bundle.extract(folder)
    golden = folder / "golden" / "000" / "input.0.npy"
    if damage == "manifest":
        (folder / "manifest.json").write_text("{")
    elif damage == "model":
        (folder / "model.tflite").unlink()
    elif damage == "golden":
        golden.write_bytes(golden.read_bytes()[:40])
    else:
        np.save(golden, np.array([{"code": "to run"}]), allow_pickle=True)
    for command in (["check"], ["bench"], ["run", "--out", str(tmp_path / "out")]):
        code, answer = call(command[0], str(folder), *command[1:])
        assert code == 3
        error = answer["error"]
        assert isinstance(error, dict)
        assert error["code"] == ("model-missing" if damage == "model" else "bundle-unreadable")


def test_recurrent_models_start_afresh_on_every_call() -> None:
    model = ZOO / "tflite_micro" / "mnist_lstm_float.tflite"
    if not model.exists():
        pytest.skip(f"needs {model.name} of the model zoo (EDGEC_ZOO)")
    feeds = {"serving_default_fixed_input:0": np.random.default_rng(0).random((1, 28, 28)).astype(np.float32)}
    with Worker(model, "tflite") as worker:
        first, second = (next(iter(worker.run(feeds).values())) for _ in range(2))
        kernels = worker.kernels()
    np.testing.assert_array_equal(first, second)
    # The LSTM itself is not XNNPACK's.
    assert kernels["outside"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    assert kernels["delegated"] > 0


def test_kernels_can_be_chosen(unpacked: Path, tmp_path: Path) -> None:
    for kernels, delegate in (("default", "XNNPACK"), ("builtin", "none"), ("reference", "none")):
        code, answer = call("run", str(unpacked), "--out", str(tmp_path / kernels), "--kernels", kernels)
        assert code == 0
        assert isinstance(answer["kernels"], dict)
        assert answer["kernels"]["delegate"] == delegate
        assert answer["kernels"].get("asked_for") == (None if kernels == "default" else kernels)


def test_other_runtimes_have_no_choice_of_kernels(tmp_path: Path) -> None:
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.openvino_artifact())) as bundle:
        bundle.extract(tmp_path / "bundle")
    code, answer = call("run", str(tmp_path / "bundle"), "--out", str(tmp_path / "out"), "--kernels", "builtin")
    assert code == 3
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["code"] == "kernels"


def test_a_sustained_run_lasts_as_long_as_asked(unpacked: Path) -> None:
    code, answer = call("sustain", str(unpacked), "--seconds", "1.5")
    assert code == 0
    assert isinstance(answer["duration_s"], float)
    assert answer["duration_s"] >= 1.5
    assert isinstance(answer["runs"], int)
    assert answer["runs"] > 1
    assert isinstance(answer["samples"], list)
    # One look in the beginning, one after a second; the last one is always told.
    assert len(answer["samples"]) >= 2
    assert set(answer["last"]) == {"at_s", "celsius", "mhz"}  # type: ignore[call-overload]


def test_feeds_are_run_a_file_each(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    x = np.stack([tiny.sample(i).transpose(0, 2, 3, 1) for i in range(3)])
    arrays_in: dict[str, Any] = {"0": x}
    np.savez(tmp_path / "in" / "a.npz", **arrays_in)
    code, answer = call("feed", str(unpacked), "--feeds", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert code == 0
    assert answer["runs"] == 3
    with np.load(tmp_path / "out" / "a.npz") as arrays:
        got = arrays["0"]
    np.testing.assert_array_equal(
        got, np.stack([tiny.expected(tiny.sample(i)).transpose(0, 2, 3, 1) for i in range(3)])
    )


def test_an_application_is_written_down_stage_by_stage(unpacked: Path, tmp_path: Path) -> None:
    app, data, out = tmp_path / "app.py", tmp_path / "data", tmp_path / "out"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "good.txt").write_text("2")
    (data / "bad.txt").write_text("two")
    app.write_text(
        "import numpy as np\n"
        "def preprocess(path): return np.full((1, 3, 4, 2), float(open(path).read()), np.float32)\n"
        "def postprocess(outputs): return {'largest': outputs.max(), 'shape': outputs.shape}\n"
    )
    code, answer = call("app", str(unpacked), "--app", str(app), "--data", str(data), "--out", str(out))
    assert code == 0
    assert (answer["files"], answer["failed"]) == (2, 1)
    np.testing.assert_array_equal(np.load(out / "sub" / "good.txt.pre.npy"), np.full((1, 3, 4, 2), 2, np.float32))
    assert np.load(out / "sub" / "good.txt.raw.npy").shape == (1, 3, 4, 2)
    assert json.loads((out / "sub" / "good.txt.post.json").read_text()) == {"largest": 4.0, "shape": [1, 3, 4, 2]}
    assert json.loads((out / "bad.txt.error.json").read_text())["stage"] == "preprocess"
    assert not (out / "bad.txt.raw.npy").exists()
