"""Class labels that are text become numbers, beside text that the model is given, which stays."""

from __future__ import annotations

import pytest

from edgec.graph.edit import Editor
from edgec.passes.plain_labels import plain_labels
from tests.support.graphs import graph

CLASSIFIER = """s = ai.onnx.ml.OneHotEncoder <cats_strings = ["a", "b"]> (x) f = Flatten(s)
    label, p = ai.onnx.ml.LinearClassifier <coefficients = [1.0, -1.0], classlabels_strings = ["no", "yes"]> (f)"""


def test_given_text_stays_and_labels_are_numbered() -> None:
    model = graph(f"(string[1,1] x) => (string[1] label, float[1,2] p) {{ {CLASSIFIER} }}")
    assert plain_labels(model.ir, Editor(model)) == ("no", "yes")
    [encoder] = [n for n in model.nodes() if n.op_type == "OneHotEncoder"]
    [classifier] = [n for n in model.nodes() if n.op_type == "LinearClassifier"]
    assert "cats_strings" in encoder.attributes and model.graph.inputs[0].dtype is not None
    assert tuple(classifier.attributes["classlabels_ints"].as_ints()) == (0, 1)
    assert model.graph.outputs[0].dtype is not None and model.graph.outputs[0].dtype.name == "INT64"


@pytest.mark.parametrize(
    ("meeting", "kind"),
    [("z = Equal(label, x)", "bool[1,1]"), ("v = Reshape(x, n) z = Concat <axis = 0> (label, v)", "string[2]")],
)
def test_where_both_meet_all_stays_text(meeting: str, kind: str) -> None:
    model = graph(
        f"(string[1,1] x) => (float[1,2] p, {kind} z) <int64[1] n = {{1}}> {{ {CLASSIFIER} {meeting} }}",
    )
    assert plain_labels(model.ir, Editor(model)) == ()
    [classifier] = [n for n in model.nodes() if n.op_type == "LinearClassifier"]
    assert "classlabels_strings" in classifier.attributes
