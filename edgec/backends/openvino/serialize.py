"""From an OpenVINO model in memory to the bytes of its IR, the same bytes every time.

1. OpenVINO numbers the layers it invents by a counter of the whole process: those get names made of their
   type and place. Layers that carry a name of the source model keep it.
2. Nothing that depends on the machine is written: no run-time information, no paths.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13
from openvino._offline_transformations import apply_moc_transformations

from edgec.graph.model import Model

#: What the importer appends to a node's name when it makes two layers of it.
_SUFFIXES = ("/WithoutBiases",)

#: Smaller constants stay in float32.
_LARGE = 1024

_NO_OPERATORS = frozenset({"Constant", "Parameter", "Result"})


def tidy(network: Any) -> None:
    """The device-independent clean-up that `openvino.convert_model` does: constants folded, FakeQuantize restored."""
    apply_moc_transformations(network, cf=False)


def restore_inputs(network: Any, model: Model) -> None:
    """Give the network all inputs of the source, by name: the importer drops those that nothing reads,
    and an input that is handed straight to an output loses its name to it."""
    first = [(n, n.inputs[0]) for n in model.nodes() if n.inputs]
    handed_on = {n.outputs[0].name: v.name for n, v in first if v is not None and v.is_graph_input()}
    found = {op.get_friendly_name(): op for op in network.get_parameters()}
    names = {spec.name for spec in model.inputs()}
    for name, op in list(found.items()):
        if name not in names and handed_on.get(name) in names:
            found[str(handed_on[name])] = op
    for spec in model.inputs():
        if spec.name not in found:
            parameter = ov.opset13.parameter(list(spec.shape), spec.dtype.numpy, name=spec.name)
            parameter.output(0).get_tensor().set_names({spec.name})
            network.add_parameters([parameter])
        elif spec.name not in found[spec.name].output(0).get_names():
            found[spec.name].output(0).get_tensor().add_names({spec.name})


def to_float16(network: Any) -> None:
    """Store in float16 again the large constants that came from there: the importer widened them. Exact."""
    for op in network.get_ordered_ops():
        if op.get_type_name() != "Constant" or op.get_element_type() != ov.Type.f32:
            continue
        data = op.get_data()
        if data.size < _LARGE:
            continue
        half = data.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), data):
            continue
        stored = ov.opset13.constant(half)
        stored.set_friendly_name(op.get_friendly_name())
        widened = ov.opset13.convert(stored, "f32")
        for reader in op.output(0).get_target_inputs():
            reader.replace_source_output(widened.output(0))


def name_layers(network: Any, model: Model) -> None:
    """Rule 1."""
    network.set_friendly_name(model.name)
    known = {n.name for n in model.nodes()} | {v.name for n in model.nodes() for v in n.outputs}
    known |= set(model.graph.initializers) | {v.name for v in model.graph.inputs}
    taken: set[str] = set()
    for index, op in enumerate(network.get_ordered_ops()):
        name = op.get_friendly_name()
        stem = next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name)
        if stem not in known or name in taken:
            name = f"{op.get_type_name()}#{index}"
            op.set_friendly_name(name)
        taken.add(name)
        for key in list(op.get_rt_info()):  # rule 2
            if key in ("fused_names_0", "fused_names"):
                del op.get_rt_info()[key]


def keep_data_in_float(network: Any) -> None:
    """Have the CPU plugin multiply float data by int8 weights as it is.

    By its own choice it rounds such data to 8 bits in groups of 32 at run time (FullyConnected on x86, 2026.4): a model
    with 16-bit data then kept 27 % of its outputs within 2 steps. What an application sets itself goes before this.
    """
    network.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])


def serialize(network: Any) -> tuple[bytes, bytes]:
    """Contents of the xml and the bin file."""
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        ov.serialize(network, str(xml), str(weights))
        return xml.read_bytes(), weights.read_bytes()


def operators(network: Any) -> dict[str, tuple[int, int]]:
    """Count and operator set of each operator type, constants and the model's ends left out."""
    found: dict[str, tuple[int, int]] = {}
    for op in network.get_ordered_ops():
        kind = op.get_type_info()
        if kind.name in _NO_OPERATORS:
            continue
        digits = "".join(c for c in str(kind.version_id or "") if c.isdigit())
        count, version = found.get(kind.name, (0, 0))
        found[kind.name] = (count + 1, max(version, int(digits or 0)))
    return dict(sorted(found.items()))
