"""A bundle, and the model file in it, tell what they hold; the command line builds, validates and inspects one."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgec.cli.app import main

NET = """<ir_version: 10, opset_import: ["" : 21]>
net (float[1,3,8,8] x) => (float[1,4,8,8] y)
<float[4,3,1,1] w = {1,2,3,4,5,6,7,8,9,10,11,12}>
{ c = Conv (x, w)  y = Relu (c) }"""


@pytest.mark.parametrize("backend", ["tflite", "openvino"])
def test_build_validate_inspect(tmp_path: Path, capfd: pytest.CaptureFixture[str], backend: str) -> None:
    def answer(*arguments: str) -> dict[str, object]:
        capfd.readouterr()
        assert main([*arguments, "--json"]) == 0
        told: dict[str, object] = json.loads(capfd.readouterr().out)
        return told

    source = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(NET), source)
    build = ["build", str(source), "--target", "linux-x86_64", "--backend", backend, "--precision", "float32"]
    built = answer(*build, "--output", str(tmp_path))
    assert (built["target"], built["backend"], built["precision"]) == ("linux-x86_64", backend, "float32")
    assert answer("validate", str(built["bundle"]))["passed"] is True

    told = answer("inspect", str(built["bundle"]))
    assert (told["kind"], told["backend"], told["precision"]) == ("bundle", backend, "float32")
    assert told["inputs"][0]["shape"] == [1, 3, 8, 8]  # type: ignore[index]  # JSON
    assert {"manifest.json", "agent.py"} - {entry["file"] for entry in told["files"]} == {"manifest.json"}  # type: ignore[attr-defined]  # JSON

    answer(*build, "--output", str(tmp_path), "--stop-after", "compile")
    model = tmp_path / ("net.tflite" if backend == "tflite" else "net.xml")
    told = answer("inspect", str(model))
    assert told["kind"] == backend
    assert told["operators"]


def test_a_build_that_fails_says_so_and_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "net.onnx"
    source.write_bytes(b"no model")
    assert main(["build", str(source), "--target", "raspberrypi", "--output", str(tmp_path), "--json"]) == 3
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["code"].startswith("source/")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [source]
