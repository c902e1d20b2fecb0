"""Photographs: the bundle's own resize is told from another one, from another filter, and from no recipe at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgec.pipeline import run_build
from edgec.pipeline.prove import Wishes, run_validate
from tests.support.applications import pixels
from tests.support.small_net import small_net

pytest.importorskip("PIL", reason="needs Pillow: pip install 'edgec[image]'")

RECIPE = """reader = "image"
[inputs."*"]
resize = { mode = "center-crop", crop = 0.875, filter = "bilinear" }
scale = 0.00392156862745098
"""
APP = """import numpy as np
from PIL import Image

def preprocess(path):
    picture = Image.open(path).convert("RGB")
    if {fault!r} == "stretch":
        picture = picture.resize((16, 16), Image.Resampling.BILINEAR)
    else:
        kind = Image.Resampling.BICUBIC if {fault!r} == "filter" else Image.Resampling.BILINEAR
        picture = picture.resize((27, 18), kind).crop((5, 1, 21, 17))
    return (np.asarray(picture, np.float32) / 255)[None]
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that records how pictures are prepared, one that was calibrated with nothing and says nothing."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    (folder / "photos").mkdir()
    for i, picture in enumerate(pixels(4, size=48)):
        # Smooth as photographs are, and 48 × 32: of another shape than the model's input.
        image = Image.fromarray(picture).resize((24, 16), Image.Resampling.BICUBIC)
        image.resize((48, 32), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.png")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "net.onnx").write_bytes(small_net().to_bytes())
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        for name, data in (("told", f"{folder / 'recipe.toml'}:{folder / 'photos'}"), ("silent", None)):
            result = run_build(
                folder / "net.onnx", target="raspberrypi4", precision="float32", calibration=data, output=folder / name
            )
            assert result.path is not None
            found[name] = Path(result.path)
    return found


def judged(bundle: Path, folder: Path, fault: str, data: str | None = None) -> dict[str, Any]:
    (folder / "app.py").write_text(APP.format(fault=fault))
    photos = data or str(bundle.parents[1] / "photos")
    return run_validate(bundle, wishes=Wishes(app=folder / "app.py", data=photos, runs=0))


def test_the_same_resize_is_right(bundles: dict[str, Path], tmp_path: Path) -> None:
    answer = judged(bundles["told"], tmp_path, "")
    assert [stage["passed"] for stage in answer["stages"]] == [True, True, None]
    assert answer["stages"][2]["why"] == "the application wrote no answers with their outputs"


def test_a_stretched_picture_is_named(bundles: dict[str, Path], tmp_path: Path) -> None:
    answer = judged(bundles["told"], tmp_path, "stretch")
    assert answer["guilty"] == ["preprocessing"]
    assert answer["stages"][0]["why"] == "the picture is stretched to the model's size"


def test_another_filter_is_no_fault(bundles: dict[str, Path], tmp_path: Path) -> None:
    answer = judged(bundles["told"], tmp_path, "filter")
    assert answer["passed"]
    assert answer["stages"][0]["passed"] is True


def test_without_a_recipe_preprocessing_is_not_judged(bundles: dict[str, Path], tmp_path: Path) -> None:
    answer = judged(bundles["silent"], tmp_path, "stretch", str(bundles["told"].parents[1] / "photos"))
    assert answer["stages"][0]["passed"] is None
    assert "--data imagenet:FOLDER" in answer["stages"][0]["why"]
    folder = bundles["told"].parents[1]
    given = judged(bundles["silent"], tmp_path, "stretch", f"{folder / 'recipe.toml'}:{folder / 'photos'}")
    assert given["guilty"] == ["preprocessing"]
