"""A MindIR to ONNX, by MindSpore's own export.

Run as `python -P mindspore_to_onnx.py request.json response.json` in the Python that has MindSpore; imports nothing
of edgec.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from refusal import SourceError, answer, essence


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write `request["output"]`; the version."""
    os.environ.setdefault("GLOG_v", "3")
    import mindspore
    import onnx

    source, given = Path(request["source"]), request["inputs"]
    declared = inputs_of(source)
    for name in given:
        if name not in declared:
            raise SourceError(
                "source/unknown-input", f"the model has no input {name!r}", "it has: " + ", ".join(declared)
            )
    shapes = {
        name: given.get(name, [1 if i == 0 and d < 1 else d for i, d in enumerate(dims)])
        for name, (dims, _) in declared.items()
    }
    loose = {name: shape for name, shape in shapes.items() if any(d < 1 for d in shape)}
    if loose:
        flags = " ".join(f"--input {n}:{'x'.join('?' if d < 1 else str(d) for d in s)}" for n, s in loose.items())
        raise SourceError(
            "source/free-dimension",
            f"the shape of {', '.join(loose)} is not fixed, and cannot be guessed",
            f"give it, with numbers for the ?: {flags}",
        )
    feeds = [
        mindspore.Tensor(shape=tuple(s), dtype=declared[n][1], init=mindspore.common.initializer.Zero())
        for n, s in shapes.items()
    ]
    try:
        net = mindspore.nn.GraphCell(mindspore.load(str(source)))
        mindspore.export(net, *feeds, file_name=request["output"], file_format="ONNX")
    except Exception as error:
        raise SourceError(
            "source/export-failed",
            f"MindSpore cannot export {source.name} to ONNX: {essence(error)}",
            "export it where it was trained: mindspore.export(net, input, file_name='model', file_format='ONNX')",
        ) from error
    proto = onnx.load(request["output"])
    for value, name in zip(proto.graph.input, shapes, strict=False):
        old = value.name
        value.name = name
        for node in proto.graph.node:
            node.input[:] = [name if i == old else i for i in node.input]
    onnx.save(proto, request["output"])
    return {"findings": [], "versions": {"mindspore": mindspore.__version__}}


def inputs_of(path: Path) -> dict[str, tuple[list[int], Any]]:
    """Dimensions and type of each input, by name."""
    import mindspore
    from mindspore.train import mind_ir_pb2 as ir

    model = ir.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:
        raise SourceError("source/truncated", f"{path.name} is no complete MindIR: {essence(error)}") from error
    types = {
        ir.TensorProto.FLOAT: mindspore.float32,
        ir.TensorProto.FLOAT16: mindspore.float16,
        ir.TensorProto.INT32: mindspore.int32,
        ir.TensorProto.INT64: mindspore.int64,
        ir.TensorProto.INT8: mindspore.int8,
        ir.TensorProto.UINT8: mindspore.uint8,
        ir.TensorProto.BOOL: mindspore.bool_,
    }
    found = {}
    for value in model.graph.input:
        tensor = value.tensor[0]
        if tensor.data_type not in types:
            raise SourceError("graph/unsupported-type", f"input {value.name!r} has a type that no target takes")
        found[value.name] = (list(tensor.dims), types[tensor.data_type])
    # 28_1___main___Net_construct_15:x is the argument x
    short = [name.rpartition(":")[2] for name in found]
    return dict(zip(short, found.values(), strict=True)) if len(set(short)) == len(found) else found


if __name__ == "__main__":
    sys.exit(answer(sys.argv, export))
