"""Read TorchScript (`torch.jit.save`): its own compiler's graph, translated with its branches and loops.

torch.export does not take ScriptModules. The exporter that was made for them does, and keeps control flow as ONNX
`If` and `Loop`; no Python of the user's is needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor

from edgec.errors import EdgecError
from edgec.frontends import _torch_errors as errors
from edgec.frontends._torch.examples import example
from edgec.frontends._torch_quiet import quiet
from edgec.frontends._torch_tree import dotted, leaves, nest, unique
from edgec.graph.model import ORIGIN_KEY

_SCOPE = re.compile(r"^/(.*)/[^/]+$")


def export_script(
    module: torch.jit.ScriptModule,
    inputs: Mapping[str, Tensor],
    *,
    name: str,
    where: str,
) -> ir.Model:
    """A TorchScript module as an ONNX model with the shapes of `inputs`. Raises `EdgecError` (`source/…`)."""
    module.eval()
    arguments = nest(inputs)
    with torch.no_grad(), quiet():
        result = _run(module, arguments, where)
        given = list(leaves(result))
        errors.check_outputs(given, where)
        names = unique([dotted(p, "output") for p, _ in given], list(inputs))
        wanted = _arguments(module)
        ordered = [name for argument in wanted for name in inputs if name.partition(".")[0] == argument]
        model = _export(module, tuple(arguments[name] for name in wanted if name in arguments), ordered, names, where)
    model.graph.name = name
    _keep_origins(model)
    return model


def script_examples(
    module: torch.jit.ScriptModule, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str], *, where: str
) -> dict[str, Tensor]:
    """Example inputs of the shapes given, for exactly what `forward` takes. Raises `EdgecError` (`source/…`)."""
    wanted = _arguments(module)
    _check_types(wanted, where)
    inputs = {name: example(module, shape, dtypes.get(name), where) for name, shape in shapes.items()}
    arguments = nest(inputs)
    missing = [name for name, a in wanted.items() if name not in arguments and not a.has_default_value()]
    if missing or not arguments.keys() <= wanted.keys():
        raise EdgecError(
            "source/needs-inputs",
            f"forward() takes {', '.join(wanted)}; given was {', '.join(arguments) or 'nothing'}",
            where=where,
            hint="give every input's shape, with your numbers: "
            + " ".join(f"--input {name}:1x3x224x224" for name in missing or wanted),
        )
    return inputs


def _arguments(module: torch.jit.ScriptModule) -> dict[str, Any]:
    forward: Any = module.forward
    return {argument.name: argument for argument in forward.schema.arguments if argument.name != "self"}


def _check_types(wanted: Mapping[str, Any], where: str) -> None:
    numbers = [
        f"{name} is {argument.type}"
        for name, argument in wanted.items()
        if not argument.has_default_value() and "Tensor" not in str(argument.type)
    ]
    if numbers:
        raise EdgecError(
            "source/needs-factory",
            f"forward() takes more than tensors ({', '.join(numbers)}), which a fixed graph has no inputs for",
            where=where,
            hint="write a factory that loads the file and gives a module without them, or the part that computes",
        )


def load_script(path: Path) -> torch.jit.ScriptModule:
    try:
        with quiet():
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # damaged archives raise several types
        raise EdgecError(
            "source/malformed",
            f"torch cannot read {path.name}: {type(error).__name__}: {errors.first_line(error)}",
            where=str(path),
            hint="it was cut short or damaged, or is from a newer torch: save it again",
        ) from error
    return module


def _run(module: torch.jit.ScriptModule, arguments: Mapping[str, Any], where: str) -> Any:
    try:
        return module(**arguments)
    except Exception as error:  # whatever the script raises
        raise errors.of_forward(error, module, arguments, where) from error


def _export(
    module: torch.jit.ScriptModule, arguments: tuple[Any, ...], inputs: list[str], outputs: list[str], where: str
) -> ir.Model:
    buffer = io.BytesIO()
    try:
        torch.onnx.export(
            module,
            arguments,
            buffer,  # type: ignore[arg-type]  # a stream is taken where nothing is too large for one
            input_names=inputs,
            output_names=outputs,
            dynamo=False,
        )
    except Exception as error:  # the exporter raises many types
        raise errors.of_script(error, where) from error
    return ir.serde.deserialize_model(onnx.load_model_from_string(buffer.getvalue()))


def _keep_origins(model: ir.Model) -> None:
    """The exporter names nodes by the layer's path: `/layer1/layer1.0/conv/Conv`."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        scope = _SCOPE.match(node.name or "")
        node.doc_string = None
        if scope:
            parts = scope[1].split("/")
            whole = [part for part in parts if "." not in part]
            node.metadata_props[ORIGIN_KEY] = parts[-1] if "." in parts[-1] else ".".join(whole)
