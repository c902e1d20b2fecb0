"""Real PyTorch models from PyPI and the zoo, one of each kind, as the table builds them; `make sources` takes all."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.frontends.base import load_source
from edgec.quantization.run.executor import Executor
from tools.sources.__main__ import rows
from tools.sources.build import Line, build_row
from tools.sources.page import page

ROWS = {row.name: row for row in rows()}


def _built(name: str, target: str, precision: str = "float32") -> Line:
    line = build_row(ROWS[name], target, precision)
    if line.result == "missing":
        pytest.skip(line.detail)
    assert line.result == "validated", line.detail
    return line


@pytest.mark.slow
@pytest.mark.network
def test_mtcnn_tells_faces_from_others_in_int8() -> None:
    assert _built("rnet", "raspberrypi", "int8").accuracy == 1.0


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("name", "target"), [("speaker_encoder", "intel-cpu"), ("silero_step", "raspberrypi")])
def test_recurrent_nets_from_pypi_keep_their_answers(name: str, target: str) -> None:
    sqnr_db = _built(name, target).sqnr_db
    assert sqnr_db is not None
    assert sqnr_db > 80


@pytest.mark.slow
def test_zoo_weights_answer_as_the_zoos_own_onnx() -> None:
    from tests.support.models import zoo

    row, reference = ROWS["resnet20"], load_source(zoo("resnet20")).model
    loaded = load_source(row.source(), inputs=row.inputs, options=row.options).model
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    (wanted,) = Executor(reference).run({reference.inputs()[0].name: image}).values()
    np.testing.assert_allclose(Executor(loaded).run({"image": image})["logits"], wanted, rtol=0, atol=1e-4)


def test_the_page_has_a_row_a_build_and_says_what_failed() -> None:
    good = Line(row="a", kind="k", target="t", precision="int8", result="validated", sqnr_db=20.04, accuracy=0.5)
    bad = Line(
        row="b", kind="k", target="t", precision="float32", result="source/weights", detail="error[source/weights]"
    )
    text = page([good, bad])
    assert "| a | k | t | int8 | validated | 20.0 | 50.0 % | – | – | 0 |" in text
    assert "`b` for t:" in text


def test_names_of_rows_are_unique() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names)) > 9
