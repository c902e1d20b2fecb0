"""The accuracy page says of each row where it stands against the best peer, and which bars it misses."""

from __future__ import annotations

from typing import Any

from tools.accuracy_page import misses, page
from tools.accuracy_time import affordable


def made(
    name: str = "net", *, ours: float | None = 30.0, peer: float = 28.0, right: int | None = None
) -> dict[str, Any]:
    """A row whose best peer has 90 of 100 labelled samples right, where `right` says how many edgec has."""
    entry: dict[str, Any] = {"dB": ours, "top-1": None, "right": None, "seconds": 1.0, "ladder": []}
    if ours is None:
        entry["error"] = "backend/unsupported-op: no such operator"
    other: dict[str, Any] = {"dB": peer, "top-1": None, "right": None}
    if right is not None:
        entry |= {"right": float(right), "correct": [i < right for i in range(100)]}
        other |= {"right": 90.0, "correct": [i >= 10 for i in range(100)]}
    row = {"model": name, "edgec raspberrypi": entry, "edgec intel-cpu": entry, "onnxruntime": other}
    return {
        **row,
        "nncf": {"dB": None, "top-1": None, "error": "it failed"},
        "float": 95.0 if right is not None else None,
    }


def test_a_row_ahead_of_its_peers_misses_nothing() -> None:
    assert misses(made()) == []
    text = page([made()], ["net", "other"], "make accuracy")
    assert "| net | onnxruntime 28.0 | +2.0 dB | +2.0 dB |" in text
    assert "**+2.0 dB** over 1 rows (bar +5 dB: missed)" in text
    assert "Not run: other." in text


def test_a_row_behind_says_by_how_much_and_whom() -> None:
    assert misses(made(ours=25.0))[0] == "net, raspberrypi: 3.0 dB below onnxruntime"


def test_labels_count_for_themselves_and_say_what_chance_does() -> None:
    told = "net, raspberrypi: 88.0 % right, onnxruntime 90.0 % (of 100 samples edgec alone has 10 right, onnxruntime "
    assert f"{told}alone 12: McNemar's exact p 0.83)" in misses(made(right=88))
    assert any("net, raspberrypi: 7.0 points below float" in text for text in misses(made(right=88)))
    assert misses(made(right=91)) == misses(made(right=90)) == []


def test_collapse_and_a_models_own_bar() -> None:
    assert misses(made(ours=9.0, peer=8.0))[0].startswith("net, raspberrypi: 9.0 dB, bar 10")
    lite0 = misses(made("efficientnet_lite0", ours=20.0, peer=13.0))
    assert lite0[0].startswith("efficientnet_lite0, raspberrypi: 20.0 dB, bar 21")


def test_a_collapse_says_whether_the_build_said_so_and_what_auto_makes() -> None:
    row = made(ours=9.0, peer=8.0)
    assert "net, raspberrypi: 9.0 dB, bar 10 (the build does not say so)" in misses(row)
    row["edgec raspberrypi"] = {**row["edgec raspberrypi"], "findings": ["quant/collapsed"]}
    row["auto raspberrypi"] = {"dB": 23.0, "precision": "dynamic", "nodes": {"dynamic": 30}}
    assert "net, raspberrypi: 9.0 dB, bar 10 (the build says so; auto: dynamic, 23.0 dB)" in misses(row)
    assert "- net, raspberrypi: int8 9.0; dynamic: 23.0" in page([row], ["net"], "make accuracy")


def test_times_stand_beside_nncfs() -> None:
    row = made()
    stages = {"load": 5.0, "calibrate": 1.0, "quantize": 0.5, "repair": 4.5}
    row["edgec raspberrypi"] = {**row["edgec raspberrypi"], "stages": stages}
    few, many = {"samples": 24, "edgec_s": 6.0, "nncf_s": 4.0}, {"samples": 300, "edgec_s": 8.0, "nncf_s": 16.0}
    row["time"] = {"code": "today", "runs": [few, many]}
    text = page([row], ["net"], "make accuracy", "today")
    assert "| net | 24 | 6.0 | 4.0 | 1.5 | 300 | 8.0 | 16.0 | 0.5 | 6.0 |" in text
    assert "No longer than NNCF with the table's samples on 0 of 1 rows" in text
    assert "No longer than NNCF with up to 300 samples on 1 of 1 rows" in text
    assert "The seconds of" not in text
    assert "The seconds of 1 rows are of an earlier state" in page([row], ["net"], "make accuracy", "later")


def test_a_row_that_nncf_fails_on_has_seconds_of_ours_alone() -> None:
    row = made()
    row["time"] = {"code": "today", "runs": [{"samples": 24, "edgec_s": 6.0, "nncf_s": None}]}
    text = page([row], ["net"], "make accuracy", "today")
    assert "| net | 24 | 6.0 | – | – | – | – | – | – | – |" in text
    assert "No longer than NNCF" not in text


def test_nncf_is_given_as_many_samples_as_it_takes_in_five_minutes() -> None:
    assert affordable(24, 9.0) == 300
    assert affordable(24, 54.7) == 131
    assert affordable(24, 400.0) == 24
    assert affordable(500, 1.0) == 500


def test_the_ladder_says_what_was_kept_and_what_nodes_run_in() -> None:
    rungs = [
        {"rung": "ranges: auto", "after_db": 20.5, "kept": True},
        {"rung": "bias", "after_db": 19.0, "kept": False},
    ]
    row = made()
    row["edgec intel-cpu"] = {**row["edgec intel-cpu"], "ladder": rungs, "nodes": {"float32": 1, "int8": 22}}
    text = page([row], ["net"], "make accuracy")
    assert "- net, intel-cpu: ranges: auto 20.5, (bias 19.0); 1 float32, 22 int8" in text


def test_rows_of_other_code_are_counted() -> None:
    row = made()
    row["edgec raspberrypi"] = {**row["edgec raspberrypi"], "code": "old"}
    assert "1 of 1 rows are of an earlier state" in page([row], ["net"], "make accuracy", "new")
    assert "earlier state" not in page([row], ["net"], "make accuracy", "old")


def test_a_failure_of_ours_is_a_bar_missed() -> None:
    assert misses(made(ours=None))[0] == "net, raspberrypi: backend/unsupported-op: no such operator"
    assert "fails: backend/unsupported-op" in page([made(ours=None)], ["net"], "make accuracy")


def test_draws_give_means_and_deviations_where_every_draw_was_made() -> None:
    draws = {"float": [90.0, 91.0], "edgec raspberrypi": [89.0, 91.0], "nncf": [80.0]}
    text = page([{**made(right=90), "draws": draws}, made("other")], ["net", "other"], "make accuracy")
    assert "| net | 2 | 90.50 ± 0.71 | 90.00 ± 1.41 | – | – | – | – | – |" in text
    assert "several draws" not in page([made()], ["net"], "make accuracy")
