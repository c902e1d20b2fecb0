"""Packing: the same bytes each time, the whole file or none."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle import pack as pack_module
from edgec.bundle.archive import write_archive
from edgec.bundle.open import open_bundle
from edgec.errors import EdgecError, Finding, Severity
from tests.support import tiny_bundles as tiny

ROOT = Path(__file__).resolve().parents[2]


def test_two_packs_are_byte_identical(tmp_path: Path) -> None:
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    one = tiny.pack(tmp_path / "one.edgec", artifact, goldens=goldens)
    other = tiny.pack(tmp_path / "deep" / "folder" / "other.edgec", artifact, goldens=goldens)
    assert one.read_bytes() == other.read_bytes()


def test_another_hash_seed_and_folder_give_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support import tiny_bundles as t; "
        "t.pack(Path(sys.argv[1]), t.tflite_artifact(int8=True))"
    )
    packed = []
    for seed in ("1", "2"):
        path = tmp_path / f"folder{seed}" / "x.edgec"
        path.parent.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", script, str(path)], check=True, cwd=path.parent, env=environment)
        packed.append(path.read_bytes())
    assert packed[0] == packed[1]


def test_manifest_tells_the_whole_story(tmp_path: Path) -> None:
    finding = Finding(code="quant/x", message="m", severity=Severity.INFO)
    path = tiny.pack(
        tmp_path / "x.edgec",
        tiny.tflite_artifact(int8=True),
        findings=[finding],
        fidelity={"y": {"sqnr_db": 40.5}},
        output_steps={"y": 0.1},
        report_html=b"<p>report</p>",
    )
    with open_bundle(path) as bundle:
        manifest = bundle.manifest
        assert (manifest.name, manifest.backend, manifest.precision) == ("tiny", "tflite", "int8")
        assert manifest.target.id == "bench"
        assert manifest.target.runtime.package == "ai-edge-litert"
        assert manifest.requirements == {"ai-edge-litert": "1.0"}
        assert manifest.labels == ("first", "second")
        assert manifest.preprocessing == {"mean": [0.5, 0.5], "layout": "NCHW"}
        assert manifest.fidelity == {"y": {"sqnr_db": 40.5}}
        assert manifest.findings == ({"code": "quant/x", "message": "m", "severity": "info"},)
        assert manifest.outputs[0].step == 0.1
        assert bundle.inputs == tiny.tflite_artifact(int8=True).inputs
        assert bundle.outputs == tiny.tflite_artifact(int8=True).outputs
        assert bundle.read("report.html") == b"<p>report</p>"
        assert bundle.read("agent.py").startswith(b'"""')
        assert set(bundle.names) >= {"manifest.json", "model.tflite", "run.sh", "sbom.cdx.json", "report.json"}


def test_bundle_names_neither_folder_nor_host(tmp_path: Path) -> None:
    data = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact()).read_bytes()
    assert str(tmp_path).encode() not in data
    assert str(Path.home()).encode() not in data.replace(b"/root", b"") or str(Path.home()) == "/root"


def test_goldens_come_back_bit_for_bit_and_derivable_files_are_left_out(tmp_path: Path) -> None:
    for artifact in (tiny.tflite_artifact(), tiny.tflite_artifact(int8=True)):
        goldens = tiny.goldens(artifact)
        with open_bundle(tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens)) as bundle:
            for stored, given in zip(bundle.goldens(), goldens, strict=True):
                for field in ("inputs", "raw_inputs", "raw_outputs", "reference_outputs", "float_outputs"):
                    have, want = getattr(stored, field), getattr(given, field)
                    assert have.keys() == want.keys()
                    for name in want:
                        assert have[name].dtype == want[name].dtype
                        np.testing.assert_array_equal(have[name], want[name])
            # A float artifact's source input is its raw input, transposed; an int8 one's is not.
            assert ("golden/000/source.0.npy" in bundle.names) == (artifact.precision == "int8")
            assert ("golden/000/reference.0.npy" in bundle.names) == (artifact.precision == "int8")


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    real = write_archive

    def fill_up(stream: Any, files: Any) -> None:
        real(stream, dict(list(files.items())[:3]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack_module, "write_archive", fill_up)
    with pytest.raises(EdgecError) as caught:
        tiny.pack(tmp_path / "out" / "x.edgec", artifact, goldens=goldens)
    assert caught.value.code == "io/disk-full"
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace", "interrupt"])
def test_failure_at_any_step_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    path = tiny.pack(tmp_path / "x.edgec", artifact, goldens=goldens)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt if step == "interrupt" else OSError(errno.EIO, "Input/output error")

    if step == "replace":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt if step == "interrupt" else EdgecError) as caught:
        tiny.pack(path, artifact, goldens=goldens, name="other")
    monkeypatch.undo()
    if step != "interrupt":
        assert isinstance(caught.value, EdgecError)
        assert caught.value.code == "io/not-writable"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.edgec"]
    assert path.read_bytes() == before


def test_a_folder_that_is_a_file_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(EdgecError) as caught:
        tiny.pack(tmp_path / "taken" / "x.edgec", tiny.tflite_artifact())
    assert caught.value.code == "io/not-writable"


def test_backend_cannot_overwrite_the_bundles_own_files(tmp_path: Path) -> None:
    from dataclasses import replace

    artifact = tiny.tflite_artifact()
    goldens = tiny.goldens(artifact)
    for name in ("manifest.json", "agent.py", "signature", "golden/000/raw.0.npy"):
        clash = replace(artifact, files={**artifact.files, name: b"x"})
        with pytest.raises(EdgecError) as caught:
            tiny.pack(tmp_path / "x.edgec", clash, goldens=goldens)
        assert caught.value.code == "internal/duplicate"


def test_bindings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    artifact = tiny.tflite_artifact()
    wrong = replace(artifact, inputs=(replace(artifact.inputs[0], perm=None),))
    with pytest.raises(EdgecError) as caught:
        tiny.pack(tmp_path / "x.edgec", wrong, goldens=[])
    assert caught.value.code == "internal/bad-manifest"
    assert list(tmp_path.iterdir()) == []


def test_nan_is_refused_rather_than_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact(), fidelity={"sqnr": float("nan")})
    assert caught.value.code == "internal/not-json"
    assert list(tmp_path.iterdir()) == []


def test_sbom_is_a_complete_cyclonedx_document(tmp_path: Path) -> None:
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.openvino_artifact())) as bundle:
        sbom = json.loads(bundle.read("sbom.cdx.json"))
        digests = {name: facts.sha256 for name, facts in bundle.manifest.files.items()}
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["serialNumber"].startswith("urn:uuid:")
    assert "timestamp" not in sbom["metadata"]
    model = sbom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert {c["name"]: c["hashes"][0]["content"] for c in model["components"]} == {
        name: digests[name] for name in ("model.bin", "model.xml")
    }
    assert [(c["name"], c["version"]) for c in sbom["components"]] == [("openvino", ">=2024.0")]
    references = [model["bom-ref"], *(c["bom-ref"] for c in sbom["components"])]
    assert [d["ref"] for d in sbom["dependencies"]] == references


def test_unpacked_bundle_checks_itself_with_nothing_of_edgec(tmp_path: Path) -> None:
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())) as bundle:
        bundle.extract(tmp_path / "device")
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable}
    run = [str(tmp_path / "device" / "run.sh")]
    passed = subprocess.run(run, check=False, capture_output=True, env=environment, cwd=tmp_path)
    assert passed.returncode == 0, passed.stderr
    assert json.loads(passed.stdout)["passed"] is True
    # And it notices: another expectation fails.
    golden = tmp_path / "device" / "golden" / "000" / "raw.0.npy"
    np.save(golden, np.load(golden) + np.float32(1))
    failed = subprocess.run(run, check=False, capture_output=True, env=environment, cwd=tmp_path)
    assert failed.returncode == 1
    assert "golden 0" in json.loads(failed.stdout)["failures"][0]
