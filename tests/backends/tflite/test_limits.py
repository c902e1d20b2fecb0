"""Limits of the target: ranks and operator versions beyond the runtime's are findings that name the node."""

from __future__ import annotations

import numpy as np

from edgec.backends.base import CompileOptions, load_backend
from edgec.backends.tflite.backend import lower_model
from edgec.backends.tflite.limits import check_limits
from edgec.backends.tflite.tir import Graph, Op, Tensor, constant
from edgec.errors import EdgecError
from edgec.targets.load import load_target
from edgec.targets.profile import Target
from edgec.tensors import DType
from tests.support.plans import typed

TARGET = load_target("raspberrypi4")


def with_limits(max_rank: int = 6, **newest: int) -> Target:
    facts = TARGET.backends["tflite"]
    runtime = facts.runtime.model_copy(update={"max_op_version": newest})
    return TARGET.model_copy(
        update={
            "limits": TARGET.limits.model_copy(update={"max_rank": max_rank}),
            "backends": {**TARGET.backends, "tflite": facts.model_copy(update={"runtime": runtime})},
        }
    )


def ranked(rank: int) -> Graph:
    x, y = (Tensor(name, (2,) * rank, DType.FLOAT32) for name in "xy")
    return Graph("main", [x], [y], [Op("GELU", [x], [y], {"approximate": False}, origin="Gelu_1 (net.py:3)")])


def test_a_rank_within_the_limit_is_fine() -> None:
    assert check_limits(ranked(4), with_limits(4)) == []


def test_a_rank_beyond_the_limit() -> None:
    (finding,) = check_limits(ranked(5), with_limits(4))
    assert finding.code == "backend/rank" and finding.rule == "limits.max_rank"
    assert "5 axes" in finding.message and finding.where == "Gelu_1 (net.py:3)" and finding.hint


def test_an_operator_newer_than_the_runtime() -> None:
    model = typed("(float[1,1,1,2,3] x) => (float[1,1,1,3,2] y) { a = Exp(x) y = Transpose<perm=[0,1,2,4,3]>(a) }")
    lowered = lower_model(model, with_limits(TRANSPOSE=3), CompileOptions(io_layout="source"))
    (finding,) = lowered.findings
    assert finding.code == "backend/op-version" and finding.rule == "runtime.max_op_version"
    assert "TRANSPOSE version 4" in finding.message and finding.message.endswith("3")
    assert not lower_model(model, with_limits(TRANSPOSE=4), CompileOptions(io_layout="source")).findings


def test_compile_refuses_what_is_over_a_limit() -> None:
    model = typed("(float[2,2,2,2] x) => (float[2,2,2,2] y) { y = Exp(x) }")
    backend = load_backend("tflite")
    try:
        backend.compile(model, with_limits(3), CompileOptions())
    except EdgecError as error:
        assert error.code == "backend/rank"
    else:
        raise AssertionError("a rank over the limit was compiled")
    assert [f.code for f in backend.check(model, with_limits(3))] == ["backend/rank"]


def test_constants_beyond_what_the_target_takes() -> None:
    weights = constant("w", np.zeros((64, 64), np.float32))
    x, y = (Tensor(name, (64, 64), DType.FLOAT32) for name in "xy")
    options = {"fusedActivationFunction": "NONE"}
    graph = Graph("main", [x], [y], [Op("ADD", [x, weights], [y], options), Op("ADD", [y, weights], [y], options)])
    allowed = TARGET.model_copy(update={"limits": TARGET.limits.model_copy(update={"max_model_bytes": 16384})})
    assert check_limits(graph, allowed) == []
    less = TARGET.model_copy(update={"limits": TARGET.limits.model_copy(update={"max_model_bytes": 16383})})
    assert [f.code for f in check_limits(graph, less)] == ["backend/too-large"]
