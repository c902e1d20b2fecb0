"""Labels are found wherever data sets keep them, in the order of the samples; and it is said where they are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.quantization.data.labels import labels_of
from edgec.quantization.data.samples import open_samples
from edgec.tensors import DType, TensorSpec

SPEC = [TensorSpec(name="x", shape=(1, 4), dtype=DType.FLOAT32)]
IMAGE = [TensorSpec(name="x", shape=(1, 3, 8, 8), dtype=DType.FLOAT32)]


def _arrays(count: int = 6) -> np.ndarray:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def test_an_array_of_the_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=_arrays(), labels=np.arange(6))
    assert list(labels_of(open_samples(tmp_path / "data.npz", SPEC, count=2))) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["labels.npy", "data_labels.npy"])
def test_a_file_beside_the_npy(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "data.npy", _arrays())
    np.save(tmp_path / name, np.arange(6) * 2)
    assert list(labels_of(open_samples(tmp_path / "data.npy", SPEC))) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize("parts", [1, 3])
def test_a_file_in_the_folder_of_arrays_is_no_sample(parts: int, tmp_path: Path) -> None:
    for i, part in enumerate(np.split(_arrays(), parts)):
        np.save(tmp_path / f"x{i}.npy", part)
    np.save(tmp_path / "labels.npy", np.arange(6))
    found = open_samples(tmp_path, SPEC)
    assert found.total == 6 and list(labels_of(found)) == [0, 1, 2, 3, 4, 5]


def test_one_label_for_all_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=_arrays(), labels=np.array(3))
    with pytest.raises(EdgecError, match="a single int64 value") as error:
        labels_of(open_samples(tmp_path / "data.npz", SPEC))
    assert error.value.code == "calibration/labels"


def test_a_field_of_each_line(tmp_path: Path) -> None:
    lines = [json.dumps({"x": [1, 2, 3, 4], "label": {"boxes": [[0, 0, 1, i]]}}) for i in range(3)]
    (tmp_path / "data.jsonl").write_text("\n\n".join(lines))
    found = labels_of(open_samples(tmp_path / "data.jsonl", SPEC))
    assert [label["boxes"][0][3] for label in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("folders", "wanted"), [(("cat", "ant", "dog"), [0, 1, 1, 2]), (("10", "2", "30"), [10, 2, 2, 30])]
)
def test_a_folder_a_class(tmp_path: Path, folders: tuple[str, ...], wanted: list[int]) -> None:
    image = pytest.importorskip("PIL.Image")
    for folder, count in zip(sorted(folders), (1, 2, 1), strict=True):
        (tmp_path / folder).mkdir()
        for i in range(count):
            image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / folder / f"{i}.png")
    assert list(labels_of(open_samples(tmp_path, IMAGE))) == wanted


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("y.txt", "3\n1\n2\n0\n5\n4\n"),
        ("y.csv", "file,class\na,3\nb,1\nc,2\nd,0\ne,5\nf,4\n"),
        ("y.jsonl", "\n".join(json.dumps({"target": n}) for n in (3, 1, 2, 0, 5, 4))),
    ],
)
def test_a_recipe_names_the_file(tmp_path: Path, name: str, text: str) -> None:
    np.save(tmp_path / "data.npy", _arrays())
    (tmp_path / name).write_text(text)
    (tmp_path / "own.toml").write_text(f'data = "data.npy"\nlabels = "{name}"\n')
    assert list(labels_of(open_samples(tmp_path / "own.toml", SPEC))) == [3, 1, 2, 0, 5, 4]


def test_labels_do_not_change_what_is_fed(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=_arrays(), answers=np.arange(6))
    (tmp_path / "own.toml").write_text('data = "data.npz"\nlabels = "answers"\n')
    (tmp_path / "plain.toml").write_text('data = "data.npz"\n')
    labelled, plain = (open_samples(tmp_path / name, SPEC) for name in ("own.toml", "plain.toml"))
    assert labelled.digest == plain.digest
    assert list(labels_of(labelled)) == [0, 1, 2, 3, 4, 5]


def test_samples_know_their_numbers_when_some_cannot_be_read(tmp_path: Path) -> None:
    good = json.dumps({"x": [1, 2, 3, 4], "label": 7})
    (tmp_path / "data.jsonl").write_text(f'{good}\n{{"x": "no", "label": 8}}\n{good}\n')
    source = open_samples(tmp_path / "data.jsonl", SPEC)
    assert [numbers for numbers, _ in source.numbered()] == [(0,), (2,)]
    batched = open_samples(tmp_path / "data.jsonl", [TensorSpec(name="x", shape=(2, 4), dtype=DType.FLOAT32)])
    assert [numbers for numbers, _ in batched.numbered()] == [(0, 2)]


def test_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=_arrays())
    with pytest.raises(EdgecError) as error:
        labels_of(open_samples(tmp_path / "data.npz", SPEC))
    assert error.value.code == "calibration/no-labels"


@pytest.mark.parametrize(
    ("labels", "message"), [("np.arange(4)", "4 labels for 6 samples"), ("b'damaged'", "cannot be read")]
)
def test_wrong_labels(tmp_path: Path, labels: str, message: str) -> None:
    np.save(tmp_path / "data.npy", _arrays())
    if labels.startswith("b"):
        (tmp_path / "labels.npy").write_bytes(b"damaged")
    else:
        np.save(tmp_path / "labels.npy", np.arange(4))
    with pytest.raises(EdgecError, match=message) as error:
        labels_of(open_samples(tmp_path / "data.npy", SPEC))
    assert error.value.code == "calibration/labels"


def test_a_recipe_that_names_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", _arrays())
    (tmp_path / "own.toml").write_text('data = "data.npy"\nlabels = "missing.npy"\n')
    with pytest.raises(EdgecError) as error:
        labels_of(open_samples(tmp_path / "own.toml", SPEC))
    assert error.value.code == "calibration/labels"
