"""The benchmark against other converters: who takes part, which bars are missed, how files are fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.peers import int8_page
from tools.peers.cases import CASES
from tools.peers.convert import _onnx2tf
from tools.peers.graphs import geometric_mean, judge, line, ratios
from tools.peers.page import page
from tools.peers.race import _error, _perm


def entry(ms: float, operators: int, **more: Any) -> dict[str, Any]:
    times = {"min_ms": ms, "median_ms": ms, "blocks": [ms, ms, ms]}
    return {
        "why": "",
        "operators": {"CONV_2D": operators},
        "partitions": 1,
        "max_error": 1e-6,
        "threads_1": times,
        "threads_2": times,
        **more,
    }


def row(mine: dict[str, Any] | None = None, **peers: dict[str, Any]) -> dict[str, Any]:
    facts = {"warm_s": 0.1, "peak_bytes": 100e6, "weights_bytes": 10e6}
    ours = entry(10.0, 20) if mine is None else mine
    return {"model": "net", "convolutional": True, "misses": [], "files": {"edgec": {**facts, **ours}, **peers}}


def test_all_bars_hold() -> None:
    assert judge(row(other=entry(9.9, 20))) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (row(other=entry(9.0, 20)), "11 % slower than other (1 threads)"),
        (row(other=entry(10.0, 19)), "20 operators, other 19"),
        (row(entry(10.0, 20, warm_s=1.5)), "compile takes 1.50 s"),
        (row(entry(10.0, 20, peak_bytes=231e6)), "compile holds 231 MB"),
        (row({**entry(10.0, 0), "operators": {"TRANSPOSE": 2}}), "2 transposes left"),
        (row(entry(10.0, 20, max_error=2e-3)), "error 2.0e-03"),
        (row({"why": "refused"}), "no file: refused"),
    ],
)
def test_a_bar_missed_is_named(found: dict[str, Any], words: str) -> None:
    assert words in judge(found)


def test_a_wrong_peer_takes_no_part() -> None:
    found = row(wrong=entry(1.0, 1, max_error=0.08), right=entry(12.0, 30))
    assert judge(found) == []
    assert ratios(found, "1") == {"right": pytest.approx(1.2, rel=1e-9)}
    assert geometric_mean([found, row(right=entry(10.0, 30))], "1") == pytest.approx(1.2**0.5, rel=1e-9)


def test_slower_only_when_blocks_in_turn_say_so_too() -> None:
    lucky = entry(10.0, 20)
    lucky["threads_1"] = {"min_ms": 9.0, "median_ms": 10.4, "blocks": [9.0, 10.4, 10.4]}
    assert judge(row(other=lucky)) == []


def test_page_and_line_show_what_did_not_run() -> None:
    found = row(other={"why": "not done | at all"})
    assert "other: not done" in line(found)
    text = page([found], {"1": None, "2": 1.05}, 1.1)
    assert "not done / at all" in text
    assert "geometric mean, 2 thread(s): under 1.1" in text


def test_axes_of_a_peers_input() -> None:
    assert _perm((1, 3, 8, 8), (1, 8, 8, 3)) == (0, 2, 3, 1)
    assert _perm((1, 50, 20), (1, 20, 50)) == (0, 2, 1)
    assert _perm((1, 50, 20), (1, 50, 20)) == (0, 1, 2)
    assert _perm((1, 50, 20), (1, 50)) is None


def test_error_is_of_the_best_order_of_axes() -> None:
    wanted = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert _error(wanted, [wanted.transpose(0, 2, 3, 1), np.zeros(3, np.float32)]) == 0.0
    assert _error(wanted, [wanted + 2.3]) == pytest.approx(0.1, rel=1e-5)
    assert _error(wanted, [np.zeros(5, np.float32)]) == float("inf")


def int8_row(**more: Any) -> dict[str, Any]:
    ours = {"edgec float32": {"ms": 9.0, "sqnr_db": 120.0}, "edgec int8": {"ms": 4.4, "sqnr_db": 21.0}}
    return {**ours, **more}


def test_a_file_of_integers_races_against_ours_of_integers() -> None:
    peer = {"ms": 4.0, "sqnr_db": 20.5, "integers": True}
    assert int8_page.misses(int8_row(peer=peer)) == ["10 % slower than peer"]
    alike = {int8_page.INTEGERS: {"ms": 3.9, "sqnr_db": 20.9, "integers": True}}
    assert int8_page.misses(int8_row(peer=peer, **alike)) == []
    takes_floats = {**peer, "integers": False}
    assert int8_page.misses(int8_row(peer=takes_floats, **alike)) == ["10 % slower than peer"]


def test_every_peer_is_a_rival_and_accuracy_counts() -> None:
    assert int8_page.misses(int8_row(peer={"ms": 4.0, "sqnr_db": 9.0})) == ["10 % slower than peer"]
    assert int8_page.misses(int8_row(peer={"ms": 9.0, "sqnr_db": 25.0})) == ["less accurate than peer"]
    slower = {"edgec auto": {"ms": 8.0, "sqnr_db": 25.0}}  # neither is both quick and accurate
    assert int8_page.misses(int8_row(peer={"ms": 5.0, "sqnr_db": 25.0}, **slower)) == ["60 % slower than peer"]
    assert int8_page.misses(int8_row(peer={"ms": 4.4, "sqnr_db": 21.9})) == []
    assert int8_page.misses({**int8_row(), "edgec int8": {"ms": 10.0, "sqnr_db": 21.0}}) == ["slower than our float"]


def test_a_converter_that_writes_over_its_model_has_a_copy(tmp_path: Path) -> None:
    tool, model, made = tmp_path / "onnx2tf", tmp_path / "net.onnx", tmp_path / "net.tflite"
    tool.write_text('#!/bin/sh\ncat "$2" > "$4/net_float32.tflite"\necho changed > "$2"\n')
    tool.chmod(0o755)
    model.write_bytes(b"model")
    _onnx2tf(tmp_path / "python", CASES[0], model, made)
    assert (model.read_bytes(), made.read_bytes()) == (b"model", b"model")
