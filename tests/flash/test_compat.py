"""What stands in the way of a bundle on a device, each rule with the device that passes beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgec.bundle.manifest import Manifest
from edgec.bundle.open import open_bundle
from edgec.devices.base import Facts
from edgec.errors import EdgecError
from edgec.flash.compat import examine, first_releases, numbers, runtime_problem
from edgec.flash.wheels import tags
from tests.support import flashing
from tests.support import tiny_bundles as tiny

FACTS = replace(flashing.FACTS, python="3.11.2", packages={"ai-edge-litert": "2.1.0", "numpy": "1.26"})
OLD = {"tflite-runtime": "2.5.0", "numpy": "1.26"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path = flashing.pack(tmp_path_factory.mktemp("bundle") / "a.edgec", artifact=tiny.tflite_artifact())
    with open_bundle(path) as bundle:
        return bundle.manifest


def found(manifest: Manifest, facts: Facts, **changes: Any) -> dict[str, str]:
    arguments = {"send_bytes": 1000, "free_bytes": 1 << 30, "brings_runtime": False, **changes}
    return {f.code: str(f.severity) for f in examine(manifest, facts, **arguments)}


def test_a_fitting_device(manifest: Manifest) -> None:
    assert found(manifest, FACTS) == {}
    assert found(manifest, replace(FACTS, arch="AMD64", system="", libc="")) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"arch": "aarch64"}, {"flash/wrong-architecture": "error"}),
        ({"system": "Windows"}, {"flash/wrong-system": "error"}),
        ({"python": "3.7.3"}, {"flash/no-python": "warning"}),
        ({"packages": {"numpy": "1"}}, {"flash/runtime-missing": "error"}),
        ({"packages": {"ai-edge-litert": "2.1.0"}}, {"flash/runtime-missing": "error"}),
        ({"packages": {"ai-edge-litert": "0.9", "numpy": "1"}}, {"flash/runtime-too-old": "error"}),
        ({"memory_free_bytes": 10 << 20}, {"flash/no-memory": "error"}),
        ({"sys_visible": False}, {"flash/no-sys": "warning"}),
    ],
)
def test_each_rule(manifest: Manifest, changes: dict[str, Any], expected: dict[str, str]) -> None:
    result = found(manifest, replace(FACTS, **changes))
    assert expected.items() <= result.items()
    assert set(result) - set(expected) <= {"flash/no-python"}


def test_everything_at_once(manifest: Manifest) -> None:
    facts = replace(FACTS, arch="armv7l", system="Darwin", packages={}, memory_free_bytes=1)
    assert set(found(manifest, facts, free_bytes=0)) == {
        "flash/wrong-architecture",
        "flash/wrong-system",
        "flash/runtime-missing",
        "flash/no-space",
        "flash/no-memory",
    }


def test_space_counts_what_is_sent(manifest: Manifest) -> None:
    assert found(manifest, FACTS, send_bytes=100 << 20, free_bytes=104 << 20) == {}
    assert found(manifest, FACTS, send_bytes=100 << 20, free_bytes=103 << 20) == {"flash/no-space": "error"}


def test_a_runtime_that_travels_needs_python(manifest: Manifest) -> None:
    assert found(manifest, replace(FACTS, packages={}), brings_runtime=True) == {}
    assert found(manifest, replace(FACTS, python=""), brings_runtime=True) == {"flash/no-python": "error"}


def test_missing_features_are_a_warning(manifest: Manifest) -> None:
    hardware = manifest.target.hardware.model_copy(update={"features": ("avx2", "fma")})
    fast = manifest.model_copy(update={"target": manifest.target.model_copy(update={"hardware": hardware})})
    assert found(fast, replace(FACTS, features=("avx2",))) == {"flash/missing-features": "warning"}
    assert found(fast, replace(FACTS, features=("avx2", "fma", "sse"))) == {}
    assert found(fast, replace(FACTS, features=())) == {}


def test_an_old_runtime_is_told_which_operators_it_lacks(manifest: Manifest) -> None:
    new = manifest.model_copy(update={"op_versions": {"CONV_2D": 6, "GELU": 1, "MUL": 1, "RESHAPE": 1}})
    problem = runtime_problem(new, replace(FACTS, packages=OLD))
    assert problem is not None
    assert problem.code == "flash/runtime-too-old"
    assert "CONV_2D version 6 needs 2.9; GELU version 1 needs 2.9" in problem.message
    assert runtime_problem(new, replace(FACTS, packages={**OLD, "tflite-runtime": "2.14.0"})) is None
    assert runtime_problem(manifest, replace(FACTS, packages=OLD)) is None


def test_the_successor_is_taken_where_both_are_there(manifest: Manifest) -> None:
    assert runtime_problem(manifest, replace(FACTS, packages={**OLD, "ai-edge-litert": "2.0"})) is None


def test_the_table_of_releases_is_plausible() -> None:
    for op, rows in first_releases().items():
        versions = sorted(rows)
        releases = [numbers(rows[version]) for version in versions]
        assert releases == sorted(releases), f"{op}: a later version in an earlier release"
        assert all((2, 3) <= release <= (2, 20) for release in releases)


@pytest.mark.parametrize(
    ("libc", "first", "count"),
    [("glibc 2.36", "manylinux_2_35_aarch64", 9), ("glibc 2.31", "manylinux_2_31_aarch64", 7)],
)
def test_wheels_are_not_newer_than_the_devices_glibc(libc: str, first: str, count: int) -> None:
    found_tags = tags(replace(FACTS, arch="aarch64", libc=libc))
    assert found_tags[0] == first
    assert "manylinux2014_aarch64" in found_tags
    assert len(found_tags) == count


@pytest.mark.parametrize("libc", ["musl 1.2.3", "bionic", "", "glibc 3.1"])
def test_other_libraries_have_no_wheels(libc: str) -> None:
    with pytest.raises(EdgecError) as caught:
        tags(replace(FACTS, libc=libc))
    assert caught.value.code == "flash/no-wheel"


def test_a_bundle_that_needs_nothing_is_never_refused_for_it(tmp_path: Path) -> None:
    with open_bundle(flashing.pack(tmp_path / "a.edgec")) as bundle:
        assert runtime_problem(bundle.manifest, replace(FACTS, packages={})) is None
