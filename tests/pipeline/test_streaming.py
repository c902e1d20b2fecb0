"""Ready models that keep their state in variables between calls, as keyword spotters for microcontrollers do."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgec.errors import EdgecError
from edgec.pipeline import run_build
from tools.sources.files import MissingFileError, wheel


@pytest.fixture(scope="module")
def spotter() -> Path:
    """A trained wake word model, int8, 40 features × 3 frames a call."""
    try:
        return wheel("pymicro-wakeword==2.5.0") / "pymicro_wakeword" / "models" / "alexa.tflite"
    except (MissingFileError, OSError, zipfile.BadZipFile) as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("target", ["raspberrypi", "esp32-s3"])
def test_goldens_of_a_model_with_state_are_met_in_order(spotter: Path, target: str, tmp_path: Path) -> None:
    built = run_build(spotter, target=target, output=tmp_path)
    assert built.summary["operators"]["VAR_HANDLE"] == 6
    assert built.summary["validation"]["passed"]


@pytest.mark.network
def test_a_runtime_without_variables_refuses_it(spotter: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        run_build(spotter, target="intel-cpu", backend="openvino", output=tmp_path)
    assert caught.value.code == "source/malformed"
    assert "--backend tflite" in caught.value.finding.hint
