"""Operators of ai.onnx.ml in LiteRT against ONNX Runtime: features, linear models, trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgec.frontends.base import load_source
from edgec.tensors import Array
from tests.support.graphs import run_ort
from tests.support.tflite import emit, run

RNG = np.random.default_rng(8)
X = np.round(RNG.normal(size=(6, 4)), 1).astype(np.float32)


def save(path: Path, op: str, feeds: dict[str, Array], outputs: list[tuple[int, list[int]]], **attributes: Any) -> Path:
    """A model with one operator of ai.onnx.ml."""
    names = [f"y{i}" for i in range(len(outputs))]
    node = helper.make_node(op, list(feeds), names, domain="ai.onnx.ml", **attributes)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in feeds.items()
    ]
    made = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in zip(names, outputs, strict=True)]
    graph = helper.make_graph([node], "ml", inputs, made)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def compare(path: Path, feeds: dict[str, Array], rtol: float = 1e-5) -> dict[str, Array]:
    """LiteRT's outputs, which must be ONNX Runtime's."""
    wanted, got = run_ort(str(path), feeds), run(emit(load_source(path).model), feeds)
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        np.testing.assert_allclose(got[name].reshape(value.shape), value, rtol=rtol, atol=1e-6)
    return got


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
FEATURES: list[tuple[str, dict[str, Array], tuple[int, list[int]], dict[str, Any]]] = [
    ("Scaler", {"x": X}, (FLOAT, [6, 4]), {"offset": [0.1, 0.2, 0.3, 0.4], "scale": [1.0, 2.0, 3.0, 4.0]}),
    ("Scaler", {"x": X}, (FLOAT, [6, 4]), {"offset": [0.5], "scale": [2.0]}),
    ("Normalizer", {"x": X}, (FLOAT, [6, 4]), {"norm": "L1"}),
    ("Normalizer", {"x": X}, (FLOAT, [6, 4]), {"norm": "L2"}),
    ("Normalizer", {"x": np.abs(X)}, (FLOAT, [6, 4]), {"norm": "MAX"}),
    ("Binarizer", {"x": X}, (FLOAT, [6, 4]), {"threshold": 0.3}),
    ("Imputer", {"x": X}, (FLOAT, [6, 4]), {"imputed_value_floats": [9.0], "replaced_value_float": float(X[0, 0])}),
    ("FeatureVectorizer", {"a": X, "b": X[:, :2].copy()}, (FLOAT, [6, 6]), {"inputdimensions": [4, 2]}),
    ("ArrayFeatureExtractor", {"x": X, "i": np.array([2, 0, 2])}, (FLOAT, [6, 3]), {}),
    (
        "LabelEncoder",
        {"x": np.array([3, 5, 9, 3])},
        (FLOAT, [4]),
        {"keys_int64s": [3, 5], "values_floats": [0.5, -1.0], "default_float": 7.0},
    ),
    (
        "LabelEncoder",
        {"x": np.float32([1.5, 2.0, 4.5])},
        (INT64, [3]),
        {"keys_floats": [1.5, 4.5], "values_int64s": [10, 30], "default_int64": -5},
    ),
    ("OneHotEncoder", {"x": np.array([[2, 7], [4, 2]])}, (FLOAT, [2, 2, 3]), {"cats_int64s": [2, 4, 6], "zeros": 1}),
    (
        "LinearRegressor",
        {"x": X},
        (FLOAT, [6, 2]),
        {"coefficients": [float(v) for v in range(8)], "intercepts": [0.5, -0.5], "targets": 2},
    ),
]


@pytest.mark.parametrize(("op", "feeds", "output", "attributes"), FEATURES)
def test_features(
    op: str, feeds: dict[str, Array], output: tuple[int, list[int]], attributes: dict[str, Any], tmp_path: Path
) -> None:
    compare(save(tmp_path / "m.onnx", op, feeds, [output], **attributes), feeds)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_linear_classifier(transform: str, tmp_path: Path) -> None:
    attributes = {
        "coefficients": RNG.normal(size=12).tolist(),
        "intercepts": [0.1, -0.2, 0.3],
        "classlabels_ints": [10, 20, 30],
        "post_transform": transform,
    }
    path = save(tmp_path / "m.onnx", "LinearClassifier", {"x": X}, [(INT64, [6]), (FLOAT, [6, 3])], **attributes)
    assert len(set(compare(path, {"x": X})["y0"])) > 1


def trees(kind: str, ids: list[int], weights: list[float], modes: str = "BRANCH_LEQ") -> dict[str, Any]:
    """Two trees: one of depth two, one of depth one, with as many leaves as there are weights."""
    return {
        "nodes_treeids": [0] * 5 + [1] * 3,
        "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
        "nodes_modes": [modes, modes, "LEAF", "LEAF", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
        "nodes_featureids": [0, 1, 0, 0, 0, 3, 0, 0],
        "nodes_values": [float(X[2, 0]), 0.25, 0, 0, 0, float(X[1, 3]), 0, 0],
        "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
        "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
        "nodes_missing_value_tracks_true": [1, 0, 0, 0, 0, 0, 0, 0],
        f"{kind}_treeids": [0, 0, 0, 1, 1],
        f"{kind}_nodeids": [2, 3, 4, 1, 2],
        f"{kind}_ids": ids,
        f"{kind}_weights": weights,
    }


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"])
@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE"])
def test_tree_regressor(mode: str, aggregate: str, tmp_path: Path) -> None:
    attributes = trees("target", [0, 0, 0, 1, 1], [1.5, -2.0, 3.0, 0.25, 8.0], mode)
    attributes |= {"n_targets": 2, "aggregate_function": aggregate, "base_values": [0.5, -0.5]}
    path = save(tmp_path / "m.onnx", "TreeEnsembleRegressor", {"x": X}, [(FLOAT, [6, 2])], **attributes)
    assert len(np.unique(compare(path, {"x": X})["y0"])) > 2


def test_missing_values_take_the_branch_that_the_node_says(tmp_path: Path) -> None:
    x = X.copy()
    x[:3, 0] = np.nan
    x[1, 1] = np.nan
    attributes = trees("target", [0] * 5, [1.0, 2.0, 4.0, 8.0, 16.0]) | {"n_targets": 1}
    path = save(tmp_path / "m.onnx", "TreeEnsembleRegressor", {"x": x}, [(FLOAT, [6, 1])], **attributes)
    compare(path, {"x": x})


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_tree_classifier(transform: str, tmp_path: Path) -> None:
    attributes = trees("class", [0, 1, 2, 1, 0], [1.0, 0.5, 2.0, 0.75, 0.25])
    attributes |= {"classlabels_int64s": [5, 7, 9], "post_transform": transform}
    path = save(tmp_path / "m.onnx", "TreeEnsembleClassifier", {"x": X}, [(INT64, [6]), (FLOAT, [6, 3])], **attributes)
    compare(path, {"x": X})


@pytest.mark.parametrize(("weights", "transform"), [("mixed", "NONE"), ("mixed", "LOGISTIC"), ("positive", "NONE")])
def test_one_score_for_two_classes(weights: str, transform: str, tmp_path: Path) -> None:
    numbers = [0.1, 0.4, 0.3, 0.2, 0.5] if weights == "positive" else [-1.0, 0.5, 2.0, -0.75, 0.25]
    attributes = trees("class", [0] * 5, numbers) | {"classlabels_int64s": [5, 7], "post_transform": transform}
    path = save(tmp_path / "m.onnx", "TreeEnsembleClassifier", {"x": X}, [(INT64, [6]), (FLOAT, [6, 2])], **attributes)
    compare(path, {"x": X})


def test_text_labels_become_their_numbers(tmp_path: Path) -> None:
    weights = RNG.normal(size=8).tolist()
    attributes = {"coefficients": weights, "intercepts": [0.0, 0.0], "classlabels_strings": ["a", "b"]}
    outputs = [(TensorProto.STRING, [6]), (FLOAT, [6, 2])]
    path = save(tmp_path / "m.onnx", "LinearClassifier", {"x": X}, outputs, **attributes)
    loaded = load_source(path)
    assert loaded.labels == ("a", "b")
    got = run(emit(loaded.model), {"x": X})["y0"]
    assert [loaded.labels[int(i)] for i in got] == run_ort(str(path), {"x": X})["y0"].tolist()
    assert len(set(got)) == 2
