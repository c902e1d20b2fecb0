"""Damage an ONNX file in many ways, the same ways for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.corrupted_net import base_model

Damage = Callable[[onnx.ModelProto, random.Random], None]


def _any_node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    node: onnx.NodeProto = rng.choice(model.graph.node)
    return node


def _any_weight(model: onnx.ModelProto, rng: random.Random) -> TensorProto:
    weight: TensorProto = rng.choice(model.graph.initializer)
    return weight


def cycle(model: onnx.ModelProto, rng: random.Random) -> None:
    first = rng.randrange(len(model.graph.node) - 1)
    later = rng.randrange(first + 1, len(model.graph.node))
    model.graph.node[first].input[0] = model.graph.node[later].output[0]


def self_loop(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _any_node(model, rng)
    node.input[0] = node.output[0]


def dangling_input(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_node(model, rng).input[0] = "nowhere"


def dangling_output(model: onnx.ModelProto, _rng: random.Random) -> None:
    model.graph.output[0].name = "nowhere"


def duplicate_output(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_node(model, rng).output[0] = model.graph.node[0].output[0]


def duplicate_node_names(model: onnx.ModelProto, _rng: random.Random) -> None:
    for node in model.graph.node:
        node.name = "same"


def duplicate_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    model.graph.initializer.append(_any_weight(model, rng))


def wrong_order(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def wrong_weight_type(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_weight(model, rng).data_type = rng.choice([0, 2, 6, 7, 8, 9, 10, 11, 16, 17, 22, 23, 99, -3])


def other_weight_type(model: onnx.ModelProto, rng: random.Random) -> None:
    weight = _any_weight(model, rng)
    array = numpy_helper.to_array(weight).astype(rng.choice(["int32", "float64", "bool", "float16"]))
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def wrong_weight_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    weight = _any_weight(model, rng)
    array = numpy_helper.to_array(weight).reshape(-1)
    weight.CopyFrom(numpy_helper.from_array(np.concatenate([array, array])[: rng.randint(0, 7)], weight.name))


def huge_weight_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    weight = _any_weight(model, rng)
    weight.dims[:] = [rng.choice([2**31, 2**40, 2**62, -1, -(2**40), 10**9])] * rng.randint(1, 4)


def cut_weight(model: onnx.ModelProto, rng: random.Random) -> None:
    weight = _any_weight(model, rng)
    weight.raw_data = weight.raw_data[: rng.randrange(max(1, len(weight.raw_data)))]


def huge_input(model: onnx.ModelProto, rng: random.Random) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        dim.dim_value = rng.choice([2**31 - 1, 2**40, 2**62, 100_000])


def huge_target(model: onnx.ModelProto, rng: random.Random) -> None:
    rest = next(t for t in model.graph.initializer if t.name == "rest")
    values = [rng.choice([2**40, -7, 2**62, 0, -(2**63), 123_456_789]) for _ in range(rng.randint(1, 3))]
    rest.CopyFrom(numpy_helper.from_array(np.asarray(values, np.int64), "rest"))


def bomb(model: onnx.ModelProto, rng: random.Random) -> None:
    size = numpy_helper.from_array(np.asarray([2 ** rng.choice([20, 33, 40]), 1, 1], np.int64), "bomb_size")
    model.graph.initializer.append(size)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["bomb_size"], ["bomb"], name="bomb"))
    model.graph.node.append(helper.make_node("ReduceSum", ["bomb"], ["bomb_sum"], name="bomb_sum"))
    model.graph.node.append(helper.make_node("Add", ["y", "bomb_sum"], ["z"], name="bomb_add"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))


def huge_pads(model: onnx.ModelProto, rng: random.Random) -> None:
    pads = next(t for t in model.graph.initializer if t.name == "pads")
    values = [rng.choice([0, 1, -9, 2**31, 2**62, 50_000]) for _ in range(rng.choice([8, 8, 3, 0]))]
    pads.CopyFrom(numpy_helper.from_array(np.asarray(values, np.int64), "pads"))


def wrong_attribute_type(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute])
    attribute = rng.choice(node.attribute)
    name = attribute.name
    new = helper.make_attribute(name, rng.choice([1.5, "text", [1.0, 2.0], ["a"], 7, [3, 3, 3, 3, 3]]))
    attribute.CopyFrom(new)


def mislabelled_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute])
    attribute = rng.choice(node.attribute)
    attribute.type = rng.randrange(0, 15)


def absurd_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    conv = model.graph.node[1]
    del conv.attribute[:]
    name = rng.choice(["strides", "dilations", "kernel_shape", "pads", "group", "auto_pad"])
    if name == "group":
        conv.attribute.append(helper.make_attribute(name, rng.choice([0, -1, 2, 2**62])))
    elif name == "auto_pad":
        conv.attribute.append(helper.make_attribute(name, rng.choice(["SAME", "", "SAME_UPPER"])))
    else:
        values = [rng.choice([0, -1, 2**31, 2**62, 7]) for _ in range(rng.choice([2, 4, 1]))]
        conv.attribute.append(helper.make_attribute(name, values))


def absurd_axes(model: onnx.ModelProto, rng: random.Random) -> None:
    names = {"moved": "perm", "batch": "axis", "target": "axis", "softmax": "axis"}
    node = next(n for n in model.graph.node if n.name == rng.choice(list(names)) or n.name == "softmax")
    del node.attribute[:]
    value = (
        rng.choice([[9, 9, 9, 9], [0, 1], [0, 0, 0, 0]]) if node.op_type == "Transpose" else rng.choice([9, -9, 2**40])
    )
    node.attribute.append(helper.make_attribute(names[node.name], value))


def unknown_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_node(model, rng).op_type = rng.choice(["Magic", "", "conv", "FusedConv", "\x00"])


def unknown_domain(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_node(model, rng).domain = rng.choice(["com.nobody", "ai.onnx.ml", "ai.onnx"])


def other_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    names = "Conv Relu Reshape Concat Slice LSTM TopK Loop If Scan Gemm Resize Einsum SequenceEmpty NonZero Cast"
    _any_node(model, rng).op_type = rng.choice(names.split())


def swapped_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if len(n.input) > 1])
    node.input[0], node.input[1] = node.input[1], node.input[0]


def missing_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    del _any_node(model, rng).input[rng.randrange(2) :]


def extra_inputs(model: onnx.ModelProto, rng: random.Random) -> None:
    _any_node(model, rng).input.extend(["x", "", "w"])


def odd_opset(model: onnx.ModelProto, rng: random.Random) -> None:
    model.opset_import[0].version = rng.choice([-1, 0, 1, 6, 7, 11, 29, 10**6, 2**62])


def no_opset(model: onnx.ModelProto, _rng: random.Random) -> None:
    del model.opset_import[:]


def no_graph(model: onnx.ModelProto, _rng: random.Random) -> None:
    model.ClearField("graph")


def no_outputs(model: onnx.ModelProto, _rng: random.Random) -> None:
    del model.graph.output[:]


def no_inputs(model: onnx.ModelProto, _rng: random.Random) -> None:
    del model.graph.input[:]


def no_nodes(model: onnx.ModelProto, _rng: random.Random) -> None:
    del model.graph.node[:]


def wrong_input_type(model: onnx.ModelProto, rng: random.Random) -> None:
    model.graph.input[0].type.tensor_type.elem_type = rng.choice([0, 7, 8, 9, 10, 11, 99])


def untyped_input(model: onnx.ModelProto, rng: random.Random) -> None:
    value = model.graph.input[0]
    if rng.random() < 0.5:
        value.ClearField("type")
    else:
        value.type.tensor_type.ClearField("shape")


def sequence_input(model: onnx.ModelProto, _rng: random.Random) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    model.graph.input[0].type.CopyFrom(kind)


def false_value_info(model: onnx.ModelProto, rng: random.Random) -> None:
    shape = [rng.randint(0, 99) for _ in range(rng.randint(0, 5))]
    name = _any_node(model, rng).output[0]
    model.graph.value_info.append(helper.make_tensor_value_info(name, rng.choice([1, 7, 9]), shape))


def false_output_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    shape = [rng.randint(0, 99) for _ in range(rng.randint(0, 5))]
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", rng.choice([1, 7]), shape))


def missing_external(model: onnx.ModelProto, rng: random.Random) -> None:
    weight = _any_weight(model, rng)
    length = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    places = ["weights.bin", "../weights.bin", "/etc/hostname", "", ".", "model.onnx"]
    for key, value in (
        ("location", rng.choice(places)),
        ("offset", rng.choice(["0", "-5", "99999999", "x"])),
        ("length", rng.choice([str(length), "-1", "99999999999"])),
    ):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value


def recursive_function(model: onnx.ModelProto, _rng: random.Random) -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    node = helper.make_node("F", ["a"], ["r"], domain="own", name="again")
    model.functions.append(helper.make_function("own", "F", ["a"], ["r"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[2].domain, model.graph.node[2].op_type = "own", "F"


def deep_nesting(model: onnx.ModelProto, rng: random.Random) -> None:
    info = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Relu", ["flat"], ["inner"])], "leaf", [], [info])
    leaf = onnx.GraphProto()
    leaf.CopyFrom(inner)
    for level in range(rng.choice([5, 20])):
        name = f"inner{level}"
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        node = helper.make_node("If", ["yes"], [name], then_branch=inner, else_branch=inner if level < 3 else leaf)
        inner = helper.make_graph([node], f"level{level}", [], [info])
    branch = next(n for n in model.graph.node if n.op_type == "If")
    branch.attribute[0].g.CopyFrom(inner)


def branch_reads_later(model: onnx.ModelProto, rng: random.Random) -> None:
    branch = next(n for n in model.graph.node if n.op_type == "If")
    branch.attribute[0].g.node[0].input[0] = rng.choice(["y", "branch", "nowhere", "then_out"])


def branch_without_output(model: onnx.ModelProto, rng: random.Random) -> None:
    branch = next(n for n in model.graph.node if n.op_type == "If")
    graph = rng.choice(branch.attribute).g
    del graph.output[:]


def odd_names(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _any_node(model, rng)
    node.output[0] = rng.choice(["", "a\nb", "\u2603", "x" * 5000, "/"])


#: Every way to damage the structure, by name.
DAMAGES: tuple[Damage, ...] = (
    absurd_attribute,
    absurd_axes,
    bomb,
    branch_reads_later,
    branch_without_output,
    cut_weight,
    cycle,
    dangling_input,
    dangling_output,
    deep_nesting,
    duplicate_initializer,
    duplicate_node_names,
    duplicate_output,
    extra_inputs,
    false_output_shape,
    false_value_info,
    huge_input,
    huge_pads,
    huge_target,
    huge_weight_shape,
    mislabelled_attribute,
    missing_external,
    missing_inputs,
    no_graph,
    no_inputs,
    no_nodes,
    no_opset,
    no_outputs,
    odd_names,
    odd_opset,
    other_operator,
    other_weight_type,
    recursive_function,
    self_loop,
    sequence_input,
    swapped_inputs,
    unknown_domain,
    unknown_operator,
    untyped_input,
    wrong_attribute_type,
    wrong_input_type,
    wrong_order,
    wrong_weight_shape,
    wrong_weight_type,
)


def corrupted_files(count: int = 200, seed: int = 20) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files as (what was done, bytes): a quarter cut, a quarter bit-flipped, half restructured."""
    whole = base_model().SerializeToString(deterministic=True)
    for index in range(count):
        rng = random.Random(seed * 100_003 + index)
        if index % 4 == 0:
            yield f"{index:03}-truncated", whole[: rng.randrange(len(whole))]
        elif index % 4 == 1:
            data = bytearray(whole)
            for _ in range(rng.choice([1, 1, 2, 4, 16])):
                # Two thirds of a model are weights, where a flipped bit changes numbers only: aim at the rest.
                place = rng.randrange(len(data)) if rng.random() < 0.3 else rng.randrange(min(900, len(data)))
                data[place] ^= 1 << rng.randrange(8)
            yield f"{index:03}-bit-flipped", bytes(data)
        else:
            model = base_model()
            damage = DAMAGES[(index // 4 * 2 + index % 4 - 2) % len(DAMAGES)]
            damage(model, rng)
            yield f"{index:03}-{damage.__name__}", model.SerializeToString(deterministic=True)
