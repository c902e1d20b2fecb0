"""Text that a model looks up in tables of its own: the same numbers on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import load_backend
from edgec.errors import Severity
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.targets.load import load_target
from tests.support.backends import answers
from tests.support.graphs import graph, run_ort

BACKENDS = ["tflite", "openvino"]
#: Prefixes of each other, capitals, two bytes to a character, nothing, and unknown words.
WORDS = np.asarray([["red", "reds"], ["Rot", "grün"], ["", "grau"], ["re", "blue"]], object)


def ml(text: str) -> Model:
    model = graph(text)
    model.ir.opset_imports["ai.onnx.ml"] = 4
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_label_encoder(backend: str) -> None:
    keys = 'keys_strings = ["red", "grün", "", "grau", "Rot"]'
    model = ml(
        f"""(string[4, 2] x) => (int64[4, 2] y, float[4, 2] z) {{
        y = ai.onnx.ml.LabelEncoder <{keys}, values_int64s = [7, -8, 9, 5, 6], default_int64 = 70000> (x)
        z = ai.onnx.ml.LabelEncoder <keys_strings = ["blue", "re", "blue"], values_floats = [0.5, 1.5, 9.0]> (x) }}"""
    )
    got = answers(model, backend, x=WORDS)
    assert got["y"].tolist() == [[7, 70000], [6, -8], [9, 5], [70000, 70000]]
    np.testing.assert_array_equal(got["z"], np.asarray([[0, 0], [0, 0], [0, 0], [1.5, 0.5]], np.float32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_hot_encoder(backend: str) -> None:
    model = ml(
        "(string[4, 2] x) => (float[4, 2, 3] y) "
        '{ y = ai.onnx.ml.OneHotEncoder <cats_strings = ["red", "grün", ""]> (x) }'
    )
    np.testing.assert_array_equal(answers(model, backend, x=WORDS)["y"], run_ort(model, {"x": WORDS})["y"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_column_for_each_table(backend: str) -> None:
    """As scikit-learn's encoders come: one Gather and one table a column."""
    model = ml(
        """(string[4, 2] x) => (float[4, 2, 2] y) <int64[1] first = {0}, int64[1] second = {1}> {
        a = Gather <axis = 1> (x, first) b = Gather <axis = 1> (x, second)
        c = ai.onnx.ml.OneHotEncoder <cats_strings = ["Rot", "re"]> (a)
        d = ai.onnx.ml.OneHotEncoder <cats_strings = ["blue", "grün"]> (b)
        y = Concat <axis = 1> (c, d) }"""
    )
    expected = [[[0, 0], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [0, 0]], [[0, 1], [1, 0]]]
    assert answers(model, backend, x=WORDS)["y"].tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "(string[2, 3] x) => (string[3, 2] y) { y = Transpose <perm = [1, 0]> (x) }",
        "(string[2] x) => (string[4] y) { y = Concat <axis = 0> (x, x) }",
        "(string[2, 3] x) => (string[6] y) <int64[1] s = {6}> { y = Reshape(x, s) }",
    ],
)
def test_tflite_gives_no_text_and_moves_none(text: str) -> None:
    plugin, target = load_backend("tflite"), load_target("linux-x86_64")
    errors = [f for f in plugin.check(canonicalize(graph(text)), target) if f.severity is Severity.ERROR]
    assert errors and all("str" in f.message and f.hint for f in errors)
