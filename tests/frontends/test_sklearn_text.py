"""Pipelines that take text categories: the same answers as scikit-learn's, with text as an input of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.frontends import sklearn as frontend
from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded, load_source
from edgec.graph.model import SourceInfo
from edgec.runners.base import run_artifact
from edgec.tensors import Array
from tools import sklearn_cases

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
skops_io = pytest.importorskip("skops.io", reason="skops is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

WORDS = np.asarray(["low", "mid", "high", "très haut"])
#: Columns of `wines`: text stands between numbers.
TEXT, NUMBERS = [0, 2, 5], [1, 3, 4]
#: Rows of which the answers are compared, in one go.
ROWS = 40


def wines() -> tuple[Array, Array]:
    """Some measurements in words, some as numbers: word, number, word, two numbers, word."""
    first, second, classes, rest = sklearn_cases.data("wine")
    values = np.concatenate([first, second]).astype(np.float64)
    words = [WORDS[np.searchsorted(np.quantile(c, [0.25, 0.5, 0.75]), c)] for c in values[:, [1, 4, 7]].T]
    table = np.empty((len(values), 6), object)
    table[:, TEXT], table[:, NUMBERS] = np.stack(words, axis=1), values[:, [0, 2, 3]]
    return table, np.asarray(["barolo", "grignolino", "barbera"])[np.concatenate([classes, rest])]


def fitted(*transformers: Any, remainder: str = "drop") -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    columns = ColumnTransformer(
        [(f"{i}", *pair) for i, pair in enumerate(transformers)], remainder=remainder, sparse_threshold=0
    )
    return make_pipeline(columns, LogisticRegression(max_iter=3000)).fit(*wines())


def cases() -> dict[str, Any]:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    number = (StandardScaler(), NUMBERS)
    ignore = OneHotEncoder(handle_unknown="ignore")
    return {
        "one-hot, all columns": lambda: fitted(number, (ignore, TEXT)),
        "one-hot, in another order": lambda: fitted((OneHotEncoder(drop="first"), [5, 0]), number),
        "ordinal": lambda: fitted((OrdinalEncoder(), [5, 2]), (StandardScaler(), [4, 1])),
        "both, and passed through": lambda: fitted((ignore, [0]), (OrdinalEncoder(), [2, 5]), remainder="passthrough"),
        "imputed": lambda: fitted(
            (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), TEXT),
        ),
        "rare ones share a column": lambda: fitted(
            number, (OneHotEncoder(max_categories=3, drop="first", handle_unknown="infrequent_if_exist"), TEXT)
        ),
        "rare ones, unknown ones in none": lambda: fitted(
            (OneHotEncoder(min_frequency=0.26, handle_unknown="ignore"), [5]),
            (OneHotEncoder(max_categories=2), [0, 2]),
            number,
        ),
        "text alone": lambda: fitted((ignore, TEXT)),
    }


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loaded]:
    """As the frontend does it, without its process; the estimator is left as it is."""
    monkeypatch.syspath_prepend(str(Path(frontend.__file__).parent / "exporters"))
    import sklearn_convert

    def convert(estimator: Any, rows: int) -> Loaded:
        made = sklearn_convert.convert(copy.deepcopy(estimator), {}, {})
        source = SourceInfo(kind="sklearn", name="m.skops", digest="0" * 64)
        inputs = {name: (rows, len(columns)) for name, columns in made["inputs"].items()}
        loaded = from_proto(made["model"], source=source, name="m", inputs=inputs)
        return replace(loaded, preprocessing={"columns": made["inputs"]})

    return convert


def answers(loaded: Loaded, backend: str, table: Array) -> dict[str, Array]:
    artifact = sklearn_cases.built(loaded, backend)
    kinds = {spec.name: spec.dtype.numpy for spec in loaded.model.inputs()}
    feeds = {name: table[:, columns].astype(kinds[name]) for name, columns in loaded.preprocessing["columns"].items()}
    [raw] = run_artifact(artifact, [{b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs}])
    return {b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs}


@pytest.mark.parametrize("name", list(cases()))
def test_answers_are_those_of_scikit_learn(name: str, converted: Callable[..., Loaded]) -> None:
    estimator, table = cases()[name](), wines()[0][:ROWS]
    loaded = converted(estimator, ROWS)
    assert loaded.labels == ("barbera", "barolo", "grignolino")
    for backend in ("tflite", "openvino"):
        got = answers(loaded, backend, table)
        labels = np.asarray(loaded.labels)[got["label"].astype(int)]
        np.testing.assert_array_equal(labels, estimator.predict(table))
        np.testing.assert_allclose(got["probabilities"], estimator.predict_proba(table), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["one-hot, all columns", "rare ones share a column"])
def test_unknown_categories_are_what_scikit_learn_makes_of_them(name: str, converted: Callable[..., Loaded]) -> None:
    estimator, row = cases()[name](), wines()[0][:1]
    row[0, TEXT] = ["LOW", "", "unheard of"]
    found = answers(converted(estimator, 1), "tflite", row)["probabilities"]
    np.testing.assert_allclose(found, estimator.predict_proba(row), rtol=1e-5, atol=1e-5)


def test_a_file_says_what_a_device_cannot_do(tmp_path: Path) -> None:
    skops_io.dump(cases()["imputed"](), tmp_path / "wine.skops")
    loaded = load_source(tmp_path / "wine.skops")
    findings = {f.code: f for f in loaded.findings}
    assert "OneHotEncoder" in findings["source/unknown-categories"].message
    assert "'low'" in findings["source/text-not-filled"].hint
    assert "source/conversion-differs" not in findings
    assert [(spec.name, spec.shape) for spec in loaded.model.inputs()] == [("input", (1, 3)), ("text", (1, 3))]
    assert loaded.preprocessing["features"] == {"input": ["1", "3", "4"], "text": ["0", "2", "5"]}


def refused() -> dict[str, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    table, classes = wines()
    gaps = table[:, :1].copy()
    gaps[3, 0] = np.nan
    words = ColumnTransformer([("t", TfidfVectorizer(), 0)]).fit(table, classes)
    return {
        "numbers and text at once": OneHotEncoder().fit(table[:, [0, 1]]),
        "known categories that are text beside others": OneHotEncoder().fit(gaps),
        "makes numbers of words": make_pipeline(words),
    }


@pytest.mark.parametrize("message", ["numbers and text at once", "text beside others", "numbers of words"])
def test_what_cannot_be_is_refused_by_name(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(frontend.__file__).parent / "exporters"))
    import refusal
    import sklearn_convert

    [estimator] = [made for name, made in refused().items() if message in name]
    with pytest.raises(refusal.SourceError, match=message) as caught:
        sklearn_convert.convert(estimator, {}, {})
    assert caught.value.record["code"] == "source/input-type" and caught.value.record["hint"]
