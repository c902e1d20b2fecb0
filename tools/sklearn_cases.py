"""scikit-learn estimators fitted on the data sets that come with it, and what edgec makes of them on a backend."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.artifact import Artifact
from edgec.backends.base import CompileOptions, load_backend
from edgec.frontends.base import Loaded, SourceOptions, load_source
from edgec.passes.pipelines import canonicalize
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from edgec.tensors import Array

DATASETS = ("digits", "wine", "breast_cancer")


def data(name: str) -> tuple[Array, Array, Array, Array]:
    """Training features, test features (float32, as a device has them), training classes, test classes."""
    from sklearn import datasets, model_selection

    features, classes = getattr(datasets, f"load_{name}")(return_X_y=True)
    split = model_selection.train_test_split(features.astype(np.float32), classes, test_size=0.25, random_state=0)
    first, second, third, fourth = (np.asarray(part) for part in split)
    return first, second, third, fourth


def estimators() -> dict[str, Callable[[], Any]]:
    """By name; each call makes a fresh one. Scalers stand where people put them."""
    from sklearn import (
        calibration,
        cluster,
        compose,
        decomposition,
        discriminant_analysis,
        ensemble,
        impute,
        linear_model,
        multiclass,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    def scaled(*steps: Any) -> Any:
        return pipeline.make_pipeline(preprocessing.StandardScaler(), *steps)

    def columns() -> Any:
        return compose.ColumnTransformer(
            [("a", preprocessing.StandardScaler(), slice(0, 6)), ("b", preprocessing.MinMaxScaler(), slice(6, 9))],
            remainder="passthrough",
        )

    def pair() -> list[tuple[str, Any]]:
        return [
            ("linear", scaled(linear_model.LogisticRegression())),
            ("tree", tree.DecisionTreeClassifier(max_depth=5, random_state=0)),
        ]

    return {
        "LogisticRegression": lambda: scaled(linear_model.LogisticRegression()),
        "RidgeClassifier": lambda: scaled(linear_model.RidgeClassifier()),
        "SGDClassifier": lambda: scaled(linear_model.SGDClassifier(random_state=0)),
        "SGDClassifier, log loss": lambda: scaled(linear_model.SGDClassifier(loss="log_loss", random_state=0)),
        "LinearSVC": lambda: scaled(svm.LinearSVC()),
        "LinearDiscriminantAnalysis": lambda: scaled(discriminant_analysis.LinearDiscriminantAnalysis()),
        "DecisionTreeClassifier": lambda: tree.DecisionTreeClassifier(random_state=0),
        "RandomForestClassifier, 100 trees": lambda: ensemble.RandomForestClassifier(100, random_state=0),
        "ExtraTreesClassifier, 100 trees": lambda: ensemble.ExtraTreesClassifier(100, random_state=0),
        "GradientBoostingClassifier": lambda: ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0),
        "HistGradientBoostingClassifier": lambda: ensemble.HistGradientBoostingClassifier(max_iter=20, random_state=0),
        "AdaBoostClassifier": lambda: ensemble.AdaBoostClassifier(n_estimators=10, random_state=0),
        "BaggingClassifier": lambda: ensemble.BaggingClassifier(random_state=0),
        "MLPClassifier": lambda: scaled(neural_network.MLPClassifier((32,), max_iter=60, random_state=0)),
        "SVC, rbf": lambda: scaled(svm.SVC()),
        "SVC, poly": lambda: scaled(svm.SVC(kernel="poly")),
        "KNeighborsClassifier": lambda: scaled(neighbors.KNeighborsClassifier()),
        "GaussianNB": lambda: scaled(naive_bayes.GaussianNB(var_smoothing=1e-2)),
        "PCA, SVC": lambda: scaled(decomposition.PCA(8), svm.SVC()),
        "PolynomialFeatures, LogisticRegression": lambda: scaled(
            decomposition.PCA(6), preprocessing.PolynomialFeatures(2), linear_model.LogisticRegression(max_iter=1000)
        ),
        "SimpleImputer, RobustScaler, MLP": lambda: pipeline.make_pipeline(
            impute.SimpleImputer(),
            preprocessing.RobustScaler(),
            preprocessing.Normalizer(),
            neural_network.MLPClassifier((16,), max_iter=60, random_state=0),
        ),
        "ColumnTransformer, LogisticRegression": lambda: pipeline.make_pipeline(
            columns(), preprocessing.StandardScaler(), linear_model.LogisticRegression()
        ),
        "CalibratedClassifierCV": lambda: scaled(calibration.CalibratedClassifierCV(svm.LinearSVC())),
        "VotingClassifier, soft": lambda: ensemble.VotingClassifier(pair(), voting="soft"),
        "VotingClassifier, hard": lambda: ensemble.VotingClassifier(pair()),
        "StackingClassifier": lambda: ensemble.StackingClassifier(pair()),
        "OneVsRestClassifier": lambda: scaled(multiclass.OneVsRestClassifier(linear_model.LogisticRegression())),
        "KMeans": lambda: scaled(cluster.KMeans(3, n_init=1, random_state=0)),
        "IsolationForest": lambda: ensemble.IsolationForest(n_estimators=20, random_state=0),
        "LinearRegression": lambda: scaled(linear_model.LinearRegression()),
        "SVR": lambda: scaled(svm.SVR()),
        "RandomForestRegressor": lambda: ensemble.RandomForestRegressor(30, random_state=0),
        "HistGradientBoostingRegressor": lambda: ensemble.HistGradientBoostingRegressor(max_iter=20, random_state=0),
        "KNeighborsRegressor": lambda: scaled(neighbors.KNeighborsRegressor()),
        "MLPRegressor": lambda: scaled(
            neural_network.MLPRegressor(hidden_layer_sizes=(32,), max_iter=60, random_state=0)
        ),
    }


def fitted(make: Callable[[], Any], dataset: str) -> Any:
    """The estimator, fitted on the training part."""
    features, _, classes, _ = data(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iterations that do not converge are no matter here
        return make().fit(features, classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a backend's answers compare with scikit-learn's on the test part."""

    labels_equal: float | None
    worst: float
    size_bytes: int
    operators: int


def built(loaded: Loaded, backend_name: str, target: str = "linux-x86_64") -> Artifact:
    """The float artifact."""
    backend, profile = load_backend(backend_name), load_target(target)
    legal = backend.legalize(canonicalize(loaded.model), profile, "float32")
    return backend.compile(legal, profile, CompileOptions(precision="float32"))


def read(estimator: Any, path: Path, rows: int) -> Loaded:
    """The estimator through a skops file."""
    import skops.io

    skops.io.dump(estimator, path)
    width = int(estimator.n_features_in_)
    return load_source(path, inputs={"input": (rows, width)}, options=SourceOptions(trust=True))


def right(estimator: Any, features: Array) -> dict[str, Array]:
    """What scikit-learn says, by the name of the output."""
    from sklearn.base import is_regressor

    answers = {"prediction" if is_regressor(estimator) else "label": np.asarray(estimator.predict(features))}
    if hasattr(estimator, "predict_proba"):
        answers["probabilities"] = np.asarray(estimator.predict_proba(features))
    elif hasattr(estimator, "decision_function"):
        answers["scores"] = np.asarray(estimator.decision_function(features))
    return answers


def compare(estimator: Any, artifact: Artifact, features: Array) -> Answer:
    """Run the artifact on the features; floats by |difference| / (1 + |right|)."""
    [raw] = run_artifact(artifact, [{b.artifact.name: b.to_artifact(features) for b in artifact.inputs}])
    got = {b.source.name: b.to_source(raw[b.artifact.name]) for b in artifact.outputs}
    equal: float | None = None
    worst = 0.0
    for name, value in right(estimator, features).items():
        found = got[name].reshape(len(features), -1)
        wanted = value.reshape(len(features), -1)
        if name == "label":
            equal = float(np.mean(found == wanted))
        elif found.shape == wanted.shape:
            worst = max(worst, float(np.max(np.abs(found - wanted) / (1 + np.abs(wanted)))))
        else:  # one score for two classes, where the device has one each
            worst = max(worst, float(np.max(np.abs(found[:, -1:] - wanted) / (1 + np.abs(wanted)))))
    size = sum(len(content) for content in artifact.files.values())
    return Answer(labels_equal=equal, worst=worst, size_bytes=size, operators=sum(artifact.operators.values()))


def every_case() -> Iterator[tuple[str, str]]:
    """Data set and estimator."""
    return itertools.product(DATASETS, estimators())
