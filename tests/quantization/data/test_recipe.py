"""Recipes: the shipped ones are right, and a mistake is named by its key path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.quantization.data.recipe import load_recipe, shipped_recipes
from edgec.quantization.data.samples import open_samples
from edgec.tensors import DType, TensorSpec

SPEC = TensorSpec(name="x", shape=(1, 3, 8, 8), dtype=DType.FLOAT32)

#: What black and white pixels become.
ENDS = {
    "imagenet": ((-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.6400)),
    "imagenet-tf": ((-0.9922,) * 3, (1.0,) * 3),
    "zero-one": ((0.0,) * 3, (1.0,) * 3),
    "minus-one-one": ((-1.0,) * 3, (1.0,) * 3),
    "raw-255": ((0.0,) * 3, (255.0,) * 3),
    "ocr": ((-1.0,) * 3, (1.0,) * 3),
    "yolo": ((0.0,) * 3, (1.0,) * 3),
}


@pytest.mark.parametrize("name", sorted(ENDS))
def test_shipped_image_recipes(tmp_path: Path, name: str) -> None:
    image = pytest.importorskip("PIL.Image")
    for i, value in enumerate((0, 255)):
        image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{i}.png")
    source = open_samples(f"{name}:{tmp_path}", [SPEC])
    assert source.findings == ()
    for feed, wanted in zip(source, ENDS[name], strict=True):
        assert feed["x"][0, :, 4, 4] == pytest.approx(wanted, abs=1e-3)


def test_every_shipped_recipe_loads_and_says_what_it_is() -> None:
    recipes = shipped_recipes()
    assert set(ENDS) | {"kws-mfcc", "audio-waveform"} <= set(recipes)
    for path in recipes.values():
        recipe = load_recipe(path)
        assert recipe.description
        assert recipe.reader


def _error(tmp_path: Path, text: str) -> EdgecError:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(EdgecError) as caught:
        load_recipe(tmp_path / "r.toml")
    assert caught.value.code == "calibration/recipe"
    assert caught.value.finding.where.endswith("r.toml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "near"),
    [
        ("cuont = 3", "cuont", "count"),
        ("[audio]\nrate = 3", "audio.rate", "sample_rate"),
        ("[inputs.x]\nmeen = [1.0]", "inputs.x.meen", "mean"),
        ("[inputs.x.resize]\nmod = 'stretch'", "inputs.x.resize.mod", "mode"),
    ],
)
def test_an_unknown_key_has_its_path_and_the_nearest_name(tmp_path: Path, text: str, path: str, near: str) -> None:
    error = _error(tmp_path, text)
    assert f"{path}: " in error.finding.message
    assert near in error.finding.hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("count = 0", "count"),
        ("reader = 'picture'", "reader"),
        ("[inputs.x]\nstd = [0.0]", "inputs.x.std.0"),
        ("[inputs.x.resize]\ncrop = 1.5", "inputs.x.resize.crop"),
        ("count = ", "TOML"),
    ],
)
def test_a_wrong_value_has_its_path(tmp_path: Path, text: str, path: str) -> None:
    assert path in _error(tmp_path, text).finding.message


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    message = _error(tmp_path, "cuont = 3\nreader = 'picture'").finding.message
    assert "cuont" in message
    assert "reader" in message


def test_where_the_data_is(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((4, 3, 8, 8), np.float32))
    recipe = tmp_path / "r.toml"
    recipe.write_text("count = 2")
    with pytest.raises(EdgecError) as caught:
        open_samples(recipe, [SPEC])
    assert caught.value.code == "calibration/no-data"
    assert open_samples(f"{recipe}:{tmp_path / 'd.npy'}", [SPEC]).count == 2
    recipe.write_text('data = "d.npy"\ncount = 3\nseed = 7')
    assert open_samples(recipe, [SPEC]).count == 3
    assert open_samples(recipe, [SPEC], count=1).count == 1
    recipe.write_text('data = "nope"')
    with pytest.raises(EdgecError) as caught:
        open_samples(recipe, [SPEC])
    assert caught.value.code == "calibration/not-found"


def test_a_table_for_an_input_that_the_model_lacks(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('data = "."\n[inputs.xx]\nscale = 2.0')
    with pytest.raises(EdgecError) as caught:
        open_samples(tmp_path / "r.toml", [SPEC])
    assert "inputs.xx" in caught.value.finding.message
    assert "did you mean 'x'" in caught.value.finding.hint


def test_steps_on_arrays(tmp_path: Path) -> None:
    data = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    np.savez(tmp_path / "d.npz", pixels=data, other=np.zeros((2, 9)))
    (tmp_path / "r.toml").write_text(
        'data = "d.npz"\n[inputs.x]\nkey = "pixels"\ntranspose = [2, 0, 1]\n'
        "scale = 0.5\nmean = [1.0, 2.0, 3.0]\nstd = [2.0]"
    )
    feeds = np.concatenate([feed["x"] for feed in open_samples(tmp_path / "r.toml", [SPEC])])
    wanted = (data.transpose(0, 3, 1, 2) * 0.5 - np.reshape([1, 2, 3], (1, 3, 1, 1))) / 2
    assert np.allclose(feeds, wanted, atol=1e-6)


def test_dequantize_needs_a_scale(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3, 8, 8), np.int8))
    (tmp_path / "r.toml").write_text('data = "d.npz"\n[inputs.x]\ndequantize = true')
    with pytest.raises(EdgecError) as caught:
        list(open_samples(tmp_path / "r.toml", [SPEC]))
    assert caught.value.code == "calibration/recipe"
    np.savez(tmp_path / "d.npz", x=np.full((2, 3, 8, 8), 5, np.int8), scale=np.float32(0.5), zero_point=np.int32(3))
    feed = next(iter(open_samples(tmp_path / "r.toml", [SPEC])))["x"]
    assert (feed == 1.0).all()
