"""How much noise each rounding makes at the output, alone: one session in which every rounding has a switch.

    v' = where(switch[i], dequantize(quantize(v)), v)

1. All switches off is the float model; one on is the noise of that group of values, over the signal, as a mean over the
   outputs, and over what an output holds of different kinds. One that a Softmax gives is measured at what goes into it.
2. What an int8 kernel wrote is rounded for all who read it; what float wrote for the int8 kernels alone.
3. What lies before a rounding is as in float. So the model is run in parts, each time from the part on that it is in.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import Model
from edgec.graph.work import multiplications
from edgec.quantization.measures.kinds import kinds_in
from edgec.quantization.run.cores import in_order
from edgec.quantization.run.run_time import rounded_rows
from edgec.quantization.run.segment import MOST_BYTES, Part, bytes_of, living
from edgec.quantization.types import STATIC, QuantPlan, TensorPlan
from edgec.tensors import Array, Kind, of_kind

#: The input that holds the switches.
SWITCHES = "edgec/switches"

#: Parts of a model: of more, each has a session to open and values to hand on. Few runs are not worth as many.
PARTS, _FEW_PARTS = 5, 2


def noise_alone(
    model: Model, plan: QuantPlan, groups: Sequence[Sequence[str]], feeds: Sequence[Mapping[str, Array]]
) -> list[float]:
    """Noise power over signal power at the outputs, for each group of the plan's values rounded alone."""
    if not groups:
        return []
    editor = Switched(model, plan, len(groups))
    for i, names in enumerate(groups):
        for name in names:
            editor.round(name, i)
    return Passes(editor, float_outputs(model), feeds).noise(range(len(groups)))


def noise_both_ways(
    model: Model,
    plans: tuple[QuantPlan, QuantPlan],
    groups: Sequence[Sequence[str]],
    feeds: Sequence[Mapping[str, Array]],
) -> tuple[list[float], list[float]]:
    """The same of two plans that round the same values in different steps, from one pass over the samples."""
    if not groups:
        return [], []
    count = len(groups)
    editor = Switched(model, plans[0], 2 * count)
    for way, plan in enumerate(plans):
        for i, names in enumerate(groups):
            for name in names:
                editor.round(name, way * count + i, plan.activations[name])
    noise = Passes(editor, float_outputs(model), feeds, parts=_FEW_PARTS).noise(range(2 * count))
    return noise[:count], noise[count:]


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


class Passes:
    """Runs of a switched model: once as float, and with each switch from the part on that its roundings are in (3)."""

    def __init__(
        self,
        switched: Switched,
        outputs: Sequence[ir.Value],
        feeds: Sequence[Mapping[str, Array]],
        *,
        parts: int = PARTS,
    ) -> None:
        model, self._switches = switched.model, switched.switches
        self._fetch = tuple(switched.stand_in(judged(v)) for v in outputs)
        order = {node.name or "": i for i, node in enumerate(model.nodes())}
        cuts = _cuts(switched, len(feeds), parts)
        self._first = {i: bisect_right(cuts, min(order[n] for n in names)) for i, names in switched.places.items()}
        self._parts = _parts(model, cuts, self._fetch)
        self._at_once = min(part.at_once for part in self._parts)
        self._exact = list(in_order(self._through, feeds, self._at_once))
        whole = [(v, name) for v, name in zip(outputs, self._fetch, strict=True) if judged(v) == v.name]
        kinds = kinds_in([v for v, _ in whole], [exact[-1] for exact in self._exact], [name for _, name in whole])
        self._looks: list[tuple[str, Kind | None]] = [
            (name, kind)
            for value, name in zip(outputs, self._fetch, strict=True)
            for kind in kinds.get(value.name or "", (None,))
        ]

    def noise(self, switches: Iterable[int]) -> list[float]:
        """Noise over signal with each switch alone on (rule 1)."""
        wanted = list(switches)
        runs = in_order(self._off, itertools.product(self._exact, wanted), self._at_once)
        noise, signal = np.zeros((len(wanted), len(self._looks))), np.zeros(len(self._looks))
        for exact in self._exact:
            signal += self._powers(exact[-1])
            for i in range(len(wanted)):
                noise[i] += next(runs)
        relative = noise / np.maximum(signal, np.finfo(np.float64).tiny)
        return [float(row.mean()) if row.size else 0.0 for row in relative]

    def _through(self, feed: Mapping[str, Array]) -> list[Mapping[str, Array]]:
        """What is known before each part, and at the end."""
        known: list[Mapping[str, Array]] = [{**feed, SWITCHES: np.zeros(self._switches, bool)}]
        for part in self._parts:
            known.append({**known[0], **part.run(known[-1])})
        return known

    def _off(self, run: tuple[list[Mapping[str, Array]], int]) -> list[float]:
        """How far one switch brings each output, or kind of values in it, off."""
        exact, switch = run
        first = self._first[switch]
        values = dict(exact[first])
        values[SWITCHES] = np.arange(self._switches) == switch
        for part in self._parts[first:]:
            values.update(part.run(values))
        return self._powers({name: values[name].astype(np.float64) - exact[-1][name] for name in self._fetch})

    def _powers(self, values: Mapping[str, Array]) -> list[float]:
        return [power(values[name] if kind is None else of_kind(values[name], kind)) for name, kind in self._looks]


def _cuts(switched: Switched, samples: int, parts: int) -> list[int]:
    """Positions that leave about as many multiplications between them; where what lives there is little."""
    nodes = list(switched.model.nodes())
    own = [i for i, node in enumerate(nodes) if (node.name or "") in switched.own]  # not between a rounding's nodes
    done = np.cumsum([multiplications(nodes[i]) for i in own])
    wanted = np.arange(1, parts) / parts * (done[-1] if own else 0)
    places = {int(at) for at in np.searchsorted(done, wanted, side="right")} - {0, len(own)}
    cuts = [own[place] for place in sorted(places)]
    most = MOST_BYTES / parts / max(samples, 1)
    return [at for at in cuts if bytes_of(switched.model, living(switched.model, nodes[at].name or "")) <= most]


def _parts(model: Model, cuts: Sequence[int], fetch: Sequence[str]) -> list[Part]:
    """The model in parts that begin at `cuts`; each hands on what lives behind it, and the outputs known by then."""
    nodes = list(model.nodes())
    made = {v.name or "": i for i, node in enumerate(nodes) for v in node.outputs}
    found: list[Part] = []
    given: list[str] = []
    for cut in (*cuts, len(nodes)):
        known = [name for name in fetch if made.get(name, -1) < cut]
        lives = living(model, nodes[cut].name or "") if cut < len(nodes) else ()
        wanted = list(dict.fromkeys([*lives, *known]))
        found.append(Part(model, given, wanted))
        given = wanted
    return found


class Switched:
    """A copy of the float model whose values can be rounded by a switch."""

    def __init__(self, model: Model, plan: QuantPlan, switches: int) -> None:
        self.model, self.switches = model.clone(), switches
        self._plan, graph = plan, self.model.graph
        #: The names of the model's own nodes, and of those that each switch works in.
        self.own = {n.name or "" for n in graph}
        self.places: dict[int, list[str]] = {}
        self._values = {v.name or "": v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
        self._nodes = {n.name or "": n for n in graph}
        self._stands: dict[str, str] = {}
        self._input = ir.Value(name=SWITCHES, shape=ir.Shape([switches]), type=ir.TensorType(ir.DataType.BOOL))
        graph.inputs.append(self._input)

    def stand_in(self, name: str) -> str:
        """The value that has a value's rounding in it."""
        return self._stands.get(name, name)

    def round(self, name: str, switch: int, planned: TensorPlan | None = None) -> None:
        """Round a value where its switch is on (rule 2), as `planned` (default: as the plan does).

        A value may have several roundings, each with a switch: the latest comes first.
        """
        value, planned = self._values[name], planned or self._plan.activations[name]
        producer = value.producer()
        written = producer is not None and self._is_static(producer)
        readers = [(n, i) for n, i in value.uses() if written or self._is_static(n) or n.name not in self.own]
        here = f"{name}/edgec-rounded-{switch}"
        params = planned.qparams
        each = () if params.axis is None else (len(params.scale),)
        step = self._constant(f"{here}-step", np.asarray(params.scale, np.float32).reshape(each))
        zero = self._constant(f"{here}-zero", np.asarray(params.zero_point, planned.dtype.numpy).reshape(each))
        along = {} if params.axis is None else {"axis": params.axis}
        q = ir.node("QuantizeLinear", [value, step, zero], along, name=f"{here}-q")
        dq = ir.node("DequantizeLinear", [q.outputs[0], step, zero], along, name=f"{here}-dq")
        on, chosen = self._choice(here, switch, dq.outputs[0], value)
        for node in (q, dq):
            node.outputs[0].name = f"{node.name}/out"
        graph = self.model.graph
        new = [q, dq, on, chosen]
        if producer is None:
            graph.insert_before(graph[0], new)
        else:
            graph.insert_after(producer, new)
        for node, i in readers:
            node.replace_input_with(i, chosen.outputs[0])
        if written:
            self._stands.setdefault(name, chosen.outputs[0].name or "")

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
        chosen.outputs[0].shape, chosen.outputs[0].type = no.shape, no.type
        self.places.setdefault(switch, []).append(on.name or "")
        return on, chosen

    def _is_static(self, node: ir.Node) -> bool:
        planned = self._plan.nodes.get(node.name or "")
        return planned is not None and planned.scheme in STATIC

    def _constant(self, name: str, number: Array) -> ir.Value:
        tensor = ir.tensor(number, name=name)
        value = ir.Value(name=name, shape=ir.Shape(number.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value
