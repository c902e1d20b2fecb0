"""The zoo: its table makes sense, its page says what was measured, and one row of each kind builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from tools.zoo.models import rows
from tools.zoo.page import ERROR, counted, page, passes
from tools.zoo.row import measure

ROWS = {row.name: row for row in rows()}
#: An image, a text, a step with its past, a sound, and a model that chooses (TopK) and samples (GridSample).
KINDS = ("mobilenet-v2", "distilbert", "t5-decoder", "wav2vec2", "deformable-detr")


def test_every_row_names_a_class_of_transformers() -> None:
    assert len(ROWS) >= 60
    for row in ROWS.values():
        assert hasattr(getattr(transformers, row.cls), "config_class"), row.name


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_row_builds_and_answers_as_torch_does(name: str, tmp_path: Path) -> None:
    result = measure(ROWS[name], tmp_path)
    for column in ("tflite", "openvino"):
        assert "finding" not in result[column], result[column]
        assert result[column]["error"] < ERROR
    assert result["tflite"]["int8_db"] > 15
    json.dumps(result)


def _result(name: str, error: float) -> dict[str, object]:
    cell = {"error": error, "transposes": 2, "operators": 30, "seconds": 1.0, "int8_db": 31.5}
    return {"name": name, "class": "Net", "part": "", "tflite": cell, "openvino": cell}


def test_the_page_and_the_promise() -> None:
    good = [_result(f"net{i}", 1e-6) for i in range(19)]
    refused = {**_result("odd", 0.0), "tflite": {"finding": "backend/unsupported: no such operator"}}
    assert passes([*good, refused])
    assert not passes([*good, refused, _result("wrong", 0.5)])
    text = page([*good, refused])
    assert "| net3 (Net) | 1.0e-06 | 31.5 | 2 | 30 | 1.0 |" in text
    assert "- odd, tflite: backend/unsupported: no such operator" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert counted([*good, refused]).startswith(
        "tflite: 19 of 20 built, 19 within 0.001, 19 in int8; openvino: 20 of 20"
    )
