"""Opening: verified first, read second, and nothing but what was packed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.archive import read_index, write_archive
from edgec.bundle.manifest import to_json
from edgec.bundle.open import open_bundle
from edgec.errors import EXIT_CODES, EdgecError
from tests.support import tiny_bundles as tiny


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    artifact = tiny.tflite_artifact()
    path = tmp_path_factory.mktemp("good") / "good.edgec"
    return tiny.pack(path, artifact, goldens=tiny.goldens(artifact, 1)).read_bytes()


def unpack(data: bytes) -> dict[str, bytes]:
    entries = read_index(io.BytesIO(data), "x")
    return {e.name: data[e.data_offset : e.data_offset + e.size] for e in entries}


def repack(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, files)
    return stream.getvalue()


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "bad.edgec"
    path.write_bytes(data)
    with pytest.raises(EdgecError) as caught:
        open_bundle(path)
    assert caught.value.exit_code == EXIT_CODES["bundle"]
    return caught.value.code


def edit_manifest(data: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    files = unpack(data)
    manifest = json.loads(files["manifest.json"])
    edit(manifest)
    return repack({**files, "manifest.json": to_json(manifest)})


def test_good_bundle_opens(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "x.edgec").write_bytes(good)
    with open_bundle(tmp_path / "x.edgec") as bundle:
        assert bundle.read("model.tflite") == tiny.tflite_bytes()
        assert len(bundle.digest) == 64
        assert not bundle.signed


def test_a_changed_byte_anywhere_is_refused(tmp_path: Path, good: bytes) -> None:
    """A few positions in every region: each file's start, middle and end, each header, directory, end record."""
    entries = read_index(io.BytesIO(good), "x")
    positions = {0, 4, 10, len(good) - 1, len(good) - 10, len(good) - 22}
    for entry in entries:
        positions |= {entry.offset, entry.offset + 14, entry.offset + 30, entry.data_offset - 1}
        positions |= {entry.data_offset + entry.size * part // 7 for part in range(7) if entry.size}
        positions.add(entry.data_offset + max(entry.size - 1, 0))
    directory = entries[-1].data_offset + entries[-1].size
    positions |= set(range(directory, len(good), 5))
    for position in sorted(positions):
        changed = bytearray(good)
        changed[position] ^= 0x20
        assert refusal(tmp_path, bytes(changed)).startswith("bundle/"), position


def test_truncation_is_refused(tmp_path: Path, good: bytes) -> None:
    for length in [0, 1, 3, 4, 21, 22, *range(30, len(good), 397), len(good) - 1]:
        assert refusal(tmp_path, good[:length]).startswith("bundle/"), length


def test_trailing_garbage_is_refused(tmp_path: Path, good: bytes) -> None:
    assert refusal(tmp_path, good + b"\n") == "bundle/corrupt"


def test_file_exchanged_in_a_well_formed_archive_is_refused(tmp_path: Path, good: bytes) -> None:
    files = unpack(good)
    for name in files:
        if name == "manifest.json" or not files[name]:
            continue
        changed = bytes([files[name][0] ^ 1]) + files[name][1:]
        assert refusal(tmp_path, repack({**files, name: changed})) == "bundle/tampered", name


def test_extra_and_missing_files_are_refused(tmp_path: Path, good: bytes) -> None:
    files = unpack(good)
    assert refusal(tmp_path, repack({**files, "extra.txt": b"x"})) == "bundle/tampered"
    for name in files:
        left = {key: data for key, data in files.items() if key != name}
        expected = "bundle/bad-manifest" if name == "manifest.json" else "bundle/tampered"
        assert refusal(tmp_path, repack(left)) == expected


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_schema_versions_are_refused(tmp_path: Path, good: bytes, version: object) -> None:
    changed = edit_manifest(good, lambda m: m.update(schema_version=version))
    assert refusal(tmp_path, changed) == "bundle/unknown-version"


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(surprise=1),
        lambda m: m.pop("inputs"),
        lambda m: m.update(model="../model.tflite"),
        lambda m: m.update(model_files=["model.tflite", "elsewhere"]),
        lambda m: m.update(goldens=-1),
        lambda m: m["inputs"][0].update(perm=[0, 1, 2, 2]),
        lambda m: m["inputs"][0].update(perm=[0]),
        lambda m: m["inputs"][0]["source"].update(dtype="float7"),
        lambda m: m["inputs"][0]["artifact"].update(qparams={"scale": [-1.0], "zero_point": [0], "axis": None}),
        lambda m: m["inputs"][0]["artifact"].update(shape=[1, 2, 3, 4]),
        lambda m: m["target"]["hardware"].update(cores=0),
    ],
)
def test_manifests_that_make_no_sense_are_refused(
    tmp_path: Path, good: bytes, edit: Callable[[dict[str, Any]], None]
) -> None:
    assert refusal(tmp_path, edit_manifest(good, edit)) == "bundle/bad-manifest"


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1}', b"1e999"]
)
def test_broken_manifests_are_refused(tmp_path: Path, good: bytes, data: bytes) -> None:
    code = refusal(tmp_path, repack({**unpack(good), "manifest.json": data}))
    assert code in ("bundle/bad-manifest", "bundle/unknown-version")


def test_manifest_that_says_a_key_twice_is_refused(tmp_path: Path, good: bytes) -> None:
    files = unpack(good)
    doubled = files["manifest.json"].replace(b'"name": "tiny"', b'"name": "evil",\n "name": "tiny"')
    assert doubled != files["manifest.json"]
    assert refusal(tmp_path, repack({**files, "manifest.json": doubled})) == "bundle/bad-manifest"


def test_missing_bundle_is_a_clean_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none.edgec", tmp_path):
        with pytest.raises(EdgecError) as caught:
            open_bundle(path)
        assert caught.value.code == "io/unreadable"


def test_change_after_opening_is_noticed(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "x.edgec"
    path.write_bytes(good)
    model = next(e for e in read_index(io.BytesIO(good), "x") if e.name == "model.tflite")
    with open_bundle(path) as bundle:
        with path.open("r+b") as stream:
            stream.seek(model.data_offset + 40)
            stream.write(b"\xff\xff")
        with pytest.raises(EdgecError) as caught:
            _ = bundle.model_path
    assert caught.value.code == "bundle/tampered"


def test_temporary_model_is_private_and_goes_with_the_bundle(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "x.edgec"
    path.write_bytes(good)
    bundle = open_bundle(path)
    model = bundle.model_path
    assert model.read_bytes() == tiny.tflite_bytes()
    assert model.parent.stat().st_mode & 0o077 == 0
    bundle.close()
    assert not model.parent.exists()
    for use in (lambda: bundle.read("manifest.json"), lambda: bundle.run({"x": tiny.sample(0)})):
        with pytest.raises(EdgecError) as caught:
            use()
        assert caught.value.code == "bundle/closed"


def test_unknown_file_gets_a_suggestion(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "x.edgec").write_bytes(good)
    with open_bundle(tmp_path / "x.edgec") as bundle, pytest.raises(EdgecError) as caught:
        bundle.read("model.tfilte")
    assert caught.value.code == "bundle/no-such-file"
    assert "model.tflite" in caught.value.finding.hint


def test_golden_that_is_no_array_is_refused(tmp_path: Path) -> None:
    artifact = tiny.tflite_artifact()
    files = unpack(tiny.pack(tmp_path / "x.edgec", artifact).read_bytes())
    manifest = json.loads(files["manifest.json"])
    import hashlib

    bad = np.lib.format.magic(1, 0) + b"\x10\x00{'descr': '|O'}\n"
    manifest["files"]["golden/000/raw.0.npy"] = {"sha256": hashlib.sha256(bad).hexdigest(), "size": len(bad)}
    files.update({"golden/000/raw.0.npy": bad, "manifest.json": to_json(manifest)})
    (tmp_path / "bad.edgec").write_bytes(repack(files))
    with open_bundle(tmp_path / "bad.edgec") as bundle, pytest.raises(EdgecError) as caught:
        bundle.goldens()
    assert caught.value.code == "bundle/bad-golden"
