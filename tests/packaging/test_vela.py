"""Ethos-U: all of MobileNetV2 on the NPU, a gate for what is not, Vela's figures labelled as estimates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgec.artifact import OpWork
from edgec.backends.tflite.reader import describe
from edgec.errors import EdgecError
from edgec.packaging import vela
from edgec.pipeline import run_build
from tests.support.micro_nets import write_micro_net
from tests.support.torch_models import MobileNetV2

pytest.importorskip("ethosu", reason="Vela is not installed (pip install 'edgec[vela]')")
pytest.importorskip("tflite_micro", reason="TensorFlow Lite Micro's wheel is for Linux on x86-64 only")


def _mobilenet(folder: Path) -> tuple[Path, Path]:
    """MobileNetV2 for small pictures, with random weights whose normalisations have seen data."""
    torch.manual_seed(0)
    model = MobileNetV2()
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))
    model.eval()
    path = folder / "mobilenet_v2.onnx"
    torch.onnx.export(model, (torch.randn(1, 3, 32, 32),), str(path), dynamo=False)
    np.save(folder / "data.npy", np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32))
    return path, folder / "data.npy"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mobilenet_v2_runs_on_the_npu_to_the_last_operator(tmp_path: Path) -> None:
    model, data = _mobilenet(tmp_path)
    result = run_build(
        model, target="ethos-u55-128", calibration=data, output=tmp_path, effort="fast", precision="int8"
    )
    facts = result.summary["packaging"]["vela"]
    assert facts["npu_operator_share"] == 1.0
    assert facts["npu_mac_share"] == 1.0
    assert facts["cpu_operators"] == {}
    assert "estimate" in facts["figures"]
    assert facts["cycles"] > facts["npu_macs"] / 128, "128 multiply-accumulates a cycle is the most there is"
    assert 0 < facts["sram_bytes"] <= 2 << 20
    assert result.summary["validation"]["passed"]
    assert result.bundle is not None
    with result.bundle as bundle:
        assert set(describe(bundle.read("model_vela.tflite"))["operators"]) == {vela.NPU_OPERATOR}
        assert vela.NPU_OPERATOR not in describe(bundle.read("model.tflite"))["operators"]
        assert "resolver.AddEthosU()" in bundle.read("micro/op_resolver.h").decode()
        assert bundle.manifest.runner == "tflite-micro", "the plain model is what runs here"


def test_a_model_the_npu_does_not_take_is_refused_with_vela_s_reason(tmp_path: Path) -> None:
    """Vela itself exits with 0 for it."""
    model, _ = write_micro_net(tmp_path, "kws")
    profile = tmp_path / "float-npu.toml"
    profile.write_text('extends = "ethos-u55-128"\nio_dtype = "float32"\nbackends.tflite.precisions = ["float32"]\n')
    with pytest.raises(EdgecError) as caught:
        run_build(model, target=str(profile), output=tmp_path, precision="float32")
    finding = caught.value.findings[0]
    assert finding.code == "backend/npu-share"
    assert finding.message.startswith("0.0% of the operators run on the ethos-u55-128")
    assert "int8" in finding.hint and "Vela says" in finding.hint
    assert not list(tmp_path.glob("*.edgec"))


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_float_precisions_are_not_on_offer(precision: str, tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    with pytest.raises(EdgecError) as caught:
        run_build(model, target="ethos-u85-256", output=tmp_path, precision=precision)
    assert caught.value.code == "target/no-precision"


def test_without_samples_an_integer_target_says_so(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    with pytest.raises(EdgecError) as caught:
        run_build(model, target="ethos-u65-256", output=tmp_path)
    assert caught.value.code == "calibration/missing"


def test_a_missing_vela_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "find_spec", lambda _: None)
    with pytest.raises(EdgecError) as caught:
        vela.compile_model(b"", "ethos-u55-128")
    assert (caught.value.code, caught.value.finding.hint) == ("env/missing-extra", "pip install 'edgec[vela]'")


def test_what_vela_cannot_read_is_said_with_its_words() -> None:
    with pytest.raises(EdgecError) as caught:
        vela.compile_model(b"\0" * 64, "ethos-u55-128")
    assert caught.value.code == "backend/npu-compiler"


def _work(kind: str, macs: int) -> OpWork:
    return OpWork(
        kind=kind, dtype="int8", macs=macs, window=9, channels=8, input_bytes=1, weight_bytes=1, output_bytes=1
    )


def test_the_share_of_multiplications() -> None:
    work = [_work("CONV_2D", 600), _work("CONV_2D", 300), _work("FULLY_CONNECTED", 100), _work("ADD", 0)]
    assert vela._mac_share(work, {}) == 1.0
    assert vela._mac_share(work, {"ADD": 1}) == 1.0
    assert vela._mac_share(work, {"FULLY_CONNECTED": 1}) == 0.9
    assert vela._mac_share(work, {"CONV_2D": 1}) == 0.55, "one of two, by their number"
    assert vela._mac_share([_work("ADD", 0)], {"ADD": 1}) is None
