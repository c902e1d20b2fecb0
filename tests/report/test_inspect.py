"""What a file holds is told from the file alone, whatever its name."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgec.errors import EdgecError
from edgec.report.inspect import inspect_path

NET = """<ir_version: 10, opset_import: ["" : 21], producer_name: "me">
net (float[N,4] x) => (float[N,2] y)
<float[4,2] w = {1,2,3,4,5,6,7,8}>
{ h = Relu (x)  y = MatMul (h, w) }"""

IR = """<?xml version="1.0"?><net name="net" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data element_type="f32"/><output><port id="0" precision="FP32">
<dim>1</dim><dim>4</dim></port></output></layer>
<layer id="1" name="w" type="Const" version="opset1"><data element_type="i8"/></layer>
<layer id="2" name="mm" type="MatMul" version="opset1"/>
<layer id="3" name="y" type="Result" version="opset1"><input><port id="0" precision="FP32"><dim>1</dim><dim>2</dim></port></input></layer>
</layers></net>"""  # noqa: E501  one layer a line


def test_onnx_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    onnx.save(onnx.parser.parse_model(NET), path)
    told = inspect_path(str(path))
    assert told["kind"] == "onnx"
    assert told["opset"] == {"ai.onnx": 21}
    assert told["producer"] == "me"
    assert told["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 4]}]
    assert told["outputs"] == [{"name": "y", "dtype": "float32", "shape": ["N", 2]}]
    assert told["operators"] == {"MatMul": 1, "Relu": 1}
    assert (told["parameters"], told["weights_bytes"]) == (8, 32)
    assert told["quantization"] == {"QuantizeLinear": 0, "DequantizeLinear": 0, "constants": {"float32": 1}}


def test_openvino_ir(tmp_path: Path) -> None:
    path = tmp_path / "net.xml"
    path.write_text(IR, "utf-8")
    path.with_suffix(".bin").write_bytes(bytes(8))
    told = inspect_path(str(path))
    assert told["kind"] == "openvino"
    assert told["operators"] == {"MatMul": 1}
    assert told["inputs"] == [{"name": "x", "dtype": "fp32", "shape": [1, 4]}]
    assert told["outputs"] == [{"name": "y", "dtype": "fp32", "shape": [1, 2]}]
    assert told["weights_bytes"] == 8
    assert told["quantization"] == {"FakeQuantize": 0, "constants": {"i8": 1}}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "source/not-onnx"),
        (b"hello", "source/not-onnx"),
        (b"\xff" * 100, "source/not-onnx"),
        (b"<?xml version='1.0'?><html/>", "source/malformed"),
        (b"<net name='a'><layers>", "source/malformed"),
        (b"PK\x03\x04 and no zip", "bundle/"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "thing"
    path.write_bytes(data)
    with pytest.raises(EdgecError) as caught:
        inspect_path(str(path))
    assert caught.value.code.startswith(code)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(EdgecError) as caught:
            inspect_path(str(path))
        assert caught.value.code == "source/not-found"
