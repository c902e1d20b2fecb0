"""The demo finds the lines of a page, and says how two models agree."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from tools.demo import HEIGHT, WIDTH, Line, compare, lines, model_input


def page() -> Image.Image:
    """Three lines of dark strokes, 12 pixels high, on light paper."""
    image = Image.new("RGB", (200, 120), (220, 220, 220))
    draw = ImageDraw.Draw(image)
    for top in (20, 55, 90):
        for left in range(10, 190, 6):
            draw.rectangle((left, top, left + 2, top + 11), fill=(20, 20, 20))
    return image


def test_lines_are_found_and_turned() -> None:
    found = list(lines(page()))
    assert {line.number for line in found} == {0, 1, 2}
    assert sum(line.turned for line in found) * 2 == len(found)
    upright, turned = found[0], found[1]
    assert np.array_equal(np.asarray(upright.image)[::-1, ::-1], np.asarray(turned.image))


def test_empty_paper_has_no_lines() -> None:
    assert list(lines(Image.new("RGB", (200, 120), "white"))) == []


def test_model_input_is_what_the_model_takes() -> None:
    x = model_input(Line(number=0, image=Image.new("RGB", (40, 10), (255, 0, 0)), turned=False))
    assert (x.shape, x.dtype) == ((1, 3, HEIGHT, WIDTH), np.float32)
    assert x[0, :, 0, 0].tolist() == [-1.0, -1.0, 1.0], "blue, green, red"


def test_comparison() -> None:
    image = Image.new("RGB", (4, 1))
    test = [Line(number=0, image=image, turned=turned) for turned in (False, True, False, True)]
    told = compare(test, np.array([0.1, 0.9, 0.1, 0.1]), np.array([0.1, 0.9, 0.9, 0.9]))
    assert told["float_model_is_right_share"] == 0.75
    assert told["bundle_is_right_share"] == 0.75
    assert told["both_agree_share"] == 0.5
