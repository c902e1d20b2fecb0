"""From a torch module and example inputs to an ONNX graph whose nodes name the user's own layers and lines.

The module is run once as it is (its own mistakes then show with its own lines), captured by `torch.export` and
translated by `torch.onnx`. Nothing of it is left behind: mode, buffers and random state are as they were before.
Capture never falls back to tracing: a branch that depends on data is refused, not frozen to the example's side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgec.frontends import _torch_errors as errors
from edgec.frontends._torch_promote import promote_reversed
from edgec.frontends._torch_quiet import quiet
from edgec.frontends._torch_tree import dataclass_types, dotted, leaves, nest, unique
from edgec.graph.model import ORIGIN_KEY, origin
from edgec.tensors import Array

_TORCH_KEYS = ("pkg.torch.", "pkg.onnxscript.", "namespace")


def export_module(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    name: str,
    where: str = "",
    output_names: Sequence[str] | None = None,
) -> ir.Model:
    """The module in inference mode as an ONNX model with the static shapes of `inputs`.

    `inputs` are the arguments of `forward` by name; `state.0` and `state.1` make up a tuple `state`. They name the
    graph's inputs. Outputs have the names of the dict's keys or the fields that `forward` returns (else `output`,
    or `output_0` …), unless `output_names` gives them. Weights are the module's own memory, not copies of it.

    Raises `EdgecError` (`source/…`) with the user's own line; `where` names the source in it.
    """
    arguments = nest(inputs)
    with _undisturbed(module):
        result = _run(module, arguments, where)
        given = list(leaves(result))
        errors.check_outputs(given, where)
        _register(result)
        program = _capture(module, arguments, where)
        names = output_names or [dotted(path, "output") for path, _ in given]
        return export_program(program, list(inputs), unique(names, list(inputs)), name=name, where=where)


def answers(
    module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What the module itself computes from the inputs, as arrays by name; nothing where it is not the same twice."""
    with _undisturbed(module):
        torch.manual_seed(1)
        first = _arrays(module, inputs)
    with _undisturbed(module):
        torch.manual_seed(2)
        second = _arrays(module, inputs)
    same = len(first) == len(outputs) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second, strict=True)
    )
    if not same:
        return {}, {}
    return {name: _array(value) for name, value in inputs.items()}, dict(zip(outputs, first, strict=True))


def _arrays(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[Array]:
    with quiet():
        return [_array(value) for _, value in leaves(module(**nest(inputs)))]


def _array(value: Tensor) -> Array:
    # numpy has no bfloat16: the values are what counts.
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value.detach()).cpu().numpy())


def export_program(
    program: torch.export.ExportedProgram,
    input_names: Sequence[str],
    output_names: Sequence[str],
    *,
    name: str,
    where: str = "",
) -> ir.Model:
    """An exported program as an ONNX model whose inputs and outputs have the names given.

    Raises `EdgecError` (`source/…`).
    """
    try:
        with quiet():
            program = _open_custom(program)
            promote_reversed(program)
            converted = torch.onnx.export(
                program, dynamo=True, verbose=False, report=False, optimize=False, external_data=False
            )
    except Exception as error:  # the exporter raises many types, its own and those of every layer below
        raise errors.of_conversion(error, program, where) from error
    assert converted is not None  # only the old exporter writes a file and returns None
    model = converted.model
    model.graph.name = name
    _name_inputs(model.graph, input_names)
    _name_outputs(model.graph, output_names)
    _keep_origins(model)
    return model


@contextlib.contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Inference mode, and afterwards everything as it was: mode of each part, buffers, random state."""
    modes = {part: part.training for part in module.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in module.buffers()}
    try:
        module.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers.items():
                if not torch.equal(buffer, value):  # what is expanded cannot be written to
                    buffer.copy_(value)
        for part, training in modes.items():
            part.training = training


def _run(module: nn.Module, arguments: Mapping[str, Any], where: str) -> Any:
    try:
        with quiet():
            return module(**arguments)
    except Exception as error:  # whatever the user's own code raises
        raise errors.of_forward(error, module, arguments, where) from error


def _register(result: Any) -> None:
    # torch.export refuses outputs of types that it has not been told how to take apart.
    for kind in dataclass_types(result):
        with contextlib.suppress(ValueError), quiet():  # known already
            torch.export.register_dataclass(kind)


def _capture(module: nn.Module, arguments: Mapping[str, Any], where: str) -> torch.export.ExportedProgram:
    refused: list[Exception] = []
    # Python features that capture by execution trips over may be fine for the analysis of the bytecode.
    for strict in (False, True):
        try:
            with quiet():
                return torch.export.export(module, (), dict(arguments), strict=strict)
        except Exception as error:  # noqa: BLE001  # torch.export raises many types
            refused.append(error)
    raise errors.of_capture(refused[0], where) from refused[0]


def _open_custom(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Custom operators (`torch.library.custom_op`) replaced by what their Python computes, where torch can see it."""
    try:
        from torch._library.custom_ops import OPDEFS
    except ImportError:  # no public way gives the function of an operator
        return program
    targets = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    bodies = {target: OPDEFS[target._name]._init_fn for target in targets if target._name in OPDEFS}
    if not bodies:
        return program
    try:
        opened: torch.export.ExportedProgram = program.run_decompositions(bodies)
    except Exception:  # noqa: BLE001  # it computes outside torch: the exporter then names it
        return program
    return opened


def _name_inputs(graph: ir.Graph, names: Sequence[str]) -> None:
    if len(graph.inputs) != len(names):
        raise errors.of_count("inputs", len(graph.inputs), names)
    _free(graph, names)
    for value, name in zip(graph.inputs, names, strict=True):
        value.name = name


def _name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    if len(graph.outputs) != len(names):
        raise errors.of_count("outputs", len(graph.outputs), names)
    _free(graph, names)
    seen: set[ir.Value] = set()
    for index, name in enumerate(names):
        value = graph.outputs[index]
        if value in seen or value.is_graph_input() or value.is_initializer():
            # One value cannot have two names.
            copy = ir.node("Identity", [value], name=f"{name}/copy")
            copy.outputs[0].shape, copy.outputs[0].type = value.shape, value.type
            graph.append(copy)
            value = graph.outputs[index] = copy.outputs[0]
        value.name = name
        seen.add(value)


def _free(graph: ir.Graph, names: Sequence[str]) -> None:
    """Rename the values inside the graph that have one of these names."""
    wanted = set(names)
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    for value in values:
        if value.name in wanted:
            value.name = f"{value.name}/inner"


def _keep_origins(model: ir.Model) -> None:
    """The layer's path and the user's line instead of the exporter's notes, which hold paths of this machine."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            line = origin(node)
            for key in [key for key in node.metadata_props if key.startswith(_TORCH_KEYS)]:
                del node.metadata_props[key]
            if line:
                node.metadata_props[ORIGIN_KEY] = line
