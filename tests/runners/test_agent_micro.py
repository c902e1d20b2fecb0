"""The agent with TensorFlow Lite Micro: real models of others, refusals with its words, arenas, crashes as a no."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.backends.tflite.writer import write
from edgec.bundle.worker import AGENT, Worker
from edgec.errors import EdgecError
from edgec.tensors import DType
from tests.support.models import zoo
from tests.support.tflm import reference_outputs

pytest.importorskip("tflite_micro", reason="TensorFlow Lite Micro's wheel is for Linux on x86-64 only")

ZOO = ("mlperf_tiny/kws_dscnn_int8.tflite", "mlperf_tiny/ic_resnet8_int8.tflite", "mlperf_tiny/vww_96_int8.tflite",
       "tflite_micro/hello_world_int8.tflite", "tflite_micro/micro_speech_int8.tflite")  # fmt: skip


def _agent(*arguments: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, str(AGENT), *arguments], capture_output=True, text=True, check=False)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def _one_operator(kind: str, folder: Path) -> Path:
    x, y = (Tensor(name=name, shape=(2, 4), dtype=DType.FLOAT32) for name in "xy")
    path = folder / f"{kind}.tflite"
    path.write_bytes(write(Graph("g", [x], [y], [Op(kind, [x], [y])]), description="", metadata={}))
    return path


@pytest.mark.parametrize("name", ZOO)
def test_trained_models_compute_what_litert_s_reference_does(name: str) -> None:
    path = zoo(name)
    with Worker(path, "tflite-micro") as worker:
        details = _details(path)
        rng = np.random.default_rng(0)
        feeds = {key: rng.integers(-128, 128, shape).astype(np.int8) for key, shape in details.items()}
        outputs = worker.run(feeds)
        assert worker.runtime.startswith("tflite-micro ")
    wanted = reference_outputs(path, feeds)
    assert wanted.keys() == outputs.keys()
    for key, value in outputs.items():
        np.testing.assert_array_equal(value, wanted[key])


def _details(path: Path) -> dict[str, tuple[int, ...]]:
    from edgec.backends.tflite.reader import describe

    return {entry["name"]: tuple(entry["shape"]) for entry in describe(path.read_bytes())["inputs"]}


def test_runs_do_not_remember_each_other(tmp_path: Path) -> None:
    path = _one_operator("RELU", tmp_path)
    with Worker(path, "tflite-micro") as worker:
        first = worker.run({"x": np.full((2, 4), -1, np.float32)})["y"].copy()
        second = worker.run({"x": np.full((2, 4), 3, np.float32)})["y"]
    np.testing.assert_array_equal(first, np.zeros((2, 4), np.float32))
    np.testing.assert_array_equal(second, np.full((2, 4), 3, np.float32))


def test_a_missing_operator_is_told_in_tflm_s_words(tmp_path: Path) -> None:
    with Worker(_one_operator("SIGN", tmp_path), "tflite-micro") as worker, pytest.raises(EdgecError) as caught:
        worker.run({"x": np.zeros((2, 4), np.float32)})
    assert caught.value.code == "validate/model-refused"
    assert "SIGN" in caught.value.finding.message


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with Worker(_one_operator("RELU", tmp_path), "tflite-micro") as worker, pytest.raises(EdgecError) as caught:
        worker.run({"nobody": np.zeros((2, 4), np.float32)})
    assert caught.value.code == "validate/io-mismatch"


def test_the_arena_and_what_is_in_it(tmp_path: Path) -> None:
    path = _one_operator("RELU", tmp_path)
    answer = _agent("arena", str(path))
    arena, uses = answer["arena_bytes"], answer["allocations"]
    assert isinstance(arena, int) and isinstance(uses, dict)
    assert arena % 16 == 0
    assert uses["head"] + uses["tail"] == uses["total"] <= arena
    assert _agent("fits", str(path), "--arena", str(arena))["passed"] is True
    assert _agent("fits", str(path), "--arena", str(arena // 2))["passed"] is False


def test_another_file_is_refused_as_json(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"no model")
    assert "error" in _agent("arena", str(tmp_path / "x.tflite"))
