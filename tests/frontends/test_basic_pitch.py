"""basic-pitch ships one net as ONNX, SavedModel and TFLite: the same answers from each, in both runtimes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgec.pipeline import run_build
from edgec.tensors import Array
from tests.support.tensorflow import use_tensorflow
from tools.sources.files import MissingFileError, wheel

#: Measured 1.3e-6 between any two; the outputs are between 0 and 1.
TOLERANCE = 1e-5


@pytest.mark.slow
@pytest.mark.network
def test_every_source_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tensorflow(monkeypatch)
    try:
        folder = wheel("basic-pitch==0.4.0") / "basic_pitch" / "saved_models" / "icassp_2022"
    except (MissingFileError, OSError, zipfile.BadZipFile) as error:
        pytest.skip(str(error))
    x = (np.random.default_rng(0).standard_normal((1, 43844, 1)) * 0.1).astype(np.float32)
    answers: dict[str, dict[tuple[int, ...], list[Array]]] = {}
    for name, target in (
        ("nmp.onnx", "raspberrypi"),
        ("nmp.onnx", "intel-cpu"),
        ("nmp", "raspberrypi"),
        ("nmp", "intel-cpu"),
        ("nmp.tflite", "raspberrypi"),
    ):
        precision = "auto" if name.endswith("tflite") else "float32"
        built = run_build(folder / name, target=target, precision=precision, output=tmp_path)
        assert built.summary["validation"]["passed"]
        assert built.bundle is not None
        with built.bundle as bundle:
            outputs = bundle.run({bundle.inputs[0].source.name: x})
        answers[f"{name} {target}"] = sorted_by_content(outputs)
    reference = answers.pop("nmp.onnx raspberrypi")
    assert {shape: len(maps) for shape, maps in reference.items()} == {(1, 172, 264): 1, (1, 172, 88): 2}
    for found in answers.values():
        assert found.keys() == reference.keys()
        for shape, maps in reference.items():
            for one, other in zip(maps, found[shape], strict=True):
                np.testing.assert_allclose(other, one, rtol=0, atol=TOLERANCE)


def sorted_by_content(outputs: dict[str, Array]) -> dict[tuple[int, ...], list[Array]]:
    """The maps by shape and mean: each format calls them otherwise."""
    table: dict[tuple[int, ...], list[Array]] = {}
    for value in sorted(outputs.values(), key=lambda v: float(v.mean())):
        table.setdefault(value.shape, []).append(value)
    return table
