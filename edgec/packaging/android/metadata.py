"""TFLite Metadata: what Android's task library and Android Studio read from a model, written with flatbuffers.

The tables and their field numbers are those of metadata_schema.fbs of TensorFlow Lite Support (file identifier M001).
Labels travel as a zip of one stored file behind the model, which is where that schema puts associated files.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flatbuffers

ENTRY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
#: The lowest parser that knows every field written here.
_PARSER = "1.0.0"
_RGB, _GRAY = 1, 2
_AXIS_LABELS = 2
_IMAGE, _FEATURE = 2, 1
_NORMALIZATION = 1
_MADE_AT = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFacts:
    """One input or output. `size` is (height, width) of an image; `mean` and `std` normalise it: (x − mean) / std."""

    name: str
    description: str = ""
    size: tuple[int, int] | None = None
    gray: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    labels: bool = False


def metadata_bytes(name: str, description: str, inputs: Sequence[TensorFacts], outputs: Sequence[TensorFacts]) -> bytes:
    """The root table of a model's metadata."""
    b = flatbuffers.Builder(1024)
    given, made = ([_tensor(b, facts) for facts in facts_] for facts_ in (inputs, outputs))
    graph = _table(b, 10, {2: _ref(_vector(b, given)), 3: _ref(_vector(b, made))})
    text = {key: _ref(b.CreateString(value)) for key, value in ((0, name), (1, description), (7, _PARSER))}
    root = _table(b, 8, {**text, 3: _ref(_vector(b, [graph]))})
    b.Finish(root, file_identifier=b"M001")
    return bytes(b.Output())


def associated_files(files: dict[str, bytes]) -> bytes:
    """The zip that stands behind the model; the same bytes every time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, date_time=_MADE_AT)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return stream.getvalue()


Slot = Callable[[flatbuffers.Builder, int], None]


def _table(b: flatbuffers.Builder, fields: int, slots: dict[int, Slot]) -> int:
    b.StartObject(fields)
    for number, put in sorted(slots.items()):
        put(b, number)
    return int(b.EndObject())


def _ref(offset: int) -> Slot:
    return lambda b, number: b.PrependUOffsetTRelativeSlot(number, offset, 0)


def _byte(value: int) -> Slot:
    return lambda b, number: b.PrependInt8Slot(number, value, 0)


def _kind(value: int) -> Slot:
    """The kind of a union."""
    return lambda b, number: b.PrependUint8Slot(number, value, 0)


def _uint(value: int) -> Slot:
    return lambda b, number: b.PrependUint32Slot(number, value, 0)


def _vector(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _floats(b: flatbuffers.Builder, values: Sequence[float]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependFloat32(value)
    return int(b.EndVector())


def _tensor(b: flatbuffers.Builder, facts: TensorFacts) -> int:
    slots = {0: _ref(b.CreateString(facts.name)), 1: _ref(b.CreateString(facts.description))}
    slots[3] = _ref(_content(b, facts))
    if facts.mean:
        options = _table(b, 2, {0: _ref(_floats(b, facts.mean)), 1: _ref(_floats(b, facts.std))})
        unit = _table(b, 2, {0: _kind(_NORMALIZATION), 1: _ref(options)})
        slots[4] = _ref(_vector(b, [unit]))
    if facts.low is not None and facts.high is not None:
        slots[5] = _ref(_table(b, 2, {0: _ref(_floats(b, [facts.high])), 1: _ref(_floats(b, [facts.low]))}))
    if facts.labels:
        name, text = b.CreateString(LABELS_FILE), b.CreateString("one class a line, in the order of the scores")
        file = _table(b, 5, {0: _ref(name), 1: _ref(text), 2: _byte(_AXIS_LABELS)})
        slots[6] = _ref(_vector(b, [file]))
    return _table(b, 7, slots)


def _content(b: flatbuffers.Builder, facts: TensorFacts) -> int:
    if facts.size is None:
        return _table(b, 3, {0: _kind(_FEATURE), 1: _ref(_table(b, 0, {}))})
    height, width = facts.size
    size = _table(b, 2, {0: _uint(width), 1: _uint(height)})
    image = _table(b, 2, {0: _byte(_GRAY if facts.gray else _RGB), 1: _ref(size)})
    return _table(b, 3, {0: _kind(_IMAGE), 1: _ref(image)})
