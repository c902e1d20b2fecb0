"""As many samples of a row as a timing asks for, without its model: more than the table's own calibration has.

No sample comes twice; where the row's data has fewer, they are all there are. Nothing is held out: they only calibrate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgec.quantization.data.samples import open_samples
from edgec.tensors import TensorSpec
from tools.acceptance import CASES, find_data
from tools.accuracy_nets import NETS, pictures, speech
from tools.accuracy_rows import Feeds, clips, digits, faces, lines, sentences, tokens
from tools.accuracy_samples import crops
from tools.accuracy_trained import TRAINED_ROWS, held_out
from tools.accuracy_unseen import UNSEEN_SAMPLES
from tools.accuracy_wheels import TRAINED, animals, files

Specs = Sequence[TensorSpec]
_SPEECH_S, _ALL_SPEECH_S = 8.0, 1300.0  # a sample's seconds in the table, and all there are


def _distinct(count: int) -> list[str]:
    return list(dict.fromkeys(sentences(2 * count)))[:count]


def _of_net(name: str) -> Callable[[int, Specs], Feeds]:
    net = NETS[name]
    if net.part:
        return lambda count, _: speech(count, min(_SPEECH_S, _ALL_SPEECH_S / count))
    return lambda count, _: pictures(net.side, count)


def _of_unseen(name: str) -> Callable[[int, Specs], Feeds]:
    return lambda count, _: UNSEEN_SAMPLES[name](count)


def _of_case(name: str) -> Callable[[int, Specs], Feeds]:
    case = next(case for case in CASES if case.name == name)

    def make(count: int, specs: Specs) -> Feeds:
        with tempfile.TemporaryDirectory() as scratch:
            made = case.calibration.startswith("imagenet")
            data = f"{case.calibration}:{crops(count)}" if made else find_data(case.calibration, Path(scratch), count)
            return list(open_samples(data, specs, count=count))

    return make


_MORE: dict[str, Callable[[int, Specs], Feeds]] = {
    "kws_dscnn": lambda *_: clips()[0],
    "mnist_lstm": lambda count, _: digits(count)[0],
    "mtcnn_rnet": lambda *_: faces(24)[0],
    "mtcnn_onet": lambda *_: faces(48)[0],
    "ocr_rec": lambda count, _: lines(count),
    "minilm": lambda count, specs: tokens(_distinct(count), specs),
    "animal_mnist": lambda *_: [{"x": row[None]} for row in animals()[0][TRAINED:]],
    "magika": lambda _, specs: files(specs[0])[0],
    "yolo": lambda count, _: pictures(320, count),
    **{name: lambda *_: held_out() for name in TRAINED_ROWS},
    **{case.name: _of_case(case.name) for case in CASES},
    **{name: _of_unseen(name) for name in UNSEEN_SAMPLES},
    **{name: _of_net(name) for name in NETS},
}


def more(name: str, count: int, specs: Specs) -> Feeds:
    """At most `count` samples of a row, under the names of its model's inputs, spread over all that its data has."""
    feeds = _MORE[name](count, specs)
    places = np.linspace(0, len(feeds) - 1, min(count, len(feeds))).astype(int)
    chosen = [feeds[i] for i in places]
    return [{specs[0].name: next(iter(feed.values()))} for feed in chosen] if len(specs) == 1 else chosen
