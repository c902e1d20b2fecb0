"""scikit-learn sources: what is converted answers as scikit-learn does, and pickles do nothing that was not allowed."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError, Severity
from edgec.frontends import sklearn as frontend
from edgec.frontends._onnx_model import from_proto
from edgec.frontends.base import Loaded, Request, SourceOptions, load_source
from edgec.graph.model import SourceInfo
from tools import sklearn_cases

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")

#: Floats within this of scikit-learn's, by |difference| / (1 + |right|).
TOLERANCE = 1e-5
TRUST = SourceOptions(trust=True)

MATRIX = (
    "LogisticRegression",
    "LinearSVC",
    "DecisionTreeClassifier",
    "RandomForestClassifier, 100 trees",
    "HistGradientBoostingClassifier",
    "GradientBoostingClassifier",
    "MLPClassifier",
    "SVC, rbf",
    "KNeighborsClassifier",
    "GaussianNB",
    "PCA, SVC",
    "VotingClassifier, soft",
)
ONCE = (
    "AdaBoostClassifier",
    "CalibratedClassifierCV",
    "ColumnTransformer, LogisticRegression",
    "HistGradientBoostingRegressor",
    "KMeans",
    "KNeighborsRegressor",
    "LinearRegression",
    "PolynomialFeatures, LogisticRegression",
    "RandomForestRegressor",
    "SimpleImputer, RobustScaler, MLP",
    "StackingClassifier",
    "SVR",
)


def converted(estimator: Any, rows: int, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """As the frontend does it, without its process."""
    monkeypatch.syspath_prepend(str(Path(frontend.__file__).parent / "exporters"))
    import sklearn_convert

    shape = (rows, int(estimator.n_features_in_))
    made = sklearn_convert.convert(estimator, {"input": list(shape)}, {})
    source = SourceInfo(kind="sklearn", name="m.skops", digest="0" * 64)
    return from_proto(made["model"], source=source, name="m", inputs={"input": shape})


def check(name: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = sklearn_cases.fitted(sklearn_cases.estimators()[name], dataset)
    _, features, _, _ = sklearn_cases.data(dataset)
    loaded = converted(estimator, len(features), monkeypatch)
    for backend in ("tflite", "openvino"):
        answer = sklearn_cases.compare(estimator, sklearn_cases.built(loaded, backend), features)
        assert answer.labels_equal in (None, 1.0), backend
        assert answer.worst <= TOLERANCE, backend


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("dataset", sklearn_cases.DATASETS)
@pytest.mark.parametrize("name", MATRIX)
def test_answers_are_those_of_scikit_learn(name: str, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, dataset, monkeypatch)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ONCE)
def test_more_estimators(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(name, "wine", monkeypatch)


def test_a_discriminant_of_two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where skl2onnx alone gives the probability of twice the decision."""
    check("LinearDiscriminantAnalysis", "breast_cancer", monkeypatch)


# --- files --------------------------------------------------------------------------------------------


def small() -> Any:
    from sklearn.linear_model import LogisticRegression

    features, _, classes, _ = sklearn_cases.data("wine")
    names = np.asarray(["barolo", "grignolino", "barbera"])[classes]
    return LogisticRegression(max_iter=5000, tol=1e-2).fit(features / 100, names)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_skops_with_text_labels(tmp_path: Path) -> None:
    skops_io = pytest.importorskip("skops.io")
    estimator = small()
    path = tmp_path / "m.bin"  # recognised by what is in it
    skops_io.dump(estimator, path)
    loaded = load_source(path)
    assert loaded.labels == ("barbera", "barolo", "grignolino")
    assert loaded.model.source.kind == "sklearn"
    assert [spec.name for spec in loaded.model.inputs()] == ["input"]
    _, features, _, _ = sklearn_cases.data("wine")
    artifact = sklearn_cases.built(loaded, "tflite")
    from edgec.runners.base import run_artifact

    for row in features[:5] / 100:
        [raw] = run_artifact(artifact, [{artifact.inputs[0].artifact.name: row[None].astype(np.float32)}])
        [label] = [b for b in artifact.outputs if b.source.name == "label"]
        assert loaded.labels[int(raw[label.artifact.name][0])] == estimator.predict(row[None])[0]


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_does_nothing_unless_it_is_trusted(tmp_path: Path) -> None:
    path, proof = tmp_path / "m.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps(Malicious(proof)))
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "source/untrusted"
    assert "--trust" in caught.value.finding.hint
    assert not proof.exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rights are given up on Linux only")
def test_a_trusted_pickle_has_no_files_and_programs(tmp_path: Path) -> None:
    path, proof = tmp_path / "m.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps({"harm": Malicious(proof)}))
    with pytest.raises(EdgecError) as caught:
        load_source(path, options=TRUST)
    assert caught.value.code == "source/no-estimator"
    if not _kernel_confines():
        pytest.skip("this kernel has no Landlock")
    assert not proof.exists()


def _kernel_confines() -> bool:
    import ctypes

    return int(ctypes.CDLL(None).syscall(ctypes.c_long(444), None, 0, 1)) >= 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("packed", [0, ("zlib", 3), ("gzip", 3), ("lzma", 1)])
def test_joblib_files_are_known_however_they_are_packed(packed: Any, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "m.bin"
    joblib.dump(small(), path, compress=packed)
    request = Request(spec=str(path), path=path, inputs={}, options=SourceOptions())
    assert frontend.accepts(request)
    with pytest.raises(EdgecError, match="is a Python pickle"):
        load_source(path)


def test_pickles_of_others_are_left_to_others(tmp_path: Path) -> None:
    plain, array = tmp_path / "m.bin", tmp_path / "a.npy"
    plain.write_bytes(pickle.dumps({"some": "data"}))
    np.save(array, np.zeros(3))
    for path in (plain, array):
        request = Request(spec=str(path), path=path, inputs={}, options=SourceOptions())
        assert not frontend.accepts(request)


def test_what_cannot_be_converted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestCentroid

    features, _, classes, _ = sklearn_cases.data("wine")
    cases = (
        (LogisticRegression(), "source/not-fitted"),
        (NearestCentroid().fit(features, classes), "source/unsupported"),
    )
    monkeypatch.syspath_prepend(str(Path(frontend.__file__).parent / "exporters"))
    import refusal
    import sklearn_convert

    for estimator, code in cases:
        with pytest.raises(refusal.SourceError) as caught:
            sklearn_convert.convert(estimator, {}, {})
        assert caught.value.record["code"] == code


def test_a_conversion_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LinearRegression

    features, _, classes, _ = sklearn_cases.data("wine")
    loaded = converted(LinearRegression().fit(features, classes), 1, monkeypatch)
    wrong = {">input": features[:20], "prediction": np.full(20, 1e6)}
    with pytest.raises(EdgecError) as caught:
        frontend._compared(loaded.model, (), wrong)
    assert caught.value.code == "source/conversion-differs"
    right = LinearRegression().fit(features, classes).predict(features[:20])
    right[3] += 1
    [finding] = frontend._compared(loaded.model, (), {">input": features[:20], "prediction": right})
    assert finding.severity == Severity.WARNING and "5.0 %" in finding.message
