"""Diagnoses of inputs and answers by themselves: each mistake by its name, alone and on top of another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.artifact import IoBinding
from edgec.pipeline.proof.answers import answered, judge_answers
from edgec.pipeline.proof.fitting import Diagnosis, diagnose
from edgec.quantization.data.recipe import InputSteps
from edgec.tensors import Array, DType, QParams, TensorSpec
from tests.support.applications import pixels

SHAPE = (1, 16, 16, 3)
PLAIN = InputSteps(scale=1 / 255)
IMAGENET = InputSteps(scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def binding(q: QParams | None = None) -> IoBinding:
    source = TensorSpec(name="x", shape=(1, 3, 16, 16), dtype=DType.FLOAT32)
    artifact = TensorSpec(name="x", shape=SHAPE, dtype=DType.INT8 if q else DType.FLOAT32, qparams=q)
    return IoBinding(source=source, artifact=artifact, perm=(0, 2, 3, 1))


def prepared(steps: InputSteps) -> Array:
    value = pixels(1)[0].astype(np.float64) * float(steps.scale or 1)
    result: Array = ((value - np.array(steps.mean)) / np.array(steps.std)).astype(np.float32)[None]
    return result


def found(actual: Array, steps: InputSteps = PLAIN, q: QParams | None = None, variants: Any = None) -> Diagnosis:
    bound = binding(q)
    expected = prepared(steps)
    if q is not None:
        expected = q.quantize(expected, DType.INT8)
    return diagnose(bound, expected, actual, steps, variants or {})


def test_the_same_is_the_same() -> None:
    assert found(prepared(PLAIN)).faults == ()
    noise = np.random.default_rng(0).normal(0, 0.002, SHAPE).astype(np.float32)
    assert found(prepared(PLAIN) + noise).faults == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[..., ::-1], "opposite order"),
        (lambda x: x * 255, "0 to 255"),
        (lambda x: x * 2 - 1, "-1 to 1"),
        (lambda x: x / 255, "scaled twice"),
        (lambda x: x * 255 - 128, "minus 128"),
        (lambda x: x[:, ::-1], "upside down"),
        (lambda x: x[:, ::-1, ::-1], "turned"),
        (lambda x: x.transpose(0, 2, 1, 3), "two axes are exchanged"),
        (lambda x: x.transpose(0, 3, 1, 2), "another order"),
        (lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(SHAPE), "in memory as another layout"),
        (lambda x: x * 0, "everywhere"),
        (lambda x: x * np.nan, "NaN"),
        (lambda x: x * 3 + 7, "a pixel p becomes"),
        (lambda x: x.astype(np.float64), "float64 where the model takes float32"),
        (lambda x: x[:, :8], "its shape is"),
    ],
)
def test_each_mistake_has_its_name(change: Any, words: str) -> None:
    diagnosis = found(np.asarray(change(prepared(PLAIN))))
    assert words in "; ".join(diagnosis.faults)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p, m, s: p / s, "mean is not subtracted"),
        (lambda p, m, s: p - m, "no division by std"),
        (lambda p, m, s: ((p - m) / s - m) / s, "applied twice"),
        (lambda p, m, s: p, "0 to 1"),
        (lambda p, m, s: p * 255, "0 to 255"),
    ],
)
def test_mistakes_of_mean_and_std(change: Any, words: str) -> None:
    p = pixels(1)[0][None].astype(np.float64) / 255
    value = change(p, np.array(IMAGENET.mean), np.array(IMAGENET.std)).astype(np.float32)
    assert words in "; ".join(found(value, IMAGENET).faults)


def test_a_photo_of_another_crop_is_told_from_noise() -> None:
    other = prepared(PLAIN)[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    assert found(other, PLAIN, variants={"it is cropped": other}).faults == ("it is cropped",)
    rng = np.random.default_rng(1)
    unrelated = found(rng.uniform(0, 1, SHAPE).astype(np.float32))
    assert unrelated.faults == ()
    assert unrelated.db < 10


def test_integers_are_compared_as_numbers() -> None:
    q = QParams.per_tensor(1 / 255, -128)
    right = q.quantize(prepared(PLAIN), DType.INT8)
    assert found(right, PLAIN, q).faults == ()
    assert "q = round(x/" in found(prepared(PLAIN), PLAIN, q).faults[0]
    swapped = np.ascontiguousarray(right[..., ::-1])
    assert "opposite order" in found(swapped, PLAIN, q).faults[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (3.0, 3), (3.5, None), ("cat", "cat"), (True, 1), (None, None), ([], None),
        ({"label": "cat", "score": 0.5}, "cat"), ([{"class": 2}], 2), ({"predictions": [{"label": "x"}]}, "x"),
        ({"boxes": [1]}, None),
    ],
)  # fmt: skip
def test_classes_are_found_in_answers(value: Any, expected: Any) -> None:
    assert answered(value) == expected


def rows(*best: int, size: int = 4) -> list[Array]:
    found = []
    for place in best:
        row = np.linspace(0.1, 0.2, size, dtype=np.float32)
        row[place] = 1.0
        found.append(row[None])
    return found


LABELS = ("dog", "cat", "owl", "ant")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([1, 2, 3], "one too high"),
        ([-1, 0, 1], "one too low"),
        ([3, 2, 1], "reverse order"),
        ([0, 0, 0], "always the first class"),
        (["ant", "cat", "dog"], "alphabetical order"),
        (["owl", "ant", "dog"], "list of labels is another one"),
    ],
)
def test_each_mistake_of_an_answer_has_its_name(answers: list[Any], words: str) -> None:
    judged = judge_answers(answers, rows(0, 1, 2), LABELS)
    assert judged is not None
    assert judged[0] < 1
    assert words in judged[1]


def test_right_answers_by_number_label_and_tie() -> None:
    assert judge_answers([0, 1, 2], rows(0, 1, 2), ()) == (1.0, "")
    assert judge_answers(["dog", " CAT ", "2"], rows(0, 1, 2), LABELS) == (1.0, "")
    assert judge_answers([1], [np.ones((1, 4), np.float32)], LABELS) == (1.0, "")


def test_answers_that_cannot_be_judged() -> None:
    assert judge_answers(["dog"], rows(0), ()) is None
    judged = judge_answers(["horse"], rows(0), LABELS)
    assert judged is not None
    assert "'horse' is none of the bundle's 4 labels" in judged[1]
    some = judge_answers([0, 1, 3], rows(0, 1, 2), ())
    assert some is not None
    assert some[0] == pytest.approx(2 / 3)
    assert some[1] == ""
