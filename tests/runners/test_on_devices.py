"""A bundle on devices that are not this machine: the same int8 bits on x86, Cortex-A72 and Cortex-A76."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.bundle.worker import AGENT
from edgec.devices.base import Transport
from edgec.errors import EdgecError
from edgec.pipeline import run_build
from edgec.runners.base import call_agent
from edgec.runners.validate import Validation, validate_bundle
from edgec.tensors import Array
from tests.support import tiny_bundles as tiny
from tests.support.devlab import connected
from tests.support.small_net import write_small_net

#: For emulated devices on a busy machine.
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convolutions, depthwise, pooling, a gate, a classifier: built for a Raspberry Pi in int8."""
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        model, data = write_small_net(folder)
        result = run_build(model, target="raspberrypi4", precision="int8", calibration=data, output=folder)
    assert result.path is not None
    return Path(result.path)


@pytest.fixture(scope="module")
def host_outputs(int8_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    """What this machine's LiteRT computes."""
    return raw_outputs(connected("here", "local"), int8_bundle, tmp_path_factory.mktemp("host"))


def raw_outputs(device: Transport, path: Path, here: Path) -> dict[str, Array]:
    """The goldens' outputs on a device, as they come out of the runtime, by file name."""
    with open_bundle(path) as bundle, device.scratch() as scratch:
        bundle.extract(here / "bundle")
        device.push(here / "bundle", f"{scratch}/bundle")
        device.push(AGENT, f"{scratch}/agent.py")
        arguments = ("run", f"{scratch}/bundle", "--out", f"{scratch}/out")
        answer = call_agent(device, f"{scratch}/agent.py", arguments, timeout_s=PATIENCE_S, where=device.name)
        assert answer["kernels"]["delegate"] == "XNNPACK"
        device.pull(f"{scratch}/out", here / "out")
    return {file.name: np.load(file) for file in sorted((here / "out").iterdir())}


def test_qemu_cores_give_the_same_bits(
    vpi: Path, int8_bundle: Path, host_outputs: dict[str, Array], tmp_path: Path
) -> None:
    for core in ("cortex-a72", "cortex-a76"):
        outputs = raw_outputs(connected(core, f"qemu:{core}"), int8_bundle, tmp_path / core)
        assert outputs.keys() == host_outputs.keys()
        for name, value in outputs.items():
            np.testing.assert_array_equal(value, host_outputs[name], strict=True)
    # A net whose outputs are all the same would prove nothing.
    assert len(np.unique(np.stack(list(host_outputs.values())))) > 10


@pytest.mark.parametrize("fixture", ["pi4", "pi5", "phone_arm64"])
def test_devices_give_the_same_bits(
    fixture: str, int8_bundle: Path, host_outputs: dict[str, Array], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lab = request.getfixturevalue(fixture)
    with connected(fixture, lab.address, **lab.options) as device:
        outputs = raw_outputs(device, int8_bundle, tmp_path)
    assert outputs.keys() == host_outputs.keys()
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, host_outputs[name], strict=True)


def validated(path: Path, device: Transport) -> Validation:
    with open_bundle(path) as bundle:
        return validate_bundle(bundle, device=device, runs=5, timeout_s=PATIENCE_S)


def test_validation_over_ssh_is_the_host_s(pi4: object, int8_bundle: Path, request: pytest.FixtureRequest) -> None:
    lab = request.getfixturevalue("pi4")
    with connected("kitchen", lab.address, **lab.options) as device:
        there = validated(int8_bundle, device)
    here = validated(int8_bundle, connected("here", "local"))
    assert there.passed
    assert there.device == "kitchen"
    assert there.outputs == here.outputs
    assert there.kernels["delegate"] == "XNNPACK"
    assert there.latency[0].median_ms > 0


def test_a_device_without_a_runtime_says_so(bare_pi: object, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It has Python and neither numpy nor LiteRT."""
    lab = request.getfixturevalue("bare_pi")
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    with connected("bare", lab.address, **lab.options) as device:
        result = validated(path, device)
    assert not result.passed
    errors = [finding for finding in result.findings if finding.severity == "error"]
    assert [finding.code for finding in errors] == ["validate/runtime-missing"]
    assert "numpy" in errors[0].message


def test_a_device_without_python_says_so(phone: object, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    lab = request.getfixturevalue("phone")
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    with connected("phone", lab.address, **lab.options) as device, pytest.raises(EdgecError) as caught:
        validated(path, device)
    assert caught.value.code == "device/missing"
    assert "python3" in caught.value.finding.message
