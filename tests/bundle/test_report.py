"""The report in a bundle: the same bytes for the same build, nothing to fetch, nothing unescaped."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

from edgec.bundle.frontier import frontier_picture
from edgec.bundle.report import SHOWN, VOLATILE, bars, report_html, report_json, stable

SUMMARY: dict[str, Any] = {
    "name": "net",
    "bundle": "/somewhere/net.edgec",
    "target": "raspberrypi4",
    "precision": "int8",
    "operators": {"CONV_2D": 35, "ADD": 10},
    "fidelity": {"sqnr_db": 24.12345, "cosine": 0.998, "outputs": {"y": {"max_abs": 0.1}}},
    "latency": {"median_ms": 1.9},
    "stages": {"load": 0.1, "calibrate": 3.0},
    "inputs": [{"name": "<script>alert(1)</script>", "shape": [1, 3, 224, 224], "dtype": "float32"}],
    "findings": [{"code": "source/default-shape", "severity": "info", "message": "batch & co"}],
}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_stable_drops_what_differs_between_runs() -> None:
    assert set(SUMMARY) - set(stable(SUMMARY)) == {"bundle", "latency", "stages"} <= VOLATILE


def test_json_is_canonical() -> None:
    reordered = dict(reversed(SUMMARY.items()))
    assert report_json(SUMMARY) == report_json(reordered)
    assert json.loads(report_json(SUMMARY)) == SUMMARY


def test_html_says_what_the_summary_says() -> None:
    page = report_html(SUMMARY).decode()
    for text in ("net for raspberrypi4", "CONV_2D", "24.1234", "1×3×224×224", "batch &amp; co", "calibrate"):
        assert text in page, text
    assert page == report_html(SUMMARY).decode()


def test_html_of_the_stable_part_has_no_times() -> None:
    page = report_html(stable(SUMMARY)).decode()
    assert "Seconds a stage" not in page
    assert "/somewhere" not in page


def test_html_fetches_and_runs_nothing() -> None:
    tags = Tags()
    tags.feed(report_html(SUMMARY).decode())
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags.seen}
    assert not [attrs for _, attrs in tags.seen if {"src", "href", "onload"} & set(attrs)]


def test_html_of_nothing_is_still_a_page() -> None:
    assert report_html({}).startswith(b"<!doctype html>")


def test_bars_are_ranked_and_summed_up() -> None:
    chart = ET.fromstring(bars({f"op{i:02}": i for i in range(1, 31)}))
    texts = [element.text for element in chart if element.tag.endswith("text")]
    assert texts[:2] == ["op30", "30"]
    assert texts[-2:] == ["others", str(sum(range(1, 31 - SHOWN + 1)))]
    widths = [float(element.attrib["width"]) for element in chart if element.tag.endswith("rect")]
    assert widths[:-1] == sorted(widths[:-1], reverse=True)


def test_bars_of_zeros() -> None:
    assert len(ET.fromstring(bars({"a": 0, "b": 0}))) == 6


def _mix(reverted: int, ms: float | None, db: float, **more: bool) -> dict[str, Any]:
    flags = {"met": False, "chosen": False, **more}
    return {"reverted": reverted, "estimated_ms": ms, "sqnr_db": db, "judged": f"<{db} dB>", **flags}


def test_mixes_that_were_tried_are_a_picture_and_a_table() -> None:
    mixes = [_mix(0, 1.5, 15.0), _mix(4, 1.8, 31.0, met=True, chosen=True), _mix(9, 2.5, 40.0, met=True)]
    picture = ET.fromstring(frontier_picture(mixes))
    dots = [e for e in picture.iter() if e.tag.endswith("circle")]
    assert len(dots) == len(mixes) + 1, "a ring around the one that was taken"
    across = [float(dot.attrib["cx"]) for dot in dots if dot.attrib["r"] == "5"]
    up = [float(dot.attrib["cy"]) for dot in dots if dot.attrib["r"] == "5"]
    assert across == sorted(across) and up == sorted(up, reverse=True)
    page = report_html({**SUMMARY, "frontier": mixes}).decode()
    assert "estimated ms" in page and "&lt;31.0 dB&gt;" in page
    assert "nodes reverted" in frontier_picture([{**mix, "estimated_ms": None} for mix in mixes])
    assert frontier_picture(mixes[:1]) == ""
