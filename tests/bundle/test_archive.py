"""The container: canonical bytes, and a refusal for every other byte."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.bundle import archive
from edgec.bundle.archive import check_name, read_index, write_archive
from edgec.errors import EdgecError

FILES = {"b/c.bin": b"\x00\x01" * 50, "a.txt": b"hello", "empty": b""}


def packed(files: dict[str, archive.Source] | None = None) -> bytes:
    stream = io.BytesIO()
    write_archive(stream, FILES if files is None else files)
    return stream.getvalue()


def refusal(data: bytes) -> str:
    with pytest.raises(EdgecError) as caught:
        read_index(io.BytesIO(data), "x.edgec")
    return caught.value.code


def test_any_unzip_tool_reads_it() -> None:
    with zipfile.ZipFile(io.BytesIO(packed())) as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist() == sorted(FILES)
        assert {name: zipped.read(name) for name in zipped.namelist()} == FILES
        assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_bytes_do_not_depend_on_the_order_given() -> None:
    assert packed(dict(reversed(FILES.items()))) == packed()


def test_files_on_disk_give_the_same_bytes_as_bytes_in_memory(tmp_path: Path) -> None:
    sources: dict[str, archive.Source] = {}
    for number, (name, data) in enumerate(FILES.items()):
        path = tmp_path / str(number)
        path.write_bytes(data)
        sources[name] = path
    assert packed(sources) == packed()


def test_index_finds_every_file() -> None:
    data = packed()
    entries = read_index(io.BytesIO(data), "x")
    assert {e.name: data[e.data_offset : e.data_offset + e.size] for e in entries} == FILES


@pytest.mark.parametrize("limit", [3, 40, 250])
def test_zip64_round_trips_and_other_tools_read_it(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Real files of 4 GB are no test; a smaller limit takes the same path except for the fields' width.
    monkeypatch.setattr(archive, "_LIMIT", limit)
    data = packed()
    entries = read_index(io.BytesIO(data), "x")
    assert {e.name: data[e.data_offset : e.data_offset + e.size] for e in entries} == FILES


@pytest.mark.parametrize(
    "name", ["../up", "/abs", "a/../b", "a//b", "a/", ".", "..", "a\\b", "C:x", "a b", "", "naïve", "a\n", "x" * 201]
)
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(EdgecError) as caught:
        check_name(name)
    assert caught.value.code == "bundle/bad-name"


@pytest.mark.parametrize("name", ["a", "golden/000/input.0.npy", "model.tflite", "..a", "a..b", "_x-1+2"])
def test_plain_names_are_accepted(name: str) -> None:
    check_name(name)


def test_every_flipped_bit_outside_the_contents_is_refused() -> None:
    data = packed()
    inside = {
        position
        for entry in read_index(io.BytesIO(data), "x")
        for position in range(entry.data_offset, entry.data_offset + entry.size)
    }
    for position in range(len(data)):
        if position in inside:
            continue
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            assert refusal(bytes(flipped)).startswith("bundle/"), (position, bit)


def test_every_truncation_is_refused() -> None:
    data = packed()
    for length in range(len(data)):
        assert refusal(data[:length]).startswith("bundle/"), length


@pytest.mark.parametrize("tail", [b"\0", b"PK\5\6" + bytes(18), b"garbage" * 100])
def test_trailing_bytes_are_refused(tail: bytes) -> None:
    assert refusal(packed() + tail).startswith("bundle/")


def test_leading_bytes_are_refused() -> None:
    assert refusal(b"#!/bin/sh\n" + packed()) == "bundle/not-a-bundle"


def foreign(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as zipped:
        for name, data in entries:
            zipped.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return stream.getvalue()


def test_compressed_entries_are_refused_so_no_bomb_can_expand() -> None:
    assert refusal(foreign(("bomb", bytes(10**6)), method=zipfile.ZIP_DEFLATED)) == "bundle/compressed-entry"


def test_duplicate_entries_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = foreign(("a", b"1"), ("a", b"2"))
    assert refusal(data).startswith("bundle/")
    stream = io.BytesIO()
    entry = archive.Entry(name="a", size=0, crc=0, offset=0)
    second = archive.Entry(name="a", size=0, crc=0, offset=entry.data_offset)
    headers = entry.local_header() + second.local_header()
    directory = entry.central_header() + second.central_header()
    stream.write(headers + directory + archive._end_records(2, len(headers), len(directory)))
    assert refusal(stream.getvalue()) == "bundle/duplicate-entry"


def test_encrypted_entries_are_refused() -> None:
    data = bytearray(packed({"a": b"x"}))
    directory = data.index(b"PK\1\2")
    data[directory + 8] |= 1
    assert refusal(bytes(data)) == "bundle/encrypted-entry"


def test_traversal_written_by_another_tool_is_refused() -> None:
    assert refusal(foreign(("../../etc/passwd", b"x"))) == "bundle/bad-name"


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_cleanly(noise: bytes) -> None:
    assert refusal(noise).startswith("bundle/")
    assert refusal(b"PK\3\4" + noise).startswith("bundle/")
    assert refusal(b"PK\3\4" + noise + b"PK\5\6" + bytes(18)).startswith("bundle/")


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,8}(/[a-z]{1,5})?", fullmatch=True), st.binary(max_size=80), max_size=6
    )
)
def test_whatever_is_packed_comes_back(files: dict[str, bytes]) -> None:
    stream = io.BytesIO()
    write_archive(stream, files)
    data = stream.getvalue()
    if files:
        entries = read_index(stream, "x")
        assert {e.name: data[e.data_offset : e.data_offset + e.size] for e in entries} == files
