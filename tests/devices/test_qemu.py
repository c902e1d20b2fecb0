"""Genuine aarch64 programs on this machine's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.errors import EdgecError
from tests.support.devlab import connected


@pytest.mark.parametrize(("core", "has_dot_product"), [("cortex-a72", False), ("cortex-a76", True)])
def test_the_core_is_the_one_asked_for(vpi: Path, core: str, has_dot_product: bool) -> None:
    with connected("core", f"qemu:{core}") as device:
        assert device.exec(["uname", "-m"], timeout_s=120).stdout == b"aarch64\n"
        code = "print('asimddp' in open('/proc/cpuinfo').read())"
        result = device.exec([*device.python, "-c", code], timeout_s=120)
        assert result.stdout.decode().strip() == str(has_dot_product)


def test_packages_may_be_left_out_or_added(vpi: Path, tmp_path: Path) -> None:
    """Without the site there is no runtime; a release that brings one names it in PYTHONPATH, before the site."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "numpy.py").write_text("mine = True\n")
    options = {"root": str(vpi / "root"), "qemu": str(vpi / "qemu-aarch64")}
    with connected("core", "qemu:cortex-a72", **options) as bare:
        assert bare.exec([*bare.python, "-c", "import numpy"], timeout_s=120).returncode == 1
    with connected("core", "qemu:cortex-a72", **options, site=str(vpi / "site")) as device:
        code = "import numpy; print(numpy.mine)"
        result = device.exec([*device.python, "-c", code], timeout_s=120, env={"PYTHONPATH": str(tmp_path / "extra")})
        assert result.stdout == b"True\n"


@pytest.mark.parametrize("address", ["", "../x", "cortex a72"])
def test_addresses_that_cannot_be_read(address: str) -> None:
    with pytest.raises(EdgecError) as caught:
        connected("core", f"qemu:{address}")
    assert caught.value.code == "device/bad-address"


def test_a_core_that_qemu_does_not_know(vpi: Path) -> None:
    with connected("core", "qemu:cortex-a1000") as device, pytest.raises(EdgecError) as caught:
        device.exec(["uname"], timeout_s=120)
    assert caught.value.code == "device/bad-address"


def test_without_its_files_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_DEVLAB", str(tmp_path))
    with connected("core", "qemu:cortex-a72") as device, pytest.raises(EdgecError) as caught:
        device.exec(["uname"], timeout_s=120)
    assert caught.value.code == "device/unavailable"
    assert "make devlab" in caught.value.finding.hint
