"""What the delegate takes, as the runtime says, and as people read it."""

from __future__ import annotations

import numpy as np

from edgec.passes.pipelines import canonicalize
from edgec.pipeline.delegation import delegation_of_model, plain
from edgec.report.delegation import delegation_line
from edgec.targets.load import load_target
from tests.support.graphs import graph

PI = load_target("raspberrypi4")


def test_a_model_in_one_piece() -> None:
    model = canonicalize(graph("(float[1,8] x) => (float[1,8] y) { r = Relu(x) y = Sigmoid(r) }"))
    found = delegation_of_model(model, PI, "tflite")
    assert found is not None
    assert (found["delegate"], found["partitions"], found["inside"], found["outside"]) == ("XNNPACK", 1, 2, {})
    assert delegation_line(found) == "XNNPACK runs 2 of 2 operators in 1 partition"


def test_what_breaks_it_is_named() -> None:
    text = "(float[1,8] x) => (float[1,8] y) { r = Relu(x) c = CumSum(r, axis) y = Sigmoid(c) }"
    model = canonicalize(graph(text, constants={"axis": np.asarray(1)}))
    found = delegation_of_model(model, PI, "tflite")
    assert found is not None
    assert found["partitions"] == 2
    assert found["breaks"][0]["operator"] == "CUMSUM"
    assert "outside: CUMSUM 1 (first: CUMSUM of" in delegation_line(found)


def test_nothing_is_said_where_there_is_no_delegate() -> None:
    model = canonicalize(graph("(float[1,8] x) => (float[1,8] y) { y = Relu(x) }"))
    assert delegation_of_model(model, load_target("intel-cpu"), "openvino") is None
    assert plain({"delegate": "CPU", "layers": {}}) == {}
    assert delegation_line({}) == ""
