"""Tables as calibration data: columns find their inputs, a heading and labels are told apart, misfits are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.quantization.data.labels import labels_of
from edgec.quantization.data.samples import SampleSource, open_samples
from edgec.tensors import DType, TensorSpec

NUMBERS = TensorSpec(name="input", shape=(1, 2), dtype=DType.FLOAT32)
TEXT = TensorSpec(name="text", shape=(1, 1), dtype=DType.STRING)


def opened(folder: Path, content: str, *inputs: TensorSpec, name: str = "a.csv") -> SampleSource:
    (folder / name).write_text(content)
    return open_samples(folder / name, inputs)


@pytest.mark.parametrize(
    "content",
    ["1,2.5\n-3,4\n", "width,height\n1,2.5\n-3,4\n", "\ufeffa;b;label\n1;2.5;0\n-3;4;1\n\n", "a\ty\n1\t2.5\n-3\t4\n"],
    ids=["numbers alone", "heading", "labels", "a feature called like labels"],
)
def test_columns_of_numbers(tmp_path: Path, content: str) -> None:
    feeds = [feed["input"].tolist() for feed in opened(tmp_path, content, NUMBERS)]
    assert feeds == [[[1, 2.5]], [[-3, 4]]]


def test_texts_beside_numbers_go_to_the_input_of_texts(tmp_path: Path) -> None:
    feeds = list(opened(tmp_path, 'w,colour,h\n1,"red, dark",\n2,blue,4\n', NUMBERS, TEXT))
    assert [feed["text"].tolist() for feed in feeds] == [[["red, dark"]], [["blue"]]]
    np.testing.assert_array_equal(feeds[0]["input"], [[1, np.nan]])


def test_inputs_are_found_by_the_heading(tmp_path: Path) -> None:
    one, two = (TensorSpec(name=name, shape=(1, 1), dtype=DType.FLOAT32) for name in ("one", "two"))
    feed = next(iter(opened(tmp_path, "two,other,one\n2,9,1\n", one, two)))
    assert feed["one"].item() == 1 and feed["two"].item() == 2


def test_lines_of_text_for_a_model_that_takes_texts(tmp_path: Path) -> None:
    feeds = opened(tmp_path, "first, not last\nsecond\n", TEXT, name="a.txt")
    assert [feed["text"].item() for feed in feeds] == ["first, not last", "second"]


def test_labels_are_a_column(tmp_path: Path) -> None:
    assert labels_of(opened(tmp_path, "a,b,Label\n1,2,0\n3,4,2\n", NUMBERS)) == [0, 2]
    with pytest.raises(EdgecError, match="no labels"):
        labels_of(opened(tmp_path, "a,b\n1,2\n3,4\n", NUMBERS))


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("1,2,3\n4,5,6\n", "calibration/shape", "3 columns of numbers, the model takes 2"),
        ("1,red\n2,blue\n", "calibration/shape", "1 columns of numbers, the model takes 2"),
        ("1,2\n3\n", "calibration/unreadable", "line 2 has 1 cells"),
        ("", "calibration/empty", "no samples"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: str, code: str, words: str) -> None:
    with pytest.raises(EdgecError) as error:
        list(opened(tmp_path, content, NUMBERS))
    assert error.value.code == code and words in error.value.finding.message
