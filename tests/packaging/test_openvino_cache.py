"""The compiled OpenVINO model: used where device and version are the same, left out where there is no device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgec.errors import EdgecError
from edgec.pipeline import run_build
from edgec.runners import agent
from tests.support.micro_nets import write_micro_net


def _agent_kernels(folder: Path) -> dict[str, object]:
    bundle = agent.Unpacked(str(folder))
    return dict(bundle.load(1).kernels())


def test_the_compiled_model_is_used_and_belongs_to_one_version(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    result = run_build(model, target="intel-cpu", precision="float32", output=tmp_path, packaging=["openvino_cache"])
    assert result.summary["validation"]["passed"]
    assert result.summary["packaging"]["openvino_cache"]["made"] is True
    assert result.bundle is not None
    with result.bundle as bundle:
        bundle.extract(tmp_path / "here")
    assert _agent_kernels(tmp_path / "here")["loaded_from"] == "cache"
    facts = tmp_path / "here" / agent.BLOB_FACTS
    told = json.loads(facts.read_text())
    facts.write_text(json.dumps({**told, "runtime": "openvino 1999.1"}))
    assert _agent_kernels(tmp_path / "here")["loaded_from"] == "model", "another version compiles for itself"
    shutil.rmtree(tmp_path / "here")


@pytest.mark.parametrize("target", ["intel-gpu", "intel-npu"])
def test_where_the_device_is_missing_the_cpu_stands_in_and_no_cache_is_made(target: str, tmp_path: Path) -> None:
    if {"intel-gpu": "GPU", "intel-npu": "NPU"}[target] in _devices():
        pytest.skip("this machine has the device")
    model, _ = write_micro_net(tmp_path, "kws")
    result = run_build(model, target=target, precision="float16", output=tmp_path, packaging=["openvino_cache"])
    assert result.summary["validation"]["passed"]
    codes = {f.code for f in result.findings}
    assert {"backend/cache-for-cpu", "validate/stand-in"} <= codes
    assert result.bundle is not None
    with result.bundle as bundle:
        assert agent.BLOB not in bundle.names
        assert bundle.manifest.runner == "openvino:" + target.removeprefix("intel-").upper()


def _devices() -> list[str]:
    openvino = pytest.importorskip("openvino")
    return [name.partition(".")[0] for name in openvino.Core().available_devices]


def test_another_backend_has_no_cache(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    with pytest.raises(EdgecError) as caught:
        run_build(model, target="linux-x86_64", precision="float32", output=tmp_path, packaging=["openvino_cache"])
    assert caught.value.code == "cli/no-cache"
