"""TensorFlow Lite Micro bundles: equal to the reference kernels bit for bit, in the smallest arena, with sources."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.tflite.reader import describe
from edgec.bundle.bundle import Bundle
from edgec.bundle.open import open_bundle
from edgec.bundle.worker import AGENT
from edgec.errors import EdgecError
from edgec.pipeline import BuildResult, run_build
from edgec.runners.validate import validate_bundle
from tests.support.micro_nets import SHAPES, write_micro_net
from tests.support.tflm import reference_outputs
from tools.micro_table import compiles

pytest.importorskip("tflite_micro", reason="TensorFlow Lite Micro's wheel is for Linux on x86-64 only")


def _build(folder: Path, model: Path, data: Path) -> BuildResult:
    return run_build(
        model, target="cortex-m4", calibration=data, output=folder, effort="fast", precision="int8", stop_after="bundle"
    )


@pytest.mark.parametrize("name", SHAPES)
def test_a_network_of_mlperf_tiny(name: str, tmp_path: Path) -> None:
    """One build a network, and all that is promised of it: builds are what takes the time."""
    model, data = write_micro_net(tmp_path, name)
    with open_bundle(_build(tmp_path, model, data).path) as bundle:
        _computes_what_the_reference_kernels_do(bundle, steps=3 if name == "autoencoder" else 0)
        _is_within_two_steps_of_the_quantized_model(bundle)
        _has_the_smallest_arena(bundle)
        _names_exactly_the_operators_of_the_file(bundle)
        assert "fails" not in compiles(bundle, tmp_path)  # where there is an arm-none-eabi-g++


def _computes_what_the_reference_kernels_do(bundle: Bundle, *, steps: int) -> None:
    """TFLM's FULLY_CONNECTED with scales by channel rounds twice (58.4991 becomes 59), LiteRT's once: ten such layers
    in a row differ by a step or two, everything else by none.
    """
    for golden in bundle.goldens():
        again = bundle.run_raw(golden.raw_inputs)
        wanted = reference_outputs(bundle.model_path, golden.raw_inputs)
        for output, value in golden.raw_outputs.items():
            assert value.dtype == np.int8
            np.testing.assert_array_equal(again[output], value)
            assert np.abs(value.astype(int) - wanted[output].astype(int)).max() <= steps
            assert len(np.unique(value)) > 1, "a constant output would prove nothing"


def _is_within_two_steps_of_the_quantized_model(bundle: Bundle) -> None:
    validation = validate_bundle(bundle, runs=0)
    assert validation.passed
    assert validation.kernels["kernels"] == "reference"
    for check in validation.outputs:
        assert check.steps is not None
        assert check.steps.within_2 >= 0.99


def _has_the_smallest_arena(bundle: Bundle) -> None:
    facts = bundle.manifest.packaging["micro"]
    assert isinstance(facts, dict)
    arena = int(str(facts["arena_bytes"]))
    assert _fits(bundle, arena)
    assert not _fits(bundle, int(arena * 0.95)), "more than 5 % would be wasted"
    assert int(str(facts["activation_bytes"])) <= arena


def _fits(bundle: Bundle, arena: int) -> bool:
    command = [sys.executable, str(AGENT), "fits", str(bundle.model_path), "--arena", str(arena)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _names_exactly_the_operators_of_the_file(bundle: Bundle) -> None:
    operators = describe(bundle.read("model.tflite"))["operators"]
    text = bundle.read("micro/op_resolver.h").decode()
    assert text.count("resolver.Add") == len(operators)
    assert f"kOperatorCount = {len(operators)};" in text


def test_two_builds_are_the_same_bytes(tmp_path: Path) -> None:
    model, data = write_micro_net(tmp_path, "kws")
    first = _build(tmp_path / "a", model, data).path.read_bytes()
    assert _build(tmp_path / "b", model, data).path.read_bytes() == first


@pytest.mark.parametrize(("target", "precision"), [("cortex-m7", "float32"), ("cortex-m55", "int16x8")])
def test_other_precisions_run_too(target: str, precision: str, tmp_path: Path) -> None:
    model, data = write_micro_net(tmp_path, "resnet8")
    given = data if precision != "float32" else None
    result = run_build(model, target=target, calibration=given, output=tmp_path, effort="fast", precision=precision)
    assert result.summary["validation"]["passed"]
    assert result.summary["validation"]["runtime"].startswith("tflite-micro")
    assert "latency" not in result.summary, "reference kernels here say nothing about a microcontroller"
    assert result.bundle is not None
    with result.bundle as bundle:
        kind = {"float32": "kFloat32", "int16x8": "kInt16"}[precision]
        assert f"GoldenType::{kind}" in bundle.read("micro/goldens.cc").decode()


def test_a_model_beyond_the_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    model, data = write_micro_net(tmp_path, "vww")
    board = tmp_path / "small-board.toml"
    board.write_text('extends = "cortex-m4"\nlimits.max_arena_bytes = 65536\n')
    with pytest.raises(EdgecError) as caught:
        run_build(model, target=str(board), calibration=data, output=tmp_path, effort="fast", precision="int8")
    assert caught.value.findings[0].code == "backend/arena-too-large"
    assert "small-board" in caught.value.findings[0].message
    assert not list(tmp_path.glob("*.edgec"))


def test_a_missing_interpreter_is_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = write_micro_net(tmp_path, "kws")
    path = _build(tmp_path, model, data).path
    (tmp_path / "tflite_micro.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with open_bundle(path) as bundle:
        validation = validate_bundle(bundle, runs=0)
    assert [f.code for f in validation.findings if f.severity == "error"] == ["validate/runtime-missing"]
    assert "edgec[micro]" in validation.findings[-1].hint
