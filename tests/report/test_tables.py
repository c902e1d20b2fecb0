"""Numbers are written in their key's unit; any answer has an outline."""

from __future__ import annotations

from typing import Any

import pytest

from edgec.report.render import render_build, render_check, render_doctor, render_inspect
from edgec.report.tables import cell, facts, human_bytes, outline, rows, text, words

SUMMARY: dict[str, Any] = {
    "bundle": "dist/net-raspberrypi4.edgec",
    "target": "raspberrypi4",
    "backend": "tflite",
    "precision": "int8",
    "why": "it keeps the accuracy",
    "size_bytes": 3565158,
    "operators": {"CONV_2D": 35, "ADD": 10},
    "transposes": 0,
    "fidelity": {"sqnr_db": 24.12, "cosine": 0.998, "outputs": {"a": {"sqnr_db": 24.12}, "b": {"sqnr_db": 30.0}}},
    "latency": {"median_ms": 1.914, "p95_ms": 2.5, "threads": 1},
    "peak_memory_bytes": 50_000_000,
    "stages": {"load": 0.1, "calibrate": 3.0},
    "findings": [],
}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size_bytes", 3565158, "3.4 MiB"),
        ("median_ms", 1.914, "1.91 ms"),
        ("sqnr_db", 24.16, "24.2 dB"),
        ("outside_share", 0.0123, "1.23 %"),
        ("shape", [1, 3, 224, 224], "1×3×224×224"),
        ("shape", [], "–"),
        ("shape", ["batch", 3], "batch, 3"),
        ("cosine", 0.9987654321, "0.998765"),
        ("ok", True, "yes"),
        ("ok", False, "no"),
        ("why", None, "–"),
        ("scale", {"Sigmoid": 1, "Tanh": 2}, "Sigmoid 1, Tanh 2"),
        ("count", 0, "0"),
    ],
)
def test_cells(key: str, value: object, expected: str) -> None:
    assert cell(key, value) == expected


def test_bytes() -> None:
    assert [human_bytes(n) for n in (0, 1023, 1024, 5 << 20, 3 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]


def test_words() -> None:
    assert words("peak_memory_bytes") == "peak memory"
    assert words("default_backend") == "default backend"
    assert words("CONV_2D") == "CONV_2D"


def test_plain_text_has_no_colour_and_markup_is_literal() -> None:
    shown = text(facts({"name": "[red]x[/red]"}), rows([{"a": "[bold]"}]), "[b]", terminal=False)
    assert "\x1b" not in shown
    assert "[red]x[/red]" in shown
    assert "[bold]" in shown
    assert "[b]" in shown


def test_colour_on_a_terminal() -> None:
    assert "\x1b" in text(facts({"name": "x"}), terminal=True)


def test_outline_shows_every_value() -> None:
    shown = text(*outline({"a": 1, "many": [{"x": "one"}, {"y": "two"}], "table": {"k": "v"}}), terminal=False)
    for piece in ("a  1", "many", "one", "two", "table", "k  v"):
        assert piece in shown


def test_build_summary() -> None:
    shown = render_build(SUMMARY)
    for piece in (
        "dist/net-raspberrypi4.edgec", "raspberrypi4, backend tflite", "int8", "it keeps the accuracy", "3.4 MiB",
        "45: CONV_2D 35, ADD 10", "transposes left  0", "SQNR 24.1 dB", "cosine 0.998", "median 1.91 ms", "threads 1",
        "47.7 MiB", "calibrate 3.00", "30.0 dB",
    ):  # fmt: skip
        assert piece in shown, piece


def test_build_summary_shows_only_what_there_is() -> None:
    shown = render_build({"bundle": "m.edgec", "target": "t", "backend": "openvino", "precision": "float32"})
    assert "latency" not in shown
    assert "fidelity" not in shown


def test_mixes_that_were_tried_are_a_table_with_estimates() -> None:
    mix = {"reverted": 0, "nodes": {"int8": 9}, "estimated_ms": 0.2671, "weights_bytes": 2048, "judged": "18.1 dB"}
    points = [
        {**mix, "met": False, "chosen": False},
        {**mix, "reverted": 2, "nodes": {"int16x8": 2, "int8": 7}, "met": True, "chosen": True},
    ]
    base = {"bundle": "m.edgec", "target": "t", "backend": "tflite", "precision": "int8", "frontier": points}
    lines = render_build(base).splitlines()
    start = next(i for i, line in enumerate(lines) if "mixes tried" in line)
    assert lines[start + 2].split() == ["0", "int8", "9", "0.267", "ms", "2.0", "KiB", "18.1", "dB", "missed"]
    assert lines[start + 3].split()[-1] == "taken" and "int16x8 2, int8 7" in lines[start + 3]
    unknown = render_build({**base, "frontier": [{**point, "estimated_ms": None} for point in points]})
    assert "mixes tried" in unknown and "estimated" not in unknown


def test_a_metric_that_gained_has_lost_nothing() -> None:
    task = {"name": "top1", "float": 0.901, "value": 0.904, "drop": -0.003, "max_drop": 0.005}
    base = {"bundle": "m.edgec", "target": "t", "backend": "tflite", "precision": "int8"}
    assert "nothing lost, at most 0.50 %" in render_build({**base, "fidelity": {"task": task}})
    lost = {**task, "value": 0.9, "drop": 0.001}
    assert "0.10 % lost" in render_build({**base, "fidelity": {"task": lost}})


def test_a_stopped_build_shows_its_product() -> None:
    assert "dist/m.qdq.onnx" in render_build({"stopped_after": "apply", "output": "dist/m.qdq.onnx", "findings": []})


def test_check_counts_findings() -> None:
    findings = [{"severity": "error"}, {"severity": "error"}, {"severity": "warning"}]
    assert "2 error, 1 warning" in render_check({"target": "t", "findings": findings})
    assert "nothing in the way" in render_check({"target": "t", "findings": []})


@pytest.mark.parametrize("render", [render_doctor, render_inspect])
def test_other_answers_are_outlined(render: Any) -> None:
    shown = render({"kind": "onnx", "operators": {"Conv": 3}, "inputs": [{"name": "x", "shape": [1, 2]}]})
    for piece in ("onnx", "Conv", "1×2"):
        assert piece in shown
