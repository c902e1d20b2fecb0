"""Running a bundle from Python: source terms, artifact terms, and what goes wrong."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgec.artifact import Artifact
from edgec.bundle.open import open_bundle
from edgec.bundle.worker import Worker
from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support import tiny_bundles as tiny


def artifacts() -> dict[str, Artifact]:
    return {
        "tflite-float": tiny.tflite_artifact(),
        "tflite-int8": tiny.tflite_artifact(int8=True),
        "openvino": tiny.openvino_artifact(),
    }


@pytest.mark.parametrize("kind", ["tflite-float", "tflite-int8", "openvino"])
def test_run_speaks_the_source_models_terms(tmp_path: Path, kind: str) -> None:
    artifact = artifacts()[kind]
    x = tiny.sample(7)
    with open_bundle(tiny.pack(tmp_path / "x.edgec", artifact)) as bundle:
        result = bundle.run({"x": x})
        again = bundle.run({"x": x})
    assert list(result) == ["y"]
    assert result["y"].dtype == np.float32
    assert result["y"].shape == (1, 2, 3, 4)
    assert result["y"].flags.writeable
    # One multiplication: exact in float; in int8 within one step of the output.
    tolerance = 0.1 * 1.001 if kind == "tflite-int8" else 1e-6
    np.testing.assert_allclose(result["y"], tiny.reference(x, artifact), rtol=0, atol=tolerance)
    np.testing.assert_array_equal(result["y"], again["y"])


@pytest.mark.parametrize("kind", ["tflite-float", "tflite-int8", "openvino"])
def test_run_raw_speaks_the_artifacts_terms(tmp_path: Path, kind: str) -> None:
    artifact = artifacts()[kind]
    with open_bundle(tiny.pack(tmp_path / "x.edgec", artifact)) as bundle:
        golden = bundle.goldens()[0]
        raw = bundle.run_raw(golden.raw_inputs)
    assert raw["y_out"].dtype == artifact.outputs[0].artifact.dtype.numpy
    assert raw["y_out"].shape == artifact.outputs[0].artifact.shape
    np.testing.assert_array_equal(raw["y_out"], golden.raw_outputs["y_out"])


def test_first_call_is_quick_and_later_ones_cost_little(tmp_path: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    x = tiny.sample(0)
    with open_bundle(path) as bundle:
        start = time.perf_counter()
        bundle.run({"x": x})
        first = time.perf_counter() - start
        times = []
        for _ in range(30):
            start = time.perf_counter()
            bundle.run({"x": x})
            times.append(time.perf_counter() - start)
    # 0.2 s and 0.4 ms on an idle machine; the limits leave room for a loaded one.
    assert first < 5
    assert min(times) < 0.02


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "missing"),
        ({"X": tiny.sample(0)}, "no input 'X'"),
        ({"x": tiny.sample(0)[0]}, "shape (2, 3, 4), not (1, 2, 3, 4)"),
        ({"x": np.zeros((1, 3, 4, 2), np.float32)}, "shape"),
        ({"x": np.zeros((1, 2, 3, 4), np.complex64)}, "element type complex64"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_before_the_runtime_sees_them(
    tmp_path: Path, feeds: dict[str, np.ndarray], words: str
) -> None:
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), goldens=[])) as bundle:
        with pytest.raises(EdgecError) as caught:
            bundle.run(feeds)
        assert bundle._worker is None
    assert caught.value.code == "bundle/wrong-feed"
    assert words in str(caught.value)


def test_raw_feeds_must_have_the_artifacts_own_type(tmp_path: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(int8=True), goldens=[])
    with open_bundle(path) as bundle, pytest.raises(EdgecError) as caught:
        bundle.run_raw({"x_in": np.zeros((1, 3, 4, 2), np.float32)})
    assert caught.value.code == "bundle/wrong-feed"


def test_wider_numbers_of_the_same_kind_are_accepted(tmp_path: Path) -> None:
    x = tiny.sample(3)
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), goldens=[])) as bundle:
        np.testing.assert_array_equal(bundle.run({"x": x.astype(np.float64)})["y"], bundle.run({"x": x})["y"])


def test_file_that_is_no_model_is_refused_by_its_runtime(tmp_path: Path) -> None:
    for backend in ("tflite", "openvino"):
        path = tmp_path / "model.bin"
        path.write_bytes(b"not a model" * 10)
        with Worker(path, backend) as worker, pytest.raises(EdgecError) as caught:
            worker.run({})
        assert caught.value.code == "validate/model-refused"


def test_missing_model_and_unknown_backend(tmp_path: Path) -> None:
    with Worker(tmp_path / "none.tflite", "tflite") as worker, pytest.raises(EdgecError) as caught:
        worker.run({})
    assert caught.value.code == "validate/model-missing"
    with Worker(tmp_path / "none.x", "abacus") as worker, pytest.raises(EdgecError) as caught:
        worker.run({})
    assert caught.value.code == "validate/runtime-missing"


def test_worker_survives_a_refused_request(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny.tflite_bytes())
    x = np.ones((1, 3, 4, 2), np.float32)
    with Worker(path, "tflite") as worker:
        worker.run({"x_in": x})
        process = worker._process
        for feeds, code in (
            ({"wrong": x}, "validate/io-mismatch"),
            ({}, "validate/io-mismatch"),
            ({"x_in": x.astype(np.int8)}, "validate/run-failed"),
            ({"x_in": x[..., :1]}, "validate/run-failed"),
        ):
            with pytest.raises(EdgecError) as caught:
                worker.run(feeds)
            assert caught.value.code == code
        np.testing.assert_array_equal(worker.run({"x_in": x})["y_out"], np.maximum(x * tiny.SCALE, 0))
        assert worker._process is process


def fake_agent(tmp_path: Path, body: str) -> Path:
    """An agent that says hello like the real one, then does something else."""
    path = tmp_path / "fake_agent.py"
    path.write_text(
        "import json, os, signal, struct, sys, time\n"
        "def say(value):\n"
        "    data = json.dumps(value).encode()\n"
        "    sys.stdout.buffer.write(struct.pack('<I', len(data)) + data); sys.stdout.buffer.flush()\n"
        "say({'runtime': 'fake 1', 'tensors': []})\n" + body
    )
    return path


def test_crash_kills_only_the_worker_and_names_the_signal(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path, "print('assertion blew up', file=sys.stderr, flush=True); os.abort()\n")
    with Worker(tmp_path / "m.tflite", "tflite", agent=agent) as worker:
        for _ in range(2):  # the second call starts afresh, and fails the same way
            with pytest.raises(EdgecError) as caught:
                worker.run({"x": np.zeros(3, np.float32)})
            assert caught.value.code == "validate/runtime-crashed"
            assert "SIGABRT" in str(caught.value)
            assert "assertion blew up" in str(caught.value)


def test_exit_without_an_answer_is_a_crash_too(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path, "sys.exit(7)\n")
    with Worker(tmp_path / "m", "tflite", agent=agent) as worker, pytest.raises(EdgecError) as caught:
        worker.run({"x": np.zeros(10**6, np.float32)})
    assert caught.value.code == "validate/runtime-crashed"
    assert "exit code 7" in str(caught.value)


@pytest.mark.parametrize("size", [3, 10**6])  # the large one fills the pipe: the hang is in sending
def test_hang_ends_with_a_timeout(tmp_path: Path, size: int) -> None:
    agent = fake_agent(tmp_path, "time.sleep(60)\n")
    start = time.perf_counter()
    with Worker(tmp_path / "m", "tflite", timeout_s=1.0, agent=agent) as worker, pytest.raises(EdgecError) as caught:
        worker.run({"x": np.zeros(size, np.float32)})
    assert caught.value.code == "validate/timeout"
    assert time.perf_counter() - start < 20


def test_what_a_runtime_prints_does_not_reach_the_protocol(tmp_path: Path) -> None:
    agent = Path(Worker.__init__.__globals__["AGENT"]).read_text()
    noisy = tmp_path / "noisy.py"
    noisy.write_text(agent.replace("        _check_names(feeds, self._inputs)\n", "        os.write(1, b'noise')\n", 1))
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny.tflite_bytes())
    x = np.ones((1, 3, 4, 2), np.float32)
    with Worker(path, "tflite", agent=noisy) as worker:
        np.testing.assert_array_equal(worker.run({"x_in": x})["y_out"], np.maximum(x * tiny.SCALE, 0))


def test_arrays_of_every_kind_cross_the_pipe(tmp_path: Path) -> None:
    """The fake runtime gives back what it gets."""
    echo = fake_agent(
        tmp_path,
        "def need(n):\n"
        "    data = sys.stdin.buffer.read(n)\n"
        "    if len(data) < n: sys.exit(0)\n"
        "    return data\n"
        "import numpy as np\n"
        "while True:\n"
        "    (n,) = struct.unpack('<I', need(4)); head = json.loads(need(n))\n"
        "    size = sum(np.dtype(t['dtype']).itemsize * int(np.prod(t['shape'])) for t in head['tensors'])\n"
        "    body = need(size); say({'tensors': head['tensors']}); sys.stdout.buffer.write(body)\n"
        "    sys.stdout.buffer.flush()\n",
    )
    values: dict[str, Array] = {
        "scalar": np.array(3, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "half": np.array([1.5, np.nan], np.float16),
        "flags": np.array([[True, False]]),
        "transposed": np.arange(6, dtype=np.int8).reshape(2, 3).T,
        "odd: name/0": np.arange(4, dtype=np.complex64),
    }
    with Worker(tmp_path / "m", "tflite", agent=echo) as worker:
        back = worker.run(values)
    assert back.keys() == values.keys()
    for name, value in values.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        np.testing.assert_array_equal(back[name], value)
