"""Images and audio: geometry, colours, values, damage, and rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError, Severity
from edgec.quantization.data.samples import open_samples
from edgec.tensors import Array, DType, TensorSpec

Image = pytest.importorskip("PIL.Image")

NCHW = TensorSpec(name="x", shape=(1, 3, 16, 16), dtype=DType.FLOAT32)


def _spec(*shape: int, dtype: DType = DType.FLOAT32) -> TensorSpec:
    return TensorSpec(name="x", shape=shape, dtype=dtype)


def _folder(tmp_path: Path, count: int = 2, size: tuple[int, int] = (40, 20)) -> Path:
    """Left half red, right half blue; `size` is (width, height)."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(count):
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        pixels[:, : size[0] // 2, 0] = 255
        pixels[:, size[0] // 2 :, 2] = 200
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def _recipe(tmp_path: Path, text: str) -> str:
    (tmp_path / "r.toml").write_text('data = "images"\n' + text)
    return str(tmp_path / "r.toml")


def _first(path: Path | str, spec: TensorSpec = NCHW) -> Array:
    return next(iter(open_samples(path, [spec])))[spec.name]


def test_the_default_is_announced(tmp_path: Path) -> None:
    source = open_samples(_folder(tmp_path), [NCHW])
    (finding,) = source.findings
    assert finding.code == "calibration/image-defaults"
    assert finding.severity is Severity.INFO
    assert "16×16" in finding.message
    assert "0..1" in finding.message
    x = next(iter(source))["x"]
    assert x.shape == (1, 3, 16, 16)
    assert x[0, :, 8, 0].tolist() == [1.0, 0.0, 0.0]
    assert x[0, 2, 8, 15] == pytest.approx(200 / 255, abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (_spec(1, 16, 16, 3), (1, 16, 16, 3)),
        (_spec(1, 1, 12, 10), (1, 1, 12, 10)),
        (_spec(1, 12, 10, 1), (1, 12, 10, 1)),
        (_spec(1, 12, 10), (1, 12, 10)),
        (_spec(2, 3, 12, 10), (2, 3, 12, 10)),
    ],
)
def test_layout_and_colour_follow_the_input(tmp_path: Path, spec: TensorSpec, shape: tuple[int, ...]) -> None:
    assert _first(_folder(tmp_path), spec).shape == shape


def test_uint8_inputs_take_pixels(tmp_path: Path) -> None:
    x = _first(_folder(tmp_path), _spec(1, 3, 16, 16, dtype=DType.UINT8))
    assert x.dtype == np.uint8
    assert x.max() == 255


def test_modes_of_resizing(tmp_path: Path) -> None:
    _folder(tmp_path)
    modes = {
        mode: _first(_recipe(tmp_path, f'[inputs.x]\nresize = {{ mode = "{mode}", crop = 1.0, filter = "nearest" }}\n'))
        for mode in ("stretch", "center-crop", "letterbox")
    }
    stretch, crop, box = modes["stretch"][0], modes["center-crop"][0], modes["letterbox"][0]
    assert (stretch[0, :, :8] == 255).all()
    assert (stretch[2, :, 8:] == 200).all()
    assert (crop[0, :, :8] == 255).all()
    assert (box[:, :4] == 114).all()  # a 40×20 image on a square canvas
    assert (box[:, 12:] == 114).all()
    assert (box[0, 4:12, :8] == 255).all()


def test_a_crop_keeps_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[8:24, 8:24] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    text = '[inputs.x]\nresize = { crop = 0.5, filter = "nearest" }\n'
    assert (_first(_recipe(tmp_path, text)) == 255).all()


def test_colour_order_and_normalisation(tmp_path: Path) -> None:
    _folder(tmp_path)
    text = '[inputs."*"]\ncolor = "bgr"\nscale = 0.00392156862745098\nmean = [0.1, 0.2, 0.3]\nstd = [0.5, 0.5, 0.25]\n'
    x = _first(_recipe(tmp_path, text))
    assert x[0, :, 8, 0] == pytest.approx([(0 - 0.1) / 0.5, (0 - 0.2) / 0.5, (1 - 0.3) / 0.25], abs=1e-5)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "webp"])
def test_other_formats_and_modes(tmp_path: Path, suffix: str) -> None:
    folder = _folder(tmp_path, count=1)
    with Image.open(folder / "0.png") as image:
        image.save(folder / f"1.{suffix}")
        image.convert("RGBA").save(folder / "2.png")
        image.convert("L").save(folder / "3.png")
        image.convert("P").save(folder / "4.png")
    Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(folder / "5.png")
    feeds = [feed["x"] for feed in open_samples(folder, [NCHW])]
    assert len(feeds) == 6
    assert feeds[5].min() == 1.0  # 16-bit white stays white


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path) -> None:
    folder = _folder(tmp_path, count=3)
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(content[:60])
    source = open_samples(folder, [NCHW])
    assert len(list(source)) == 2
    (finding,) = (f for f in source.findings if f.code == "calibration/unreadable")
    assert finding.where.endswith("1.png")
    assert finding.severity is Severity.WARNING
    for file in folder.iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(EdgecError, match="none of the 3 samples") as caught:
        list(open_samples(folder, [NCHW]))
    assert caught.value.code == "calibration/unreadable"


def test_images_for_what_takes_none(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    for inputs in ([_spec(1, 10)], [NCHW, TensorSpec(name="other", shape=(1, 2), dtype=DType.FLOAT32)]):
        with pytest.raises(EdgecError) as caught:
            open_samples(folder, inputs)
        assert caught.value.code == "calibration/inputs"


def test_a_recipe_gives_the_second_input_as_a_constant(tmp_path: Path) -> None:
    _folder(tmp_path)
    other = TensorSpec(name="other", shape=(1, 2), dtype=DType.FLOAT32)
    path = _recipe(tmp_path, "[inputs.other]\nconstant = [16.0, 32.0]\n")
    feeds = list(open_samples(path, [NCHW, other]))
    assert feeds[1]["other"].tolist() == [[16.0, 32.0]]
    assert feeds[1]["x"].max() == 1.0


def test_pillow_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(EdgecError) as caught:
        open_samples(folder, [NCHW])
    assert caught.value.code == "env/missing-extra"
    assert "pip install 'edgec[image]'" in caught.value.finding.hint


def _tone(path: Path, *, rate: int, seconds: float, hertz: float = 440.0, channels: int = 1) -> None:
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(int(rate * seconds)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time).astype(np.float32)
    soundfile.write(path, np.repeat(wave[:, None], channels, axis=1), rate, subtype="FLOAT")


@pytest.mark.parametrize("shape", [(1, 4000), (1, 1, 4000), (1, 4000, 1)])
def test_audio_is_cut_into_windows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    _tone(tmp_path / "a.wav", rate=8000, seconds=1.0, channels=2)
    _tone(tmp_path / "b.wav", rate=8000, seconds=0.25)
    source = open_samples(tmp_path, [_spec(*shape)])
    feeds = [feed["x"] for feed in source]
    assert [feed.shape for feed in feeds] == [shape] * 3
    assert np.abs(feeds[2].ravel()[2000:]).max() == 0.0  # padded with silence
    assert "8000 Hz" in source.findings[0].message


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_resampling_keeps_the_tone(tmp_path: Path, rate: int) -> None:
    _tone(tmp_path / "a.wav", rate=rate, seconds=1.0)
    (tmp_path / "r.toml").write_text('data = "a.wav"\n[audio]\nsample_rate = 16000\nhop = 4000\n')
    feeds = [feed["x"].ravel() for feed in open_samples(tmp_path / "r.toml", [_spec(1, 8000)])]
    assert len(feeds) == 3
    time = np.arange(16000) / 16000
    wanted = 0.5 * np.sin(2 * np.pi * 440 * time)
    for i, feed in enumerate(feeds):
        inner = slice(200, 7800)  # the file's ends ring
        assert np.abs(feed[inner] - wanted[i * 4000 :][inner]).max() < 0.01


def test_resampling_down_removes_what_would_alias(tmp_path: Path) -> None:
    _tone(tmp_path / "a.wav", rate=48000, seconds=1.0, hertz=12000.0)
    (tmp_path / "r.toml").write_text('data = "a.wav"\n[audio]\nsample_rate = 16000\n')
    feed = next(iter(open_samples(tmp_path / "r.toml", [_spec(1, 8000)])))["x"]
    assert np.abs(feed[0, 200:7800]).max() < 0.01


def test_normalized_audio(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    wave = (0.3 + 0.1 * np.sin(np.arange(800))).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", np.zeros(800, np.float32), 16000, subtype="FLOAT")
    (tmp_path / "r.toml").write_text('data = "."\nreader = "audio"\n[audio]\nsample_rate = 16000\nnormalize = true\n')

    loud, silent = open_samples(tmp_path / "r.toml", [_spec(1, 800)])
    assert abs(loud["x"].mean()) < 1e-5
    assert abs(loud["x"].std() - 1) < 1e-4
    assert not silent["x"].any()


def test_audio_for_what_takes_none(tmp_path: Path) -> None:
    _tone(tmp_path / "a.wav", rate=8000, seconds=0.1)
    with pytest.raises(EdgecError) as caught:
        open_samples(tmp_path, [_spec(1, 49, 10)])
    assert caught.value.code == "calibration/inputs"
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with pytest.raises(EdgecError) as caught:
        open_samples(tmp_path, [_spec(1, 100)])
    assert caught.value.code == "calibration/unreadable"
