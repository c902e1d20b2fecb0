"""Metrics against numbers worked out by hand, and against scikit-learn's where they have the same definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.quantization.measures.detection import overlap
from edgec.quantization.measures.task_metrics import METRICS, load_metric

RNG = np.random.default_rng(0)


def _outputs(scores: Any) -> list[dict[str, np.ndarray]]:
    return [{"other": np.zeros(1, np.int64), "y": np.asarray(row, np.float32)} for row in scores]


def test_top1_by_hand() -> None:
    outputs = _outputs([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert METRICS["top1"](outputs, [1, 0, 0]) == pytest.approx(2 / 3)
    assert METRICS["top1"](_outputs([[0.6], [0.4]]), [1, 1]) == 0.5
    assert METRICS["top1"](_outputs([[2.0], [-2.0]]), [1, 0]) == 1.0


def test_top1_of_positions() -> None:
    maps = np.zeros((2, 3, 2, 2), np.float32)  # classes, height, width
    maps[:, 1] = 1
    maps[0, 2, 0, 0] = 5
    right = np.ones((2, 2), int)
    assert METRICS["top1"](_outputs(maps), [right, right]) == pytest.approx(7 / 8)
    steps = np.eye(3, dtype=np.float32)  # steps, classes
    assert METRICS["top1"](_outputs([steps]), [[0, 1, 1]]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_and_auc_are_scikit_learns(classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores = RNG.random((60, classes)).astype(np.float32)
    scores /= scores.sum(axis=1, keepdims=True)
    labels = RNG.integers(0, classes, 60)
    outputs = _outputs(scores)
    f1 = sklearn.f1_score(labels, scores.argmax(axis=1), average="macro")
    assert METRICS["f1"](outputs, list(labels)) == pytest.approx(f1, abs=1e-9)
    given = scores[:, 1] if classes == 2 else scores
    auc = sklearn.roc_auc_score(labels, given, multi_class="ovr", average="macro")
    assert METRICS["auc"](outputs, list(labels)) == pytest.approx(auc, abs=1e-6)


def test_average_precision_of_classes() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, labels = RNG.random((50, 3)).astype(np.float32), RNG.integers(0, 2, (50, 3))
    wanted = sklearn.average_precision_score(labels, scores, average="macro")
    assert METRICS["map"](_outputs(scores), list(labels)) == pytest.approx(wanted, abs=1e-6)


def test_overlap_of_boxes() -> None:
    assert overlap(np.asarray([0, 0, 2, 2.0]), np.asarray([[1, 0, 3, 2], [5, 5, 6, 6.0]])) == pytest.approx([1 / 3, 0])


def test_average_precision_of_boxes() -> None:
    boxes = np.asarray([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], np.float32)
    scores = np.asarray([0.9, 0.8, 0.7], np.float32)
    outputs = [{"boxes": boxes, "scores": scores}]
    found = {"boxes": [[0, 0, 10, 10], [50, 50, 60, 61]]}
    # hit, miss, hit: (1 + 2/3) / 2
    assert METRICS["map"](outputs, [found]) == pytest.approx((1 + 2 / 3) / 2)
    assert METRICS["map"](outputs, [{"boxes": boxes[:1].tolist()}]) == 1.0
    twice = [{"boxes": np.concatenate([boxes, boxes]), "scores": np.concatenate([scores, scores / 2])}]
    assert METRICS["map"](twice, [found]) == pytest.approx((1 + 2 / 3) / 2)  # a box twice is found once
    classes = [{"boxes": boxes, "scores": np.eye(3, dtype=np.float32)}]
    assert METRICS["map"](classes, [{"boxes": boxes.tolist(), "classes": [0, 1, 0]}]) == pytest.approx((0.5 + 1) / 2)


def test_functions_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_test.py").write_text(
        "def share(outputs, labels):\n    return sum(o['y'].sum() > l for o, l in zip(outputs, labels)) / len(labels)\n"
        "def wrong(outputs, labels):\n    return outputs[0]['z']\n"
        "def nothing(outputs, labels):\n    return float('nan')\n"
    )
    outputs = _outputs([[1, 2], [3, 4]])
    assert load_metric(f"{tmp_path / 'mine_of_test.py'}:share")(outputs, [2, 9]) == 0.5
    monkeypatch.chdir(tmp_path)
    assert load_metric("mine_of_test:share")(outputs, [2, 9]) == 0.5
    for name in ("wrong", "nothing"):
        with pytest.raises(EdgecError) as error:
            load_metric(f"mine_of_test:{name}")(outputs, [2, 9])
        assert error.value.code == "quant/metric"


@pytest.mark.parametrize("name", ["top2", "no_such_module_here:f", "json:no_such_function", "/missing.py:f"])
def test_unknown_metrics(name: str) -> None:
    with pytest.raises(EdgecError) as error:
        load_metric(name)
    assert error.value.code == "quant/metric"


@pytest.mark.parametrize(
    ("metric", "scores", "labels"),
    [
        ("top1", [[0.1, 0.9]], ["cat"]),
        ("top1", [[0.1, 0.9]], [[1, 2, 3]]),
        ("top1", [[0.1, 0.9]], [2]),
        ("top1", [[0.1, 0.9, 0.2]], [-1]),
        ("f1", [[0.1, 0.9, 0.2]], [3]),
        ("auc", [[0.1, 0.9, 0.2], [0.1, 0.9, 0.2]], [1, 3]),
        ("auc", [[0.1], [0.9]], [1, 2]),
        ("auc", [[0.1, 0.9], [0.2, 0.8]], [1, 1]),
        ("auc", [[0.1, 0.9, 0.3]], [[1, 0]]),
        ("map", [[0.1, 0.9]], [{"boxes": [[0, 0, 1, 1]]}]),
        ("map", [[0.1, 0.9]], [{"boxes": []}]),
        ("auc", [[0.1, 0.9], [0.2, 0.8]], ["cat", "dog"]),
        ("auc", [[0.1, 0.9], [0.2, 0.8]], [0, [0, 1]]),
        ("map", [[0.1, 0.9], [0.2, 0.8]], [{"boxes": []}, 1]),
        ("top1", [[0.1, 0.9]], [[[0, 1], [1]]]),
    ],
)
def test_what_does_not_fit_is_said(metric: str, scores: Any, labels: Any) -> None:
    with pytest.raises(EdgecError) as error:
        METRICS[metric](_outputs(scores), labels)
    assert error.value.code == "quant/metric"


@pytest.mark.parametrize("metric", ["top1", "f1"])
def test_one_hot_labels_are_classes(metric: str) -> None:
    rng = np.random.default_rng(0)
    classes, scores = rng.integers(0, 5, 60), rng.normal(size=(60, 5))
    expected = METRICS[metric](_outputs(scores), list(classes))
    for rows in (np.eye(5)[classes], np.eye(5, dtype=bool)[classes][:, None, :]):
        assert METRICS[metric](_outputs(scores), list(rows)) == expected
    assert METRICS[metric](_outputs(scores), [str(c) for c in classes]) == expected


def test_several_classes_at_once_stay_several() -> None:
    scores = [[2.0, 1.0, -1.0], [1.0, -1.0, -1.0]]
    assert METRICS["top1"](_outputs(scores), [[1, 1, 0], [1, 0, 0]]) == 1.0  # not one of each: 0.5 as classes


def test_a_metric_that_leaves_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import sys\ndef now(outputs, labels): sys.exit(3)\n")
    with pytest.raises(EdgecError, match="SystemExit"):
        load_metric(f"{tmp_path / 'leaves.py'}:now")([], [])
