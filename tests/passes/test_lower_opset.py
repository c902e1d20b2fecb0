"""Opsets that no runtime knows yet."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from edgec.errors import EdgecError
from edgec.graph.model import MAX_OPSET
from edgec.passes.lower_opset import lower_opset
from tests.support.graphs import graph, operators


def test_only_the_number_changes_where_that_is_enough() -> None:
    model = graph("(float[4] x) => (float[4] y) { y = Relu(x) }", opset=28)
    assert lower_opset(model)
    assert model.opset == MAX_OPSET
    assert operators(model) == {"Relu": 1}


def test_known_opsets_stay() -> None:
    model = graph("(float[4] x) => (float[4] y) { y = Relu(x) }", opset=MAX_OPSET)
    assert not lower_opset(model)
    assert model.opset == MAX_OPSET


def test_a_new_operator_becomes_its_body() -> None:
    model = graph("(float[2,4] x, float[2,4] g) => (float[2,4] y) { n = Relu(x) y = SwiGLU(n, g) }", opset=28)
    source = model.ir.clone()
    assert lower_opset(model)
    assert "SwiGLU" not in operators(model)
    feeds = {name: np.linspace(-1, 2, 8, dtype=np.float32).reshape(2, 4) for name in ("x", "g")}
    (wanted,) = ReferenceEvaluator(ir.serde.serialize_model(source)).run(None, feeds)
    (y,) = ReferenceEvaluator(ir.serde.serialize_model(model.ir)).run(None, feeds)
    np.testing.assert_allclose(np.asarray(y), np.asarray(wanted), rtol=1e-5, atol=1e-6)


def test_what_has_no_body_is_refused() -> None:
    model = graph("(float[4] x) => (float[4] y) { y = Relu(x) }", opset=28)
    node = model.ir.graph[0]
    node.op_type = "NewerThanEverything"
    with pytest.raises(EdgecError, match="opset newer") as raised:
        lower_opset(model)
    assert raised.value.code == "source/opset"
    assert "NewerThanEverything" in raised.value.findings[0].message
