"""How much noise each rounding makes at the output, alone: one session in which every rounding has a switch.

    v' = where(switch[i], dequantize(quantize(v)), v)

1. All switches off is the float model; one on is the noise of that group of values, over the signal, as a mean over the
   outputs. An output that a Softmax gives is measured at what goes into it.
2. What an int8 kernel wrote is rounded for all who read it; what float wrote for the int8 kernels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.run_time import rounded_rows
from edgec.quantization.types import STATIC, QuantPlan
from edgec.tensors import Array

#: The input that holds the switches.
SWITCHES = "edgec/switches"


def noise_alone(
    model: Model, plan: QuantPlan, groups: Sequence[Sequence[str]], feeds: Sequence[Mapping[str, Array]]
) -> list[float]:
    """Noise power over signal power at the outputs, for each group of the plan's values rounded alone."""
    if not groups:
        return []
    outputs = float_outputs(model)
    editor = Switched(model, plan, len(groups))
    for i, names in enumerate(groups):
        for name in names:
            editor.round(name, i)
    fetch = [editor.stand_in(judged(v)) for v in outputs]
    executor = Executor(editor.model, fetch=fetch, consume=True, any_layout=True)
    signal, noise = np.zeros(len(outputs)), np.zeros((len(groups), len(outputs)))
    settings = np.eye(len(groups) + 1, len(groups), k=-1, dtype=bool)  # none first, then each alone
    runs = executor.run_all({**feed, SWITCHES: switches} for feed in feeds for switches in settings)
    for _ in feeds:
        exact = list(next(runs).values())
        signal += [power(value) for value in exact]
        for i in range(len(groups)):
            found = next(runs).values()
            noise[i] += [power(f.astype(np.float64) - e) for f, e in zip(found, exact, strict=True)]
    relative = noise / np.maximum(signal, np.finfo(np.float64).tiny)
    return [float(row) for row in relative.mean(axis=1)] if outputs else [0.0] * len(groups)


def float_outputs(model: Model) -> list[ir.Value]:
    """The outputs that noise is measured at."""
    return [v for v in model.graph.outputs if v.dtype is not None and v.dtype.is_floating_point()]


def judged(output: ir.Value) -> str:
    """The value that stands for an output: what goes into a Softmax (rule 1)."""
    node = output.producer()
    value = node.inputs[0] if node is not None and node.op_type in ("LogSoftmax", "Softmax") else output
    return (output if value is None else value).name or ""


def power(value: Array) -> float:
    """The sum of squares of what is finite."""
    finite = value.astype(np.float64)[np.isfinite(value)]
    return float(np.square(finite).sum())


class Switched:
    """A copy of the float model whose values can be rounded by a switch."""

    def __init__(self, model: Model, plan: QuantPlan, switches: int) -> None:
        self.model = model.clone()
        self._plan, graph = plan, self.model.graph
        self._values = {v.name or "": v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
        self._nodes = {n.name or "": n for n in graph}
        self._stands: dict[str, str] = {}
        self._input = ir.Value(name=SWITCHES, shape=ir.Shape([switches]), type=ir.TensorType(ir.DataType.BOOL))
        graph.inputs.append(self._input)

    def stand_in(self, name: str) -> str:
        """The value that has a value's rounding in it."""
        return self._stands.get(name, name)

    def round(self, name: str, switch: int) -> None:
        """Round a value where its switch is on (rule 2)."""
        value, planned = self._values[name], self._plan.activations[name]
        producer = value.producer()
        written = producer is not None and self._is_static(producer)
        readers = [(node, i) for node, i in value.uses() if written or self._is_static(node)]
        step = self._constant(f"{name}/edgec-step", np.asarray(planned.qparams.scale[0], np.float32))
        zero = self._constant(f"{name}/edgec-zero", np.asarray(planned.qparams.zero_point[0], planned.dtype.numpy))
        q = ir.node("QuantizeLinear", [value, step, zero], name=f"{name}/edgec-q")
        dq = ir.node("DequantizeLinear", [q.outputs[0], step, zero], name=f"{name}/edgec-dq")
        on, chosen = self._choice(name, switch, dq.outputs[0], value)
        for node, suffix in ((q, "q"), (dq, "dq")):
            node.outputs[0].name = f"{name}/edgec-{suffix}/out"
        graph = self.model.graph
        new = [q, dq, on, chosen]
        if producer is None:
            graph.insert_before(graph[0], new)
        else:
            graph.insert_after(producer, new)
        for node, i in readers:
            node.replace_input_with(i, chosen.outputs[0])
        if written:
            self._stands[name] = chosen.outputs[0].name or ""

    def swap(self, node_name: str, position: int, other: Array, switch: int) -> None:
        """Give a node another constant where its switch is on."""
        node = self._nodes[node_name]
        value, name = node.inputs[position], f"{node_name}/edgec-{position}"
        assert value is not None
        on, chosen = self._choice(name, switch, self._constant(f"{name}/rounded", other), value)
        self.model.graph.insert_before(node, [on, chosen])
        node.replace_input_with(position, chosen.outputs[0])

    def round_rows(self, node_name: str, switch: int) -> None:
        """Round what a node reads as its kernel does at run time, where its switch is on."""
        node = self._nodes[node_name]
        value, name = node.inputs[0], f"{node_name}/edgec-rows"
        assert value is not None
        on, chosen = self._choice(name, switch, rounded_rows(value, node, Editor(self.model)), value)
        self.model.graph.insert_before(node, [on, chosen])
        node.replace_input_with(0, chosen.outputs[0])

    def _choice(self, name: str, switch: int, yes: ir.Value, no: ir.Value) -> tuple[ir.Node, ir.Node]:
        """Nodes that hand one value or the other on; the second gives it."""
        number = self._constant(f"{name}/edgec-switch", np.asarray(switch, np.int64))
        on = ir.node("Gather", [self._input, number], name=f"{name}/edgec-on")
        chosen = ir.node("Where", [on.outputs[0], yes, no], name=f"{name}/edgec-where")
        for node in (on, chosen):
            node.outputs[0].name = f"{node.name}/out"
        return on, chosen

    def _is_static(self, node: ir.Node) -> bool:
        planned = self._plan.nodes.get(node.name or "")
        return planned is not None and planned.scheme in STATIC

    def _constant(self, name: str, number: Array) -> ir.Value:
        tensor = ir.tensor(number, name=name)
        value = ir.Value(name=name, shape=ir.Shape(number.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value
