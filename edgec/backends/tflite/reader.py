"""Read a .tflite file back: inputs, outputs, operators, quantization, sizes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgec.backends.tflite.schema import DTYPE_OF, fb, op_name
from edgec.errors import EdgecError


def describe(data: bytes) -> dict[str, Any]:
    """What a .tflite file holds, JSON-ready. Raises `EdgecError` (source/not-tflite) for other bytes."""
    if data[4:8] != b"TFL3":
        raise EdgecError("source/not-tflite", "this is not a TFLite file", hint="a .tflite file has TFL3 at byte 4")
    try:
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
        return _describe(model, len(data))
    except EdgecError:
        raise
    except Exception as error:
        raise EdgecError("source/not-tflite", f"the TFLite file is damaged: {error}", hint="get it anew") from error


def _describe(model: Any, size: int) -> dict[str, Any]:
    graph = model.subgraphs[0]
    codes = [(max(c.builtinCode, c.deprecatedBuiltinCode), c.version, c.customCode) for c in model.operatorCodes]
    names = [op_name(code) if not custom else f"CUSTOM {custom.decode()}" for code, _, custom in codes]
    operators = Counter(names[op.opcodeIndex] for sub in model.subgraphs for op in sub.operators)
    quantized = [t for t in graph.tensors if _scales(t)]
    return {
        "format": "tflite",
        "size_bytes": size,
        "description": (model.description or b"").decode(errors="replace"),
        "inputs": [_tensor(graph.tensors[i]) for i in graph.inputs],
        "outputs": [_tensor(graph.tensors[i]) for i in graph.outputs],
        "operators": dict(sorted(operators.items())),
        "op_versions": {name: version for name, (_, version, _) in sorted(zip(names, codes, strict=True))},
        "quantization": {
            "tensors": len(graph.tensors),
            "quantized": len(quantized),
            "per_channel": sum(len(_scales(t)) > 1 for t in quantized),
        },
        "weights_bytes": sum(b.size if b.data is None else len(b.data) for b in model.buffers),
        "subgraphs": len(model.subgraphs),
        "metadata": sorted(m.name.decode() for m in model.metadata or ()),
    }


def _scales(tensor: Any) -> list[float]:
    found = tensor.quantization.scale if tensor.quantization is not None else None
    return [] if found is None else [float(s) for s in found]


def _tensor(tensor: Any) -> dict[str, Any]:
    shape = [] if tensor.shape is None else [int(d) for d in tensor.shape]
    dtype = DTYPE_OF.get(tensor.type)
    facts: dict[str, Any] = {"name": tensor.name.decode(), "shape": shape, "dtype": str(dtype or tensor.type)}
    scales = _scales(tensor)
    if scales:
        zeros = [] if tensor.quantization.zeroPoint is None else [int(z) for z in tensor.quantization.zeroPoint]
        facts["scale"], facts["zero_point"] = scales[:8], zeros[:8]
    return facts
