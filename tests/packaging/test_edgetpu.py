"""Coral: the published rules one by one, the compiler where there is one, "not compiled" where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgec.backends.tflite.tir import Graph, Op, Storage, Tensor, constant
from edgec.backends.tflite.writer import write
from edgec.errors import EdgecError
from edgec.packaging.edgetpu.compiler import compile_model, read_log
from edgec.packaging.edgetpu.rules import judge
from edgec.pipeline import run_build
from edgec.tensors import DType, QParams
from tests.support.micro_nets import write_micro_net

#: As version 16 of the compiler prints it with -s.
LOG = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 1204 ms.

Input model: model.tflite
Input size: 3.42MiB
Output model: model_edgetpu.tflite
Output size: 3.88MiB
On-chip memory used for caching model parameters: 3.33MiB
On-chip memory remaining for caching model parameters: 4.35MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 71
Operation log: model_edgetpu.log

Operator                       Count      Status

ADD                            10         Mapped to Edge TPU
SOFTMAX                        1          Mapped to Edge TPU
CONV_2D                        36         Mapped to Edge TPU
DEPTHWISE_CONV_2D              17         Mapped to Edge TPU
QUANTIZE                       6          Operation is otherwise supported, but not mapped due to some limitation
AVERAGE_POOL_2D                1          Mapped to Edge TPU
Compilation child process completed within timeout period.
Compilation succeeded!
"""
INT8 = Storage(DType.INT8, QParams.per_tensor(0.1, 0))


def _value(name: str, *shape: int, storage: Storage | None = INT8) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32, storage=storage)


def _const(*shape: int, value: int = 1) -> Tensor:
    return Tensor(name="c", shape=shape, dtype=DType.FLOAT32, storage=INT8, data=np.full(shape, value, np.int8))


def _ints(values: object) -> Tensor:
    return constant("i", np.array(values, np.int32))


def _why(kind: str, inputs: list[Tensor], output: Tensor, **options: object) -> str:
    """The first reason that one operator is given."""
    data = [t for t in inputs if t.data is None]
    graph = Graph("main", data, [output], [Op(kind, list(inputs), [output], dict(options))])
    return judge(write(graph, description="", metadata={})).reasons[0]


X = (1, 4, 4, 8)
POOL = {"padding": "VALID", "strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("", lambda: _why("RELU", [_value("x", *X)], _value("y", *X))),
        ("not in the Edge TPU's list", lambda: _why("EXP", [_value("x", *X)], _value("y", *X))),
        ("not quantized", lambda: _why("RELU", [_value("x", *X, storage=None)], _value("y", *X, storage=None))),
        ("innermost", lambda: _why("RELU", [_value("x", 2, 4, 4, 8)], _value("y", 2, 4, 4, 8))),
        ("static", lambda: _why("RELU", [_value("x", 1, -1, 8)], _value("y", 1, -1, 8))),
        ("", lambda: _why("MAX_POOL_2D", [_value("x", *X)], _value("y", 1, 2, 2, 8), **POOL)),
        (
            "fused activation",
            lambda: _why("MAX_POOL_2D", [_value("x", *X)], _value("y", 1, 2, 2, 8), **POOL,
                         fusedActivationFunction="RELU"),
        ),
        ("", lambda: _why("SOFTMAX", [_value("x", 1, 16000)], _value("y", 1, 16000))),
        ("more than 16000", lambda: _why("SOFTMAX", [_value("x", 1, 16001)], _value("y", 1, 16001))),
        ("one-dimensional", lambda: _why("SOFTMAX", [_value("x", 1, 4, 8)], _value("y", 1, 4, 8))),
        ("", lambda: _why("MEAN", [_value("x", *X), _ints([1, 2])], _value("y", 1, 8))),
        ("", lambda: _why("MEAN", [_value("x", *X), _ints([3])], _value("y", 1, 4, 4))),
        ("multiple of 4", lambda: _why("MEAN", [_value("x", 1, 4, 4, 6), _ints([-1])], _value("y", 1, 4, 4))),
        ("reduces the batch", lambda: _why("SUM", [_value("x", *X), _ints([0])], _value("y", 4, 4, 8))),
        ("", lambda: _why("CONCATENATION", [_value("x", 1, 8), _const(1, 8, value=0)], _value("y", 1, 16), axis=1)),
        ("all zeros", lambda: _why("CONCATENATION", [_value("x", 1, 8), _const(1, 8)], _value("y", 1, 16), axis=1)),
        (
            "pads the batch",
            lambda: _why("PAD", [_value("x", 1, 2, 8), _ints([[1, 0], [0, 0], [0, 0]])], _value("y", 2, 2, 8)),
        ),
        ("splits the batch", lambda: _why("SPLIT", [_ints(0), _value("x", 1, 8)], _value("y", 1, 8), numSplits=1)),
        (
            "strides",
            lambda: _why("STRIDED_SLICE", [_value("x", 1, 8), _ints([0, 0]), _ints([1, 8]), _ints([1, 2])],
                         _value("y", 1, 4)),
        ),
        ("one-dimensional", lambda: _why("PRELU", [_value("x", *X), _const(1, 4, 8)], _value("y", *X))),
        (
            "dilations",
            lambda: _why("CONV_2D", [_value("x", *X), _const(3, 1, 1, 8), _ints([0, 0, 0])], _value("y", 1, 4, 4, 3),
                         padding="VALID", strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=2),
        ),
        (
            "dilated",
            lambda: _why("DEPTHWISE_CONV_2D", [_value("x", *X), _const(1, 2, 2, 8), _ints([0] * 8)],
                         _value("y", 1, 2, 2, 8), padding="VALID", strideW=1, strideH=1, depthMultiplier=1,
                         dilationWFactor=2, dilationHFactor=2),
        ),
        (
            "one-dimensional",
            lambda: _why("FULLY_CONNECTED", [_value("x", 4, 8), _const(3, 8), _ints([0, 0, 0])], _value("y", 4, 3)),
        ),
    ],
)  # fmt: skip
def test_rule(reason: str, found: object) -> None:
    text = found()  # type: ignore[operator]
    assert (not text) if not reason else reason in text


def test_what_comes_after_the_first_unmapped_operator_is_not_mapped_either() -> None:
    x, a, b, y = (_value(name, *X) for name in "xaby")
    ops = [Op("RELU", [x], [a]), Op("EXP", [a], [b]), Op("RELU", [b], [y]), Op("RELU", [y], [_value("z", *X)])]
    verdict = judge(write(Graph("main", [x], [ops[-1].outputs[0]], ops), description="", metadata={}))
    assert (verdict.mapped, verdict.share) == (1, 0.25)


def test_a_free_batch_is_compiled_as_one() -> None:
    """Keras leaves it free in the signature, and writes 1 into the shape."""
    assert not _why("RELU", [_value("x", -1, 4, 8)], _value("y", -1, 4, 8))


def test_other_bytes_are_no_model() -> None:
    with pytest.raises(EdgecError) as caught:
        judge(b"\0" * 32)
    assert caught.value.code == "source/not-tflite"


def _fake_compiler(folder: Path, log: str, *, code: int = 0, writes: bool = True) -> None:
    script = folder / "edgetpu_compiler"
    (folder / "log.txt").write_text(log)
    copy = 'cp "$4" "$3/model_edgetpu.tflite"' if writes else ":"
    script.write_text(f'#!/bin/sh\ncat "{folder}/log.txt"\n{copy}\nexit {code}\n')
    script.chmod(0o755)


def test_without_the_compiler_the_bundle_says_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.packaging.edgetpu.compiler.PROGRAM", "no-such-edgetpu-compiler")
    model, data = write_micro_net(tmp_path, "kws")
    result = run_build(model, target="coral-edgetpu", calibration=data, output=tmp_path, effort="fast")
    assert result.summary["packaging"]["edgetpu"]["compiled"] is False
    assert result.summary["packaging"]["edgetpu"]["rules_operator_share"] == 1.0
    assert "backend/not-compiled" in {f.code for f in result.findings}
    assert result.summary["validation"]["passed"]
    assert result.bundle is not None
    with result.bundle as bundle:
        assert "model_edgetpu.tflite" not in bundle.names


def test_with_the_compiler_the_compiled_model_is_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_compiler(tmp_path, LOG)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    model, data = write_micro_net(tmp_path, "kws")
    result = run_build(
        model, target="coral-edgetpu", calibration=data, output=tmp_path, effort="fast", stop_after="bundle"
    )
    facts = result.summary["packaging"]["edgetpu"]
    assert facts["compiler"] == "edgetpu_compiler 16.0.384591198"
    assert (facts["npu_operator_share"], facts["subgraphs"]) == (round(65 / 71, 4), 1)
    share = next(f for f in result.findings if f.code == "backend/npu-share")
    assert share.severity == "info" and "QUANTIZE" in share.hint
    assert result.bundle is not None
    with result.bundle as bundle:
        assert bundle.read("model_edgetpu.tflite") == bundle.read("model.tflite"), "what the stand-in copies"


def test_a_share_below_the_gate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = "CONV_2D                        36         "
    log = LOG.replace(f"\n{row}Mapped to Edge TPU", f"\n{row}More than one subgraph is not supported")
    _fake_compiler(tmp_path, log)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    model, data = write_micro_net(tmp_path, "kws")
    with pytest.raises(EdgecError) as caught:
        run_build(model, target="coral-edgetpu", calibration=data, output=tmp_path, effort="fast")
    assert caught.value.findings[0].code == "backend/npu-share"
    assert "More than one subgraph" in caught.value.findings[0].hint
    assert not list(tmp_path.glob("*.edgec"))


def test_the_log() -> None:
    made = read_log(LOG, b"")
    assert (made.mapped, made.operators, made.on_chip_bytes, made.off_chip_bytes) == (65, 71, 3491758, 0)
    assert list(made.unmapped) == ["QUANTIZE"]
    with pytest.raises(EdgecError) as caught:
        read_log("Internal compiler error. Aborting!", b"")
    assert caught.value.code == "backend/npu-compiler"


def test_a_compiler_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_compiler(tmp_path, "Invalid model: model.tflite\nModel not quantized\n", code=1, writes=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(EdgecError) as caught:
        compile_model(b"")
    assert "Model not quantized" in caught.value.finding.message


def test_weights_beyond_the_cache_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.packaging.edgetpu.compiler.PROGRAM", "no-such-edgetpu-compiler")
    model, data = write_micro_net(tmp_path, "kws")
    profile = tmp_path / "small-cache.toml"
    profile.write_text('extends = "coral-edgetpu"\nnpu.cache_bytes = 1000\n')
    result = run_build(
        model, target=str(profile), calibration=data, output=tmp_path, effort="fast", stop_after="bundle"
    )
    assert "backend/npu-cache" in {f.code for f in result.findings if f.severity == "warning"}
