"""Each rule of the data doctor, where it must speak and where it must not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec.errors import Finding
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.quantization.calibration.calibrate import calibrate
from edgec.quantization.calibration.doctor import examine
from edgec.quantization.data.samples import open_samples
from edgec.tensors import Array
from tests.support.calibration import InMemory, smooth_images
from tests.support.graphs import graph

ZOO = Path(os.environ.get("EDGEC_ZOO", Path(__file__).parents[4] / "shared" / "zoo"))
PIXELS = smooth_images(8, 48, 64)


def _net(text: str = "f = Identity(x)", *, gain: float = 1.0, nhwc: bool = False, **constants: Array) -> Model:
    """A network whose first layer, like a trained one's, responds to −1..1 about as strongly as its biases are.

    `gain` divides the weights: with 128 it wants pixels.
    """
    rng = np.random.default_rng(3)
    shape = "1,48,64,3" if nhwc else "1,3,48,64"
    feed = "t = Transpose<perm = [0,3,1,2]>(f)" if nhwc else "t = Identity(f)"
    body = f"(float[{shape}] x) => (float[1,8,46,62] y) {{ {text}  {feed}  c = Conv(t, w, b)  y = Relu(c) }}"
    weight = (rng.standard_normal((8, 3, 3, 3)) * 0.3 / gain).astype(np.float32)
    bias = rng.standard_normal(8).astype(np.float32)
    return graph(body, constants={"w": weight, "b": bias, **constants})


def _examine(model: Model, images: Array, change: Callable[[Array], Array] = lambda x: x) -> list[str]:
    return [finding.code for finding in _findings(model, images, change)]


def _findings(model: Model, images: Array, change: Callable[[Array], Array] = lambda x: x) -> tuple[Finding, ...]:
    return examine(model, InMemory([{"x": change(image[None]).astype(np.float32)} for image in images]))


def to_unit(x: Array) -> Array:
    return x / 255


def to_sym(x: Array) -> Array:
    return (x - 127) / 128


def imagenet(x: Array) -> Array:
    mean, std = (np.reshape(v, (3, 1, 1)) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return np.asarray((x / 255 - mean) / std)


@pytest.mark.parametrize("right", [to_unit, to_sym, imagenet])
def test_right_values_give_no_warning(right: Callable[[Array], Array]) -> None:
    assert _examine(_net(), PIXELS, right) == []


def test_pixels_for_a_model_that_wants_small_values() -> None:
    (finding,) = _findings(_net(), PIXELS)
    assert finding.code == "calibration/value-range"
    assert "too large" in finding.message
    assert "times as much as its biases" in finding.message  # the evidence
    assert finding.where == "x"


def test_small_values_for_a_model_that_wants_pixels() -> None:
    model = _net(gain=128)
    assert _examine(model, PIXELS) == []
    (finding,) = _findings(model, PIXELS, to_unit)
    assert finding.code == "calibration/value-range"
    assert "too small" in finding.message
    assert "raw-255" in finding.hint


def test_values_divided_by_255_twice() -> None:
    (finding,) = _findings(_net(), PIXELS, lambda x: x / 255 / 255)
    assert finding.code == "calibration/value-range" and "too small" in finding.message
    assert "0..1 or normalised" in finding.hint


def test_no_bias_no_verdict() -> None:
    model = graph("(float[1,3,48,64] x) => (float[1,8,46,62] y) { y = Conv(x, w) }",
                  constants={"w": np.ones((8, 3, 3, 3), np.float32)})  # fmt: skip
    assert _examine(model, PIXELS) == []
    assert _examine(model, PIXELS, to_unit) == []


NORMALISE = "s = Sub(x, mean)  f = Div(s, std)"
CENTRE = np.array(127.5, np.float32)


def test_normalised_twice_by_pixels_model() -> None:
    model = _net(NORMALISE, mean=CENTRE, std=CENTRE)
    assert _examine(model, PIXELS) == []
    for change in (to_unit, to_sym, imagenet):
        (finding,) = _findings(model, PIXELS, change)
        assert finding.code == "calibration/normalised-twice"
        assert "Sub, Div" in finding.message
        assert "0 to 255 become -1 to 1" in finding.message


def test_normalised_twice_by_mean_and_std() -> None:
    shape = (1, 3, 1, 1)
    model = _net(
        NORMALISE,
        mean=np.array([0.485, 0.456, 0.406], np.float32).reshape(shape),
        std=np.array([0.229, 0.224, 0.225], np.float32).reshape(shape),
    )
    assert _examine(model, PIXELS, to_unit) == []
    assert _examine(model, PIXELS, imagenet) == ["calibration/normalised-twice"]
    assert _examine(model, PIXELS) == ["calibration/value-range"]


def test_a_scale_alone_is_no_normalisation() -> None:
    model = _net("f = Mul(x, k)", k=np.array(1.0, np.float32))
    assert _examine(model, PIXELS, imagenet) == []


def test_interleaved_channels_for_nchw() -> None:
    def reshaped(x: Array) -> Array:
        return to_sym(x.transpose(0, 2, 3, 1).reshape(x.shape))

    (finding,) = _findings(_net(), PIXELS, reshaped)
    assert finding.code == "calibration/layout"
    assert "NHWC data for NCHW" in finding.message


def test_planes_for_nhwc() -> None:
    model = _net(nhwc=True)
    assert _examine(model, PIXELS, lambda x: to_sym(x.transpose(0, 2, 3, 1))) == []
    (finding,) = _findings(model, PIXELS, lambda x: to_sym(x.reshape(1, 48, 64, 3)))
    assert "NCHW data for NHWC" in finding.message


@pytest.mark.parametrize("nhwc", [False, True])
def test_grey_pictures_and_noise_have_no_wrong_layout(nhwc: bool) -> None:
    order = (0, 2, 3, 1) if nhwc else (0, 1, 2, 3)
    grey = np.repeat(PIXELS[:, :1], 3, axis=1)
    noise = np.random.default_rng(0).uniform(0, 255, PIXELS.shape)
    for images in (grey, noise):
        assert _examine(_net(nhwc=nhwc), images, lambda x: to_sym(x.transpose(order))) == []


def test_constant_inputs() -> None:
    (finding,) = _findings(_net(), PIXELS, lambda x: np.full_like(x, 0.25))
    assert finding.code == "calibration/constant-input"
    assert "always 0.25" in finding.message
    same = np.repeat(PIXELS[:1], 8, axis=0)
    (finding,) = _findings(_net(), same, to_sym)
    assert "all the same" in finding.message


def test_a_small_input_may_be_constant() -> None:
    model = graph("(float[1,8] x, float[1] rate) => (float[1,8] y) { y = Mul(x, rate) }")
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.standard_normal((1, 8)).astype(np.float32), "rate": np.ones(1, np.float32)} for _ in range(4)]
    assert examine(model, InMemory(feeds)) == ()


def _codes(feeds: list[dict[str, Array]], folder: Path) -> list[str]:
    return [finding.code for finding in calibrate(_net(), InMemory(feeds), cache_dir=folder).findings]


def test_too_few_samples(tmp_path: Path) -> None:
    feeds = [{"x": to_sym(image[None]).astype(np.float32)} for image in smooth_images(40, 48, 64)]
    assert _codes(feeds, tmp_path) == []
    assert _codes(feeds[:1], tmp_path) == ["calibration/few-samples"]
    uneven = [feeds[0], {"x": feeds[1]["x"] * 0.2}, feeds[2], {"x": feeds[3]["x"] * 0.2}]
    assert _codes(uneven, tmp_path) == ["calibration/few-samples"]


def test_who_gave_the_usual_number_is_not_told_it(tmp_path: Path) -> None:
    first = to_sym(smooth_images(1, 48, 64)).astype(np.float32)
    hints = {}
    for count in (20, 100):
        feeds = [{"x": first * (0.2 if i % 2 else 1)} for i in range(count)]
        found = calibrate(_net(), InMemory(feeds), cache_dir=tmp_path).findings
        hints[count] = next(f.hint for f in found if f.code == "calibration/few-samples")
    assert "100 are usual" in hints[20] and "usual" not in hints[100] and "more varied" in hints[100]


@pytest.mark.parametrize(("recipe", "codes"), [("imagenet-tf", []), ("raw-255", ["calibration/value-range"])])
def test_a_trained_model_and_real_pictures(recipe: str, codes: list[str]) -> None:
    pytest.importorskip("PIL.Image")
    file = ZOO / "efficientnet_lite0" / "efficientnet_lite0_imagenet.onnx"
    if not file.exists():
        pytest.skip(f"{file.name} is not here (EDGEC_ZOO)")
    model = canonicalize(load_source(file, inputs=None).model)
    found = examine(model, open_samples(f"{recipe}:{ZOO / 'images'}", model.inputs()))
    assert [finding.code for finding in found] == codes
