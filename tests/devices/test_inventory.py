"""The inventory: what it names, where it is found, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.devices.inventory import find_inventory, read_inventory
from edgec.devices.open import check_options, open_device, resolve_device
from edgec.errors import EdgecError

GOOD = """
[devices.kitchen]
address = "local:/srv/kitchen"
groups = ["lab", "floor 1"]
labels = { room = "kitchen" }
target = "raspberrypi4"

[devices.attic]
address = "ssh:pi@attic:2222"
groups = ["lab"]
identity = "keys/attic"
known_hosts = "~/known"
keepalive_s = 2
"""


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "devices.toml"
    path.write_text(text)
    return path


def test_devices_have_names_groups_labels(tmp_path: Path) -> None:
    inventory = read_inventory(written(tmp_path, GOOD))
    assert list(inventory.devices) == ["kitchen", "attic"]
    assert [device.name for device in inventory.group("lab")] == ["kitchen", "attic"]
    assert [device.name for device in inventory.group("floor 1")] == ["kitchen"]
    kitchen = inventory.devices["kitchen"]
    assert (kitchen.labels, kitchen.target) == ({"room": "kitchen"}, "raspberrypi4")
    device = open_device("kitchen", inventory=inventory)
    assert (device.name, device.home) == ("kitchen", "/srv/kitchen")


def test_files_are_named_from_the_inventory_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    inventory = read_inventory(written(tmp_path / "lab", GOOD))
    with open_device("attic", inventory=inventory) as device, pytest.raises(EdgecError) as caught:
        device.exec(["true"], timeout_s=5)
    assert caught.value.finding.where in (str(tmp_path / "lab/keys/attic"), str(tmp_path / "home/known"))


def test_it_is_found_here_then_in_the_user_s_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEC_INVENTORY", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert find_inventory().devices == {}
    own = written(tmp_path / "config" / "edgec", '[devices.own]\naddress = "local"\n')
    assert list(find_inventory().devices) == ["own"]
    written(tmp_path / "here", '[devices.near]\naddress = "local"\n')
    assert list(find_inventory().devices) == ["near"]
    assert list(find_inventory(own).devices) == ["own"]
    monkeypatch.setenv("EDGEC_INVENTORY", str(own))
    assert list(find_inventory().devices) == ["own"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[devices.a\n", ["TOML"]),
        ('[device.a]\naddress = "local"\n', ["device: there is no such key", "'devices'"]),
        ("[devices.a]\n", ["devices.a.address", "required"]),
        ('[devices.a]\naddress = ""\n', ["devices.a.address"]),
        ('[devices.a]\naddress = "shh:x"\n', ["devices.a.address", "'shh'", "'ssh'"]),
        ('[devices.local]\naddress = "local"\n', ["devices.local", "kind of device"]),
        ('[devices."a:b"]\naddress = "local"\n', ["devices.a:b", "colon"]),
        ('[devices.a]\naddress = "local"\ngroups = "lab"\n', ["devices.a.groups"]),
        ('[devices.a]\naddress = "local"\nlabels = { n = 1 }\n', ["devices.a.labels.n"]),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(tmp_path: Path, text: str, words: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(EdgecError) as caught:
        read_inventory(path)
    shown = caught.value.render()
    assert caught.value.code in ("device/inventory", "device/inventory-syntax")
    assert str(path) in shown
    for word in words:
        assert word in shown


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, '[devices.a]\naddress = "x:1"\n[devices.ssh]\naddress = "local"\n')
    with pytest.raises(EdgecError) as caught:
        read_inventory(path)
    assert len(caught.value.findings) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('identiy = "x"', ["devices.a.identiy", "did you mean 'identity'"]),
        ("keepalive_s = 0", ["devices.a.keepalive_s", "greater than 0"]),
        ("keepalive_s = 'soon'", ["devices.a.keepalive_s"]),
        ('home = "relative"', ["devices.a.home"]),
        ("python = []", ["devices.a.python"]),
    ],
)
def test_options_belong_to_the_kind(tmp_path: Path, options: str, words: list[str]) -> None:
    inventory = read_inventory(written(tmp_path, f'[devices.a]\naddress = "ssh:a"\n{options}\n'))
    with pytest.raises(EdgecError) as caught:
        check_options(inventory.devices["a"])
    assert caught.value.code == "device/inventory"
    for word in words:
        assert word in caught.value.render()


def test_a_local_device_has_no_options(tmp_path: Path) -> None:
    inventory = read_inventory(written(tmp_path, '[devices.a]\naddress = "local"\nport = 22\n'))
    with pytest.raises(EdgecError) as caught:
        open_device("a", inventory=inventory)
    assert "devices.a.port" in caught.value.render()


def test_unknown_names_and_groups_have_neighbours(tmp_path: Path) -> None:
    inventory = read_inventory(written(tmp_path, GOOD))
    with pytest.raises(EdgecError) as caught:
        resolve_device("kichen", inventory=inventory)
    assert caught.value.code == "cli/unknown-device"
    assert "'kitchen'" in caught.value.finding.hint
    with pytest.raises(EdgecError) as caught:
        inventory.group("laab")
    assert caught.value.code == "device/unknown-group"
    assert "'lab'" in caught.value.finding.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        find_inventory(tmp_path / "none.toml")
    assert caught.value.code == "device/inventory"
    assert str(tmp_path / "none.toml") in caught.value.render()
