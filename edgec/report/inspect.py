"""What a bundle or a model file holds, told from the file alone: nothing is converted, nothing is run.

The kind of a file is read from its first bytes; its name decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError

Description = dict[str, Any]

#: Offset, magic bytes, who describes it; anything else is taken for ONNX.
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "bundle"),
    (4, b"TFL3", "tflite"),
    (0, b"<?xml", "openvino"),
    (0, b"<net", "openvino"),
)


def inspect_path(path: str, *, public_key: Path | None = None) -> Description:
    """A JSON-ready description; of a bundle with what was proven of it, checked with the key where one is given.

    Raises `EdgecError` (`source/…`, `bundle/…`, `io/…`) for what cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise EdgecError("source/not-found", f"{path} {what}", where=path, hint="give a bundle or a model file")
    with file.open("rb") as stream:
        head = stream.read(16)
    kind = next((kind for at, magic, kind in MAGIC if head[at : at + len(magic)] == magic), "onnx")
    described = _bundle(file, public_key) if kind == "bundle" else DESCRIBERS[kind](file)
    return {"path": path, "kind": kind, "file_bytes": file.stat().st_size, **described}


def _bundle(path: Path, public_key: Path | None) -> Description:
    from edgec.bundle.open import open_bundle
    from edgec.bundle.proofs import proof_lines, read_proofs

    with open_bundle(path, public_key=public_key) as bundle:
        manifest: Description = bundle.manifest.model_dump(mode="json")
        proofs, doubts = read_proofs(bundle, public_key=public_key)
    described = {key: value for key, value in manifest.items() if key not in ("inputs", "outputs", "files")}
    described["inputs"] = [_io(facts) for facts in manifest["inputs"]]
    described["outputs"] = [_io(facts) for facts in manifest["outputs"]]
    described["files"] = [
        {"file": name, "size_bytes": facts["size"], "sha256": facts["sha256"]}
        for name, facts in manifest["files"].items()
    ]
    if proofs:
        described["proofs"] = proof_lines(proofs)
    described["findings"] = [*described["findings"], *(finding.as_dict() for finding in doubts)]
    return described


def _io(facts: Description) -> Description:
    """One input or output: the source model's side, and what the artifact makes of it."""
    source, artifact = facts["source"], facts["artifact"]
    described = {"name": source["name"], "dtype": source["dtype"], "shape": source["shape"]}
    described |= {"artifact_dtype": artifact["dtype"], "artifact_shape": artifact["shape"]}
    if artifact["qparams"]:
        described |= {"scale": artifact["qparams"]["scale"][0], "zero_point": artifact["qparams"]["zero_point"][0]}
    return described


def _tflite(path: Path) -> Description:
    from edgec.backends.tflite.reader import describe

    return dict(describe(path.read_bytes()))


def _openvino(path: Path) -> Description:
    from xml.etree import ElementTree as ET

    try:
        net = ET.parse(path).getroot()  # noqa: S314  expat limits entity expansion since 2.4.1
    except ET.ParseError as error:
        raise EdgecError("source/malformed", f"{path.name} is not well-formed XML: {error}", where=str(path)) from error
    layers = net.findall("./layers/layer")
    if net.tag != "net" or not layers:
        raise EdgecError("source/malformed", f"{path.name} is XML but no OpenVINO model", where=str(path))
    counts = Counter(str(layer.get("type")) for layer in layers)
    weights = path.with_suffix(".bin")
    inner = {kind: count for kind, count in sorted(counts.items()) if kind not in ("Const", "Parameter", "Result")}
    return {
        "format": f"OpenVINO IR {net.get('version')}",
        "name": net.get("name"),
        "weights_bytes": weights.stat().st_size if weights.is_file() else None,
        "inputs": [_ir_port(layer, "output") for layer in layers if layer.get("type") == "Parameter"],
        "outputs": [_ir_port(layer, "input") for layer in layers if layer.get("type") == "Result"],
        "operators": inner,
        "quantization": {"FakeQuantize": counts.get("FakeQuantize", 0), "constants": _constants(layers)},
    }


def _ir_port(layer: Any, side: str) -> Description:
    port = layer.find(f"./{side}/port")
    shape = [int(dim.text) for dim in port.findall("dim")] if port is not None else []
    return {"name": layer.get("name"), "dtype": str(port.get("precision")).lower(), "shape": shape}


def _constants(layers: list[Any]) -> dict[str, int]:
    types = Counter(str(layer.find("data").get("element_type")) for layer in layers if layer.get("type") == "Const")
    return dict(sorted(types.items()))


def _onnx(path: Path) -> Description:
    import onnx_ir as ir

    try:
        model = ir.load(path)
    except Exception as error:
        raise EdgecError(
            "source/not-onnx",
            f"{path.name} is no bundle, TFLite, OpenVINO or readable ONNX file",
            where=str(path),
            hint=f"the ONNX reader says: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        ) from error
    if not len(model.graph) and not model.graph.outputs:  # an empty or foreign file can parse as an empty message
        raise EdgecError("source/not-onnx", f"{path.name} is no bundle, TFLite, OpenVINO or ONNX file", where=str(path))
    operators = Counter(node.op_type for node in model.graph.all_nodes())
    weights = list(model.graph.initializers.values())
    return {
        "format": f"ONNX, IR version {model.ir_version}",
        "opset": {domain or "ai.onnx": version for domain, version in model.opset_imports.items()},
        "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
        "inputs": [_value(value) for value in model.graph.inputs if value.name not in model.graph.initializers],
        "outputs": [_value(value) for value in model.graph.outputs],
        "operators": dict(sorted(operators.items())),
        "parameters": sum(int(w.const_value.size) for w in weights if w.const_value is not None),
        "weights_bytes": sum(int(w.const_value.nbytes) for w in weights if w.const_value is not None),
        "quantization": {
            "QuantizeLinear": operators.get("QuantizeLinear", 0),
            "DequantizeLinear": operators.get("DequantizeLinear", 0),
            "constants": dict(sorted(Counter(_dtype(w) for w in weights).items())),
        },
    }


def _value(value: Any) -> Description:
    shape = [dim if isinstance(dim, int) else str(dim) for dim in value.shape] if value.shape is not None else None
    return {"name": value.name, "dtype": _dtype(value), "shape": shape}


def _dtype(value: Any) -> str:
    """numpy's name of an element type, ONNX's own where numpy has none."""
    try:
        return str(value.dtype.numpy())
    except (AttributeError, TypeError):
        return "unknown" if value.dtype is None else str(value.dtype.name).lower()


DESCRIBERS: dict[str, Callable[[Path], Description]] = {
    "tflite": _tflite,
    "openvino": _openvino,
    "onnx": _onnx,
}
