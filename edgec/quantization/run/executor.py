"""Run a model as ONNX defines it: ONNX Runtime with its graph optimisation off, any value of the graph fetched.

The optimiser stays off because it changes some models (a Pad fused into MaxPool pads with -inf). Where a model is only
measured, it may choose how convolutions lay out their data, and nothing else: that halves the time of many, and their
sums come in another order.
Weights are handed over as buffers, not serialized, so a session opens fast and no model is too large.
Several runs at a time, each on a core of its own, beat all cores on one run after the other: no core waits for another
at the end of a node. So that is how sessions are opened, unless the runs together would take too much memory.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgec.errors import EdgecError
from edgec.graph.model import Model, const_of, static_shape
from edgec.quantization.run.cores import in_order, physical_cores
from edgec.quantization.run.dequantize_constants import dequantize_constants
from edgec.quantization.run.layout import NOT_LAYOUT, TRIAL
from edgec.tensors import Array

ort.set_default_logger_severity(4)

#: Initializers below this stay inside the model: shape inference reads them.
_INLINE_BYTES = 4096

#: Convolutions among more matrix products than this each are no reason to look for layouts.
_MATMULS_A_CONVOLUTION = 10

#: What the activations of all runs at a time may take together, as far as the shapes tell.
_ACTIVATION_BYTES = 2**30

#: Element types that numpy and ONNX Runtime store alike.
_SHARED_TYPES = frozenset(
    {"FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "BOOL"}
)

_NODE_IN_ERROR = (
    re.compile(r"running (?P<op>\w+) node\. Name:'(?P<name>[^']*)'"),
    re.compile(r"Node \((?P<name>[^)]*)\) Op \((?P<op>\w+)\)"),
    re.compile(r'In Node, \("(?P<name>[^"]*)", (?P<op>\w+)'),
    re.compile(r"for (?P<op>\w+)\(\d+\) node with name '(?P<name>[^']*)'"),
)


class Executor:
    """A session over a copy of `model` that returns `fetch` (default: the model's outputs).

    `threads` are the cores to use, by default all; `at_once` is how many runs share them in `run_all`, by default as
    many as there are. With 1, each run has all of them. `consume` takes the model itself in place of a copy;
    `any_layout` lets convolutions lay out their data as they are fastest. Nodes that no fetched value needs are left
    out, and constants are dequantized here once. Raises `EdgecError` (`graph/…`) naming the node.
    """

    def __init__(
        self,
        model: Model,
        *,
        fetch: Sequence[str] | None = None,
        threads: int | None = None,
        at_once: int | None = None,
        consume: bool = False,
        any_layout: bool = False,
    ) -> None:
        self.fetch = tuple(fetch) if fetch is not None else tuple(o.name for o in model.outputs())
        work = model.ir if consume else model.clone().ir
        self._constants: dict[str, Array] = {}
        self._computed = self._select_outputs(work)
        self._inputs = tuple(v.name for v in work.graph.inputs if v.name and not v.is_initializer())
        self._floats = {s.name: s.dtype.numpy for s in model.inputs() if s.dtype.is_float and s.name in self._inputs}
        self._session: ort.InferenceSession | None = None
        self.at_once = 1
        if not self._computed:
            return  # inputs and constants alone: there is nothing to run
        dequantize_constants(work)
        cores = threads or physical_cores()
        self.at_once = max(1, min(at_once or cores, cores, _ACTIVATION_BYTES // _bytes_of_a_run(work.graph)))
        options = ort.SessionOptions()
        level = ort.GraphOptimizationLevel
        choosing = any_layout and _convolves(work.graph) and _chooses_layouts_alone()
        options.graph_optimization_level = level.ORT_ENABLE_ALL if choosing else level.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 4
        options.intra_op_num_threads = cores if self.at_once == 1 else 1
        options.inter_op_num_threads = 1
        # Threads that wait for work by spinning take the cores from whoever has some.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # As the nodes stand: what measures a value runs before the value is in the way.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.use_deterministic_compute = True
        self._buffers = _hand_over_weights(work.graph, options)
        try:
            content = ir.serde.serialize_model(work).SerializeToString()
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_LAYOUT
            )
        except Exception as error:
            raise _explain("graph/not-runnable", error, model.name) from error

    def _select_outputs(self, work: ir.Model) -> list[str]:
        """Make the fetched values the graph's outputs; inputs and constants need no computing."""
        graph = work.graph
        produced = {out.name: out for node in graph for out in node.outputs if out.name}
        wanted: list[ir.Value] = []
        inputs = {v.name for v in graph.inputs}
        for name in dict.fromkeys(self.fetch):
            if name in produced:
                wanted.append(produced[name])
            elif name in graph.initializers:
                constant = const_of(graph.initializers[name])
                assert constant is not None
                self._constants[name] = constant
            elif name not in inputs:
                raise EdgecError("graph/unknown-tensor", f"the model has no tensor {name!r}", where=name)
        drops = {v.name for v in graph.outputs} - {v.name for v in wanted}
        graph.outputs.clear()
        graph.outputs.extend(wanted)
        if drops:
            RemoveUnusedNodesPass()(work)
        return [v.name for v in wanted if v.name]

    def _carried(self, name: str, value: Array) -> Array:
        """A float of another width as the model takes it, where it carries the source's type in its own."""
        wanted = self._floats.get(name)
        return value if wanted is None or value.dtype.kind not in "fV" else value.astype(wanted, copy=False)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Values of `fetch` for one set of inputs. Raises `EdgecError` when the feeds do not fit."""
        missing = [name for name in self._inputs if name not in feeds]
        if missing:
            raise EdgecError(
                "graph/missing-input",
                f"no value given for input {missing[0]!r}",
                where=missing[0],
                hint=f"the model takes: {', '.join(self._inputs)}",
            )
        known = {name: self._carried(name, np.asarray(feeds[name], order="C")) for name in self._inputs}
        results: dict[str, Array] = {}
        if self._session is not None:
            try:
                values = self._session.run(self._computed, known)
            except Exception as error:
                raise _explain("graph/run-failed", error, "") from error
            results = dict(zip(self._computed, values, strict=True))
        everything = {**known, **self._constants, **results}
        return {name: everything[name] for name in self.fetch}

    def run_all(self, feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Values of `fetch` for each set of inputs, in their order; `at_once` runs are under way at a time.

        Feeds are read in the caller's thread, no further ahead than the cores need, and stay as they are until their
        values are out. Raises what `run` raises.
        """
        return in_order(self.run, feeds, self.at_once)


def _convolves(graph: ir.Graph) -> bool:
    """Whether convolutions are no rarity among products: what the optimiser takes to open a session is for them."""
    kinds = Counter(node.op_type for node in graph)
    return kinds["Conv"] > (kinds["MatMul"] + kinds["Gemm"]) / _MATMULS_A_CONVOLUTION


@cache
def _chooses_layouts_alone() -> bool:
    """Whether the optimiser of this version leaves padding as it is when all but layouts is left out."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    content = ir.serde.serialize_model(ir.from_onnx_text(TRIAL)).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_LAYOUT)
    (found,) = session.run(None, {"x": np.full((1, 8, 2, 2), -1, np.float32)})
    return not np.any(found)


def _bytes_of_a_run(graph: ir.Graph) -> int:
    """What one run takes beside the weights: its results, and a node's inputs, outputs and work space."""
    largest = max((_bytes_of(v) for node in graph for v in node.outputs), default=0)
    return 1 + sum(map(_bytes_of, graph.outputs)) + 3 * largest


def _bytes_of(value: ir.Value) -> int:
    shape = static_shape(value)
    known = shape is not None and value.dtype not in (None, ir.DataType.STRING, ir.DataType.UNDEFINED)
    return math.ceil(math.prod(shape) * value.dtype.itemsize) if known else 0  # type: ignore[arg-type, union-attr]


def _hand_over_weights(graph: ir.Graph, options: ort.SessionOptions) -> list[Array]:
    """Give large initializers to the session as buffers; the returned arrays must outlive it."""
    buffers: list[Array] = []
    names: list[str] = []
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]  # the session drops it too, and would not find the buffer's owner
            continue
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _INLINE_BYTES or tensor.dtype.name not in _SHARED_TYPES:
            _load(value)
            continue
        buffers.append(np.asarray(tensor.numpy(), order="C"))
        names.append(name)
        value.const_value = ir.ExternalTensor(
            "in-memory", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name, base_dir=""
        )
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for value in attribute.as_graph().initializers.values():
                    _load(value)
    options.add_external_initializers(names, [ort.OrtValue.ortvalue_from_numpy(buffer) for buffer in buffers])
    return buffers


def _load(value: ir.Value) -> None:
    """Bring an external tensor into memory, as the session knows no folder."""
    if isinstance(value.const_value, ir.ExternalTensor):
        value.const_value = ir.Tensor(value.const_value.numpy().copy(), name=value.name)


def _explain(code: str, error: Exception, model: str) -> EdgecError:
    """ONNX Runtime's error, with the node it names."""
    text = " ".join(str(error).split())
    where = model
    for pattern in _NODE_IN_ERROR:
        if found := pattern.search(text):
            where = found["name"] or found["op"]
            break
    reason = re.split(r"Status Message: |[A-Z_]+ : ", text)[-1]
    return EdgecError(
        code,
        f"ONNX Runtime cannot run the model: {reason[:400]}",
        where=where,
        hint="check the model with onnx.checker, and the shapes of what it is fed",
    )
