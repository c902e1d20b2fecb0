"""A float .tflite file back to ONNX, by tf2onnx, with the names of its signature.

Run as `python -P tflite_to_onnx.py request.json response.json` in the Python that has TensorFlow; imports nothing of
edgec.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from onnx_names import free_name, refuse_foreign, rename, tidy_dimensions
from refusal import SourceError, answer, essence

OPSET = 18


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write `request["output"]`; versions."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")
    import onnx
    import tf2onnx

    source = Path(request["source"])
    missing = unsupported(source)
    if missing:
        raise SourceError(
            "source/unsupported-operator",
            f"tf2onnx cannot lift {len(missing)} operator(s) of {source.name} to ONNX: {', '.join(missing)}",
            "take the file as it is (leave --precision out), or build from the model it was converted from",
        )
    keep_biases()
    try:
        proto, _ = tf2onnx.convert.from_tflite(str(source), opset=OPSET)
    except Exception as error:
        raise SourceError(
            "source/export-failed",
            f"tf2onnx cannot lift {source.name} to ONNX: {essence(error)}",
            "take the file as it is (leave --precision out), or build from the model it was converted from",
        ) from error
    refuse_foreign(proto)
    tidy_dimensions(proto.graph)
    names = signature_names(source)
    graph = proto.graph
    taken = {v for node in graph.node for v in (*node.input, *node.output)} | {v.name for v in graph.initializer}
    renames = {old: new for old, new in names.items() if old != new}
    for name in taken & set(renames.values()) - set(renames):
        renames[name] = free_name(name, taken | set(renames.values()))
    rename(graph, renames)
    onnx.save(proto, request["output"])
    return {"findings": [], "versions": {"tf2onnx": tf2onnx.__version__}}


def unsupported(path: Path) -> list[str]:
    """Operators that tf2onnx has no handler for."""
    from tf2onnx import tflite_handlers  # noqa: F401  registers the handlers
    from tf2onnx.handler import tf_op
    from tf2onnx.tflite.BuiltinOperator import BuiltinOperator
    from tf2onnx.tflite.Model import Model

    names = {code: name for name, code in vars(BuiltinOperator).items() if name.isupper() or name[:1].isupper()}
    model = Model.GetRootAsModel(bytearray(path.read_bytes()), 0)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = {names.get(max(c.BuiltinCode(), c.DeprecatedBuiltinCode()), "an operator too new for it") for c in codes}
    custom = {code.CustomCode().decode() for code in codes if code.CustomCode()}
    handled = {name for versions in tf_op.get_opsets().values() for table in versions for name in table}
    return sorted(custom | {kind for kind in kinds - {"CUSTOM"} if f"TFL_{kind}" not in handled})


def keep_biases() -> None:
    """Let tf2onnx keep the bias of a FULLY_CONNECTED that flattens its input: its own flattening (1.17) drops it."""
    import numpy as np
    from tf2onnx import utils
    from tf2onnx.handler import tf_op
    from tf2onnx.tflite_handlers.tfl_math import TflFullyConnectedOp

    translate = TflFullyConnectedOp.to_tf

    def to_tf(ctx: Any, node: Any, **kwargs: Any) -> None:
        if node.attr["keep_num_dims"].i == 0 and ctx.get_rank(node.input[0]) != 2:
            width = ctx.get_shape(node.input[1])[1]
            shape = ctx.make_const(utils.make_name("rows"), np.array([-1, width], np.int64))
            rows = ctx.make_node("Reshape", [node.input[0], shape.output[0]], shapes=[[-1, width]])
            rows.skip_conversion = True
            ctx.set_dtype(rows.output[0], ctx.get_dtype(node.input[0]))
            ctx.replace_inputs(node, [rows.output[0], *node.input[1:]])
        translate(ctx, node, **kwargs)

    tf_op.register_handler(to_tf, 0, ["TFL_FULLY_CONNECTED"], "com.google.tensorflow", {})


def signature_names(path: Path) -> dict[str, str]:
    """The signature's names by the tensors' names; empty where the file has none for its main graph."""
    from tf2onnx.tflite.Model import Model

    model = Model.GetRootAsModel(bytearray(path.read_bytes()), 0)
    if not model.SignatureDefsLength():
        return {}
    signature = model.SignatureDefs(0)
    if signature.SubgraphIndex() != 0:
        return {}
    tensors = model.Subgraphs(0)
    entries = [signature.Inputs(i) for i in range(signature.InputsLength())]
    entries += [signature.Outputs(i) for i in range(signature.OutputsLength())]
    return {tensors.Tensors(e.TensorIndex()).Name().decode(): e.Name().decode() for e in entries}


if __name__ == "__main__":
    sys.exit(answer(sys.argv, export))
