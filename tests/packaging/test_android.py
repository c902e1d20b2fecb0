"""Android: metadata that the schema's readers find, labels behind the model, the same outputs as without."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as fb

from edgec.backends.tflite.backend import MODEL_FILE
from edgec.backends.tflite.metadata import add_metadata
from edgec.errors import EdgecError
from edgec.packaging.android.metadata import ENTRY, TensorFacts, associated_files, metadata_bytes
from edgec.pipeline import run_build
from edgec.pipeline.io_facts import read_labels
from tests.support.micro_nets import write_micro_net
from tests.support.random_graphs import random_model
from tests.support.tflite import emit, run_raw

RECIPE = """
reader = "array"
data = "resnet8.npy"
[inputs."*"]
scale = 0.5
mean = [0.5, 0.25, 0.125]
std = [0.25, 0.5, 1.0]
"""


class _Table:
    """A table read by field numbers alone, as any reader of the schema does."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self.table = flatbuffers.table.Table(bytearray(buffer), position)
        self.buffer = buffer

    @classmethod
    def root(cls, buffer: bytes) -> _Table:
        assert buffer[4:8] == b"M001"
        return cls(buffer, int.from_bytes(buffer[:4], "little"))

    def _at(self, field: int) -> int:
        return int(self.table.Offset(4 + 2 * field))

    def text(self, field: int) -> str:
        return str(self.table.String(self._at(field) + self.table.Pos).decode())

    def number(self, field: int, kind: type) -> int:
        offset = self._at(field)
        return int(self.table.Get(kind, self.table.Pos + offset)) if offset else 0

    def sub(self, field: int) -> _Table:
        return _Table(self.buffer, int(self.table.Indirect(self.table.Pos + self._at(field))))

    def subs(self, field: int) -> list[_Table]:
        if not self._at(field):
            return []
        start, count = self.table.Vector(self._at(field)), self.table.VectorLen(self._at(field))
        return [_Table(self.buffer, int(self.table.Indirect(start + 4 * i))) for i in range(count)]

    def floats(self, field: int) -> list[float]:
        start, count = self.table.Vector(self._at(field)), self.table.VectorLen(self._at(field))
        return [float(v) for v in np.frombuffer(self.buffer, "<f4", count, start)]


UINT8, UINT32 = flatbuffers.number_types.Uint8Flags, flatbuffers.number_types.Uint32Flags


@pytest.fixture
def built(tmp_path: Path) -> dict[str, bytes]:
    """The files of an Android bundle with labels and a recipe."""
    model, _ = write_micro_net(tmp_path, "resnet8")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "labels.txt").write_text("".join(f"class {i}\n" for i in range(10)))
    result = run_build(
        model,
        target="android-arm64",
        precision="int8",
        effort="fast",
        calibration=tmp_path / "recipe.toml",
        labels=tmp_path / "labels.txt",
        output=tmp_path,
    )
    assert result.summary["validation"]["passed"]
    assert result.bundle is not None
    with result.bundle as bundle:
        assert bundle.manifest.labels[9] == "class 9"
        assert bundle.manifest.preprocessing["kind"] == "array"
        return {name: bundle.read(name) for name in bundle.names}


def _entry(model: bytes, name: str) -> bytes:
    tree = fb.ModelT.InitFromPackedBuf(model, 0)
    entry = next(m for m in tree.metadata if m.name == name.encode())
    return bytes(tree.buffers[entry.buffer].data)


def test_a_reader_of_the_schema_finds_everything(built: dict[str, bytes]) -> None:
    root = _Table.root(_entry(built["model.tflite"], ENTRY))
    assert (root.text(0), root.text(7)) == ("resnet8", "1.0.0")
    graph = root.subs(3)[0]
    (image,), (scores,) = graph.subs(2), graph.subs(3)
    assert image.text(0) == "x"
    content = image.sub(3)
    assert content.number(0, UINT8) == 2, "an image"
    size = content.sub(1).sub(1)
    assert (size.number(0, UINT32), size.number(1, UINT32)) == (32, 32)
    unit = image.subs(4)[0]
    assert unit.number(0, UINT8) == 1, "a normalisation"
    assert unit.sub(1).floats(0) == [1.0, 0.5, 0.25], "mean / scale"
    assert unit.sub(1).floats(1) == [0.5, 1.0, 2.0], "std / scale"
    assert scores.sub(3).number(0, UINT8) == 1, "features"
    labels = scores.subs(6)[0]
    assert (labels.text(0), labels.number(2, UINT8)) == ("labels.txt", 2)
    assert not scores.subs(4) and not image.subs(6)


def test_labels_stand_behind_the_model_as_a_zip(built: dict[str, bytes]) -> None:
    with zipfile.ZipFile(io.BytesIO(built["model.tflite"])) as archive:
        assert archive.read("labels.txt").decode().splitlines()[3] == "class 3"
    assert built["app/labels.txt"].decode().splitlines()[3] == "class 3"


def test_the_app_s_files(built: dict[str, bytes]) -> None:
    facts = json.loads(built["app/io.json"])
    assert facts["inputs"][0]["shape"] == [1, 32, 32, 3]
    assert facts["inputs"][0]["normalise"]["mean"] == [1.0, 0.5, 0.25]
    assert facts["outputs"][0]["shape"] == [1, 10]
    assert len(facts["labels"]) == 10
    assert b"benchmark_model" in built["app/BENCHMARK.md"]


def test_without_labels_and_recipe_nothing_is_claimed(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "autoencoder")
    result = run_build(model, target="android-arm64", precision="float32", output=tmp_path, stop_after="bundle")
    assert result.bundle is not None
    with result.bundle as bundle:
        data = bundle.read("model.tflite")
        names = bundle.names
    assert "app/labels.txt" not in names
    assert not zipfile.is_zipfile(io.BytesIO(data))
    (features,) = _Table.root(_entry(data, ENTRY)).subs(3)[0].subs(2)
    assert features.sub(3).number(0, UINT8) == 1
    assert not features.subs(4)


def test_metadata_changes_nothing_that_is_computed() -> None:
    artifact = emit(random_model(5, steps=12))
    data = artifact.files[MODEL_FILE]
    twice = add_metadata(add_metadata(data, "A", b"one"), "A", b"two")
    assert _entry(twice, "A") == b"two"
    assert [m.name for m in fb.ModelT.InitFromPackedBuf(twice, 0).metadata].count(b"A") == 1
    changed = type(artifact)(
        **{k: getattr(artifact, k) for k in artifact.__slots__ if k != "files"}, files={MODEL_FILE: twice}
    )
    rng = np.random.default_rng(0)
    feeds = {b.artifact.name: rng.random(b.artifact.shape).astype(b.artifact.dtype.numpy) for b in artifact.inputs}
    before, after = run_raw(artifact, feeds), run_raw(changed, feeds)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_buffers_stay_aligned() -> None:
    data = add_metadata(emit(random_model(3, steps=20)).files[MODEL_FILE], "A", b"x")
    root = fb.Model.GetRootAs(data, 0)
    for i in range(root.BuffersLength()):
        buffer = root.Buffers(i)
        if not buffer.DataIsNone():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0, i


def test_the_same_bytes_every_time() -> None:
    facts = TensorFacts(name="x", size=(3, 4), gray=True, mean=(1.0,), std=(2.0,), low=0.0, high=1.0)
    assert metadata_bytes("n", "d", [facts], []) == metadata_bytes("n", "d", [facts], [])
    assert associated_files({"a": b"1"}) == associated_files({"a": b"1"})


@pytest.mark.parametrize(("text", "message"), [("", "no lines"), ("a\n\nb\n", "empty line 2")])
def test_labels_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(EdgecError, match=message) as caught:
        read_labels(tmp_path / "l.txt")
    assert caught.value.code == "cli/labels"
    with pytest.raises(EdgecError) as missing:
        read_labels(tmp_path / "none.txt")
    assert missing.value.code == "io/unreadable"
