"""A whole emulated board: its own kernel, memory and processor, and a power switch."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edgec.devices.fit import fit_target
from edgec.devices.probe import probe
from edgec.errors import EdgecError
from tests.support.devlab import connected
from tools.devlab import board
from tools.devlab.common import UnavailableError


@pytest.mark.slow
def test_a_board_boots_is_recognised_and_loses_power(tmp_path: Path) -> None:
    try:
        with (
            board.running(tmp_path / "board", core="cortex-a72", cpus=2, memory_mib=1024) as server,
            connected("board", server.address, **server.options, keepalive_s=2.0) as device,
        ):
            facts = probe(device)
            assert (facts.arch, facts.cpu, facts.cpus) == ("aarch64", "Cortex-A72", 2)
            assert 700 << 20 < facts.memory_bytes <= 1024 << 20
            assert facts.emulated == "qemu-system"
            assert facts.packages["ai-edge-litert"]
            assert facts.disk_free_bytes > 1 << 20
            assert fit_target(facts).target == "raspberrypi4"
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(EdgecError) as caught:
                device.exec(["sleep", "60"], timeout_s=120)
            assert caught.value.code in ("device/lost", "device/unreachable")
    except UnavailableError as error:
        pytest.skip(str(error))
