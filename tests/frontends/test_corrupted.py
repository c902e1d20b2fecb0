"""200 damaged files: a clean error or a correct build each time, never a traceback, a hang or a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import run_build
from tests.support.corrupted import corrupted_files
from tests.support.corrupted_net import base_model
from tests.support.graphs import random_feeds, run_ort
from tests.support.models import ROOT

COUNT = 200
#: Families of codes that blame the file; `internal/…` would be a bug of ours.
BLAME = ("source/", "graph/", "backend/", "target/")


def compile_file(path: Path) -> None:
    """Read and canonicalise a file; where ONNX Runtime runs the source, the result must compute the same."""
    model = canonicalize(load_source(path).model)
    size = sum(spec.nbytes for spec in model.inputs())
    if size > 1 << 24 or any(spec.dtype.value == "str" for spec in model.inputs()):
        return
    feeds = random_feeds(model)
    try:
        wanted = run_ort(str(path), feeds)
    except Exception:  # noqa: BLE001 - ONNX Runtime refuses the damaged source: there is nothing to compare with
        return
    got = run_ort(model, feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5, equal_nan=True, err_msg=name)


def build_file(path: Path) -> None:
    """The whole way to TFLite bytes in float32."""
    folder = path.parent / f"{path.stem}-out"
    folder.mkdir()
    run_build(path, target="raspberrypi", precision="float32", output=folder, stop_after="compile")


@pytest.mark.parametrize(
    "build", ["tests.frontends.test_corrupted:compile_file", "tests.frontends.test_corrupted:build_file"]
)
def test_damaged_files_end_in_an_error_or_a_correct_build(build: str, tmp_path: Path) -> None:
    files = []
    for name, data in corrupted_files(COUNT):
        files.append(tmp_path / f"{name}.onnx")
        files[-1].write_bytes(data)
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.build_many", build, *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == COUNT, f"died at {files[len(lines)].name}: {done.returncode} {done.stderr[-2000:]}"
    for line in lines:
        assert line["result"] != "traceback", f"{line['file']}: {line['detail']}"
        assert line["seconds"] < 10, line
        if line["result"] == "error":
            assert line["code"].startswith(BLAME), line
    refused = sum(line["result"] == "error" for line in lines)
    assert COUNT // 2 < refused < COUNT


def test_the_undamaged_file_builds(tmp_path: Path) -> None:
    path = tmp_path / "whole.onnx"
    path.write_bytes(base_model().SerializeToString())
    compile_file(path)
