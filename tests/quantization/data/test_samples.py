"""Every form of calibration data becomes the model's inputs, in a fixed order, and what does not fit is named."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError, Severity
from edgec.quantization.data.samples import DEFAULT_COUNT, choose, open_samples
from edgec.tensors import Array, DType, TensorSpec

IMAGE = TensorSpec(name="x", shape=(1, 3, 8, 8), dtype=DType.FLOAT32)
VECTOR = TensorSpec(name="v", shape=(1, 4), dtype=DType.FLOAT32)
ZOO = Path(os.environ.get("EDGEC_ZOO", Path(__file__).parents[4] / "shared" / "zoo"))


def _images(count: int = 5, shape: tuple[int, ...] = (3, 8, 8)) -> Array:
    return np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)


def _error(path: Path | str, inputs: Sequence[TensorSpec] = (IMAGE,)) -> EdgecError:
    with pytest.raises(EdgecError) as caught:
        list(open_samples(path, inputs))
    return caught.value


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("key", ["x", "anything"])
def test_npy_and_npz_rows(tmp_path: Path, compressed: bool, key: str) -> None:
    rows = _images()
    np.save(tmp_path / "a.npy", rows)
    save: Callable[..., None] = np.savez_compressed if compressed else np.savez
    save(tmp_path / "b.npz", **{key: rows, "labels": np.arange(5), "names": np.array(["a"] * 5)})
    for file in ("a.npy", "b.npz"):
        source = open_samples(tmp_path / file, [IMAGE])
        for _ in range(2):  # as often as needed
            feeds = [feed["x"] for feed in source]
            assert [feed.shape for feed in feeds] == [(1, 3, 8, 8)] * 5
            assert np.array_equal(np.concatenate(feeds), rows)
        assert len(source) == source.count == 5


def test_arrays_in_fortran_order_are_the_same_rows(tmp_path: Path) -> None:
    rows = _images()
    np.save(tmp_path / "a.npy", np.asfortranarray(rows))
    np.savez_compressed(tmp_path / "b.npz", x=np.asfortranarray(rows))
    for file in ("a.npy", "b.npz"):
        assert np.array_equal(np.concatenate([feed["x"] for feed in open_samples(tmp_path / file, [IMAGE])]), rows)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8, 8), (4, 1, 3, 8, 8)])
def test_one_sample_with_and_without_batch_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.ones(shape, np.float64))
    feeds = list(open_samples(tmp_path / "a.npy", [IMAGE]))
    assert len(feeds) == (4 if len(shape) == 5 else 1)
    assert feeds[0]["x"].shape == (1, 3, 8, 8)
    assert feeds[0]["x"].dtype == np.float32


def test_a_folder_of_arrays_in_the_order_of_names(tmp_path: Path) -> None:
    for i in (2, 0, 1):
        np.save(tmp_path / f"{i}.npy", np.full((3, 8, 8), i, np.float32))
    (tmp_path / ".hidden.npy").write_text("no array")
    assert [feed["x"][0, 0, 0, 0] for feed in open_samples(tmp_path, [IMAGE])] == [0, 1, 2]


def test_two_inputs_from_npz_and_from_one_npy_each(tmp_path: Path) -> None:
    x, v = _images(3), _images(3, (4,))
    np.savez(tmp_path / "both.npz", x=x, v=v)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "x.npy", x)
    np.save(folder / "v.npy", v)
    for path in (tmp_path / "both.npz", folder):
        feeds = list(open_samples(path, [IMAGE, VECTOR]))
        assert np.array_equal(np.concatenate([f["x"] for f in feeds]), x)
        assert np.array_equal(np.concatenate([f["v"] for f in feeds]), v)


def test_two_inputs_that_do_not_fit_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=_images(3), v=_images(2, (4,)))
    assert _error(tmp_path / "a.npz", [IMAGE, VECTOR]).code == "calibration/shape"
    np.savez(tmp_path / "b.npz", x=_images(3))
    error = _error(tmp_path / "b.npz", [IMAGE, VECTOR])
    assert error.code == "calibration/inputs"
    assert "input v" in error.finding.message


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    rows = _images(7)
    np.save(tmp_path / "a.npy", rows)
    batch = TensorSpec(name="x", shape=(3, 3, 8, 8), dtype=DType.FLOAT32)
    source = open_samples(tmp_path / "a.npy", [batch])
    feeds = [feed["x"] for feed in source]
    assert len(source) == 2
    assert np.array_equal(np.concatenate(feeds), rows[:6])
    np.save(tmp_path / "b.npy", rows[:2])
    (feed,) = open_samples(tmp_path / "b.npy", [batch])
    assert np.array_equal(feed["x"], rows[[0, 1, 0]])


def test_an_input_without_a_batch_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _images(6, (49, 10)))
    spec = TensorSpec(name="x", shape=(49, 10), dtype=DType.FLOAT32)
    assert [feed["x"].shape for feed in open_samples(tmp_path / "a.npy", [spec])] == [(49, 10)] * 6
    scalar = TensorSpec(name="rate", shape=(), dtype=DType.INT64)
    np.savez(tmp_path / "b.npz", v=_images(2, (4,)), rate=np.array([8, 16]))
    feeds = list(open_samples(tmp_path / "b.npz", [VECTOR, scalar]))
    assert [(int(f["rate"]), f["rate"].shape, f["rate"].dtype.name) for f in feeds] == [
        (8, (), "int64"),
        (16, (), "int64"),
    ]


def test_nhwc_given_where_nchw_is_wanted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _images(5, (8, 9, 3)))
    error = _error(tmp_path / "a.npy", [TensorSpec(name="x", shape=(1, 3, 8, 9), dtype=DType.FLOAT32)])
    assert error.code == "calibration/shape"
    assert "(3, 8, 9)" in error.finding.message
    assert "(5, 8, 9, 3)" in error.finding.message
    assert "transpose = [2, 0, 1]" in error.finding.hint
    assert error.finding.where.endswith("a.npy")


def test_jsonl(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n\n".join(json.dumps({"v": [i, 1, 2, 3], "k": 0}) for i in range(3)) + "\n")
    assert [feed["v"].tolist() for feed in open_samples(file, [VECTOR])] == [[[i, 1, 2, 3]] for i in range(3)]
    file.write_text("[1, 2, 3, 4]\n[[5, 6, 7, 8]]\n")
    assert [feed["v"][0, 0] for feed in open_samples(file, [VECTOR])] == [1, 5]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"v": [1, 2, 3]}', "calibration/shape"),
        ('{"w": [1, 2, 3, 4]}', "calibration/inputs"),
        ('{"v": [1, 2, 3', "calibration/unreadable"),
        ('{"v": ["a", 2, 3, 4]}', "calibration/unreadable"),
        ('{"v": [[1, 2], [3]]}', "calibration/unreadable"),
    ],
)
def test_jsonl_that_is_wrong_names_the_line(tmp_path: Path, line: str, code: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n" + line + "\n")
    error = _error(file, [VECTOR])
    assert error.code == code
    assert "a.jsonl:2" in error.render()


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", _images())
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[: len(content) // 2])
    source = open_samples(tmp_path / "a.npy", [IMAGE])
    assert len(list(source)) == 2
    assert {finding.severity for finding in source.findings} == {Severity.WARNING}
    (tmp_path / "b.npy").write_bytes(b"no array at all")
    assert _error(tmp_path / "b.npy").code == "calibration/unreadable"
    (tmp_path / "c.npz").write_bytes(b"no zip at all")
    assert _error(tmp_path / "c.npz").code == "calibration/unreadable"
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert _error(tmp_path / "d.npy").code == "calibration/unreadable"


def test_nothing_there(tmp_path: Path) -> None:
    assert _error(tmp_path / "nope").code == "calibration/not-found"
    (tmp_path / "empty").mkdir()
    assert _error(tmp_path / "empty").code == "calibration/unknown-kind"
    np.save(tmp_path / "none.npy", _images(0))
    assert _error(tmp_path / "none.npy").code == "calibration/empty"
    error = _error("imagnet:somewhere")
    assert error.code == "calibration/not-found"
    assert "did you mean 'imagenet'" in error.finding.hint


def test_a_function_is_no_data(tmp_path: Path) -> None:
    """Named as `--metric` takes it, in a module or in a file that is there."""
    (tmp_path / "mine.py").write_text("def batches(): return []\n")
    for text in ("package.mine:batches", f"{tmp_path / 'mine.py'}:batches"):
        error = _error(text)
        assert error.code == "calibration/not-found"
        assert "save the samples they give as .npy or .npz" in error.finding.hint


@pytest.mark.parametrize(("total", "count"), [(10, 3), (1000, 100), (7, 7), (7, 9), (5, 1), (100, 99)])
def test_the_choice_is_spread_evenly(total: int, count: int) -> None:
    chosen = choose(total, count)
    assert len(chosen) == len(set(chosen)) == min(total, count)
    assert list(chosen) == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < total
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    if 1 < count <= total:
        assert (chosen[0], chosen[-1]) == (0, total - 1)


def test_a_seed_draws_the_same_samples_again() -> None:
    assert choose(1000, 10, seed=1) == choose(1000, 10, seed=1) != choose(1000, 10, seed=2)


def test_the_default_count(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1000, 4), np.float32))
    assert open_samples(tmp_path / "a.npy", [VECTOR]).count == DEFAULT_COUNT
    assert open_samples(tmp_path / "a.npy", [VECTOR], count=1000).count == 1000


def test_the_digest_follows_content_choice_and_inputs(tmp_path: Path) -> None:
    rows = _images(6, (4,))
    for name, data in {"a": rows, "b": rows, "c": rows + 1}.items():
        np.save(tmp_path / f"{name}.npy", data)
    a, b, c = (open_samples(tmp_path / f"{name}.npy", [VECTOR]).digest for name in "abc")
    fewer = open_samples(tmp_path / "a.npy", [VECTOR], count=3).digest
    other = open_samples(tmp_path / "a.npy", [TensorSpec(name="w", shape=(1, 4), dtype=DType.FLOAT32)]).digest
    assert a == b
    assert len({a, c, fewer, other}) == 4


@pytest.mark.parametrize("form", ["npy", "npz", "jsonl"])
def test_reading_takes_the_same_memory_for_more_samples(tmp_path: Path, form: str) -> None:
    spec = TensorSpec(name="x", shape=(1, 3, 16, 16), dtype=DType.FLOAT32)
    peaks = []
    for count in (10, 500):
        path = tmp_path / f"{count}.{form}"
        rows = np.random.default_rng(0).integers(0, 9, (count, 3, 16, 16)).astype(np.float32)
        if form == "jsonl":
            line = json.dumps({"x": rows[0].tolist()})
            path.write_text("\n".join([line] * count))
        elif form == "npz":
            np.savez_compressed(path, x=rows)
        else:
            np.save(path, rows)
        tracemalloc.start()
        assert sum(1 for _ in open_samples(path, [spec], count=count)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000


def test_quantized_features_of_the_zoo() -> None:
    file = ZOO / "kws_data" / "kws01_mfcc_int8.npz"
    if not file.exists():
        pytest.skip(f"{file.name} is not here (EDGEC_ZOO)")
    spec = TensorSpec(name="in", shape=(1, 49, 10, 1), dtype=DType.FLOAT32)
    source = open_samples(f"kws-mfcc:{file}", [spec], count=20)
    feeds = np.concatenate([feed["in"] for feed in source])
    with np.load(file) as arrays:
        wanted = (arrays["x"].astype(np.float32) - arrays["zero_point"]) * arrays["scale"]
    assert np.allclose(feeds, wanted[list(choose(1000, 20))], atol=1e-4)
    assert source.findings == ()
    (finding,) = open_samples(file, [spec], count=20).findings
    assert finding.code == "calibration/scale-unused"


def test_the_sources_own_recipe_holds_for_its_kind_of_data_alone(tmp_path: Path) -> None:
    from edgec.quantization.data.recipe import AudioSteps, InputSteps, Recipe

    spec = TensorSpec(name="x", shape=(1, 3), dtype=DType.FLOAT32)
    np.save(tmp_path / "d.npy", np.ones((2, 3), np.float32))
    usual = Recipe(reader="array", inputs={"*": InputSteps(scale=2.0)})
    (sample, _) = open_samples(tmp_path / "d.npy", [spec], usual=usual)
    assert sample["x"].max() == 2
    (tmp_path / "own.toml").write_text('data = "d.npy"\n[inputs."*"]\nscale = 3.0')
    (sample, _) = open_samples(tmp_path / "own.toml", [spec], usual=usual)
    assert sample["x"].max() == 3
    (sample, _) = open_samples(tmp_path / "d.npy", [spec], usual=Recipe(reader="audio", audio=AudioSteps()))
    assert sample["x"].max() == 1
