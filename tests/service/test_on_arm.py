"""serve.pyz on an Arm device: Debian's own Python 3.11 for aarch64, under QEMU, with LiteRT's aarch64 wheels."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.base import Transport
from tests.support import serving
from tests.support import tiny_bundles as tiny
from tests.support.devlab import connected

#: An emulated start of Python, numpy and LiteRT, twice (the service, and the model's process), on a busy machine.
PATIENCE_S = 600.0
_START = 'trap "" HUP; cd "$1"; "$2" root/serve.pyz serve --root root --port 0 >said 2>log </dev/null & echo $!'


@pytest.mark.slow
def test_it_answers_with_the_bundles_bits(pi4: Any, tmp_path: Path) -> None:
    path = serving.pack(tmp_path / "a.edgec", int8=True)
    with open_bundle(path) as bundle, connected("pi4", pi4.address, **pi4.options) as device, device.scratch() as place:
        device.push(serving.unpack(path, tmp_path / "root"), f"{place}/root")
        started = device.exec(["sh", "-c", _START, "sh", place, device.python[0]], timeout_s=PATIENCE_S)
        pid = started.stdout.decode().strip()
        try:
            _wait_for(device, f"{place}/said", f"{place}/log")
            listening = json.loads(device.read_bytes(f"{place}/said"))["listening"]
            # The virtual Pi has this machine's network: its loopback is ours.
            service = serving.Service(None, listening, tmp_path / "log")  # type: ignore[arg-type]
            end = time.monotonic() + PATIENCE_S
            while not service.ready()["ready"]:
                assert time.monotonic() < end, device.read_bytes(f"{place}/log")
                time.sleep(0.5)
            x = tiny.sample(3)
            status, answer = service.infer({"x": x.tolist()})
            assert status == 200
            (name, expected), *_ = bundle.run({"x": x}).items()
            np.testing.assert_array_equal(np.asarray(answer["outputs"][name], np.float32), expected)
            assert service.ask("GET", "/v1/model")[1]["runtime"].startswith("ai-edge-litert ")
            assert service.metrics()['edgec_requests_total{code="200"}'] == 1
        finally:
            device.exec(["kill", pid], timeout_s=PATIENCE_S)


def _wait_for(device: Transport, file: str, log: str) -> None:
    """Until the service has said where it listens."""
    end = time.monotonic() + PATIENCE_S
    while not device.read_bytes(file).endswith(b"\n"):
        assert time.monotonic() < end, device.read_bytes(log)
        time.sleep(0.5)
