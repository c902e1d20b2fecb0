"""The net that `corrupted` damages."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def base_model() -> onnx.ModelProto:
    """A small net with what real ones have: convolution, norm, pool, shape arithmetic, a branch, a matrix."""
    rng = np.random.default_rng(5)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    def ints(name: str, *values: int) -> TensorProto:
        return numpy_helper.from_array(np.asarray(values, np.int64), name)

    then = helper.make_graph(
        [helper.make_node("Relu", ["flat"], ["then_out"], name="then_relu")],
        "then",
        [],
        [helper.make_tensor_value_info("then_out", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["flat"], ["else_out"], name="else_neg")],
        "else",
        [],
        [helper.make_tensor_value_info("else_out", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded", "w", "b"], ["conv"], name="conv", strides=[2, 2], kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["conv", "g", "be", "mu", "va"], ["bn"], name="bn"),
        helper.make_node("Clip", ["bn", "zero", "six"], ["act"], name="act"),
        helper.make_node("MaxPool", ["act"], ["pool"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["pool"], ["moved"], name="moved", perm=[0, 2, 3, 1]),
        helper.make_node("Shape", ["moved"], ["shape"], name="shape"),
        helper.make_node("Gather", ["shape", "first"], ["batch"], name="batch", axis=0),
        helper.make_node("Concat", ["batch", "rest"], ["target"], name="target", axis=0),
        helper.make_node("Reshape", ["moved", "target"], ["flat"], name="flat"),
        helper.make_node("If", ["yes"], ["branch"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Gemm", ["branch", "m", "c"], ["score"], name="gemm", transB=1),
        helper.make_node("Softmax", ["score"], ["y"], name="softmax", axis=-1),
    ]
    initializers = [
        ints("pads", 0, 0, 1, 1, 0, 0, 1, 1),
        weight("w", 4, 3, 3, 3),
        weight("b", 4),
        weight("g", 4),
        weight("be", 4),
        weight("mu", 4),
        numpy_helper.from_array(np.full(4, 0.5, np.float32), "va"),
        numpy_helper.from_array(np.asarray(0, np.float32), "zero"),
        numpy_helper.from_array(np.asarray(6, np.float32), "six"),
        ints("first", 0),
        ints("rest", -1),
        numpy_helper.from_array(np.asarray(True), "yes"),
        weight("m", 5, 16),
        weight("c", 5),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
