"""Name the first layer of a TFLite model that computes other bits on a device than here, and count what is equal.

The model is made to give every tensor that it computes, under names of our own, and one golden is run there and here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.tflite.schema import fb, op_name
from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import AGENT
from edgec.devices.base import Transport
from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError
from edgec.runners.base import call_agent
from edgec.tensors import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """An operator and the name of its first output; `differing` counts its values that differ, of `values`."""

    operator: str
    tensor: str
    place: int
    of: int
    differing: int
    values: int

    def __str__(self) -> str:
        share = f"{self.differing} of {self.values} values differ"
        return f"{self.operator} {self.tensor!r}, operator {self.place} of {self.of}: {share}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The first layer that differs, None where none does; of the integer tensors how many are equal to the bit."""

    first: Layer | None
    integers: int
    integers_equal: int


def compare_layers(bundle: Bundle, device: Transport, *, kernels: str, timeout_s: float) -> Layers | None:
    """Every tensor there and here; None where the model does not run this way."""
    if bundle.manifest.runner != "tflite" or not bundle.manifest.goldens:
        return None
    try:
        probe = _Probe.of(bundle)
        here = probe.run(LocalDevice(), kernels, timeout_s)
        there = probe.run(device, kernels, timeout_s)
    except EdgecError as error:
        if not error.code.startswith("validate/"):
            raise
        return None
    pairs = [(a, b) for a, b in zip(here, there, strict=True) if a.dtype.kind in "iu"]
    return Layers(
        first=probe.compare(here, there),
        integers=len(pairs),
        integers_equal=sum(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs),
    )


@dataclass(frozen=True, slots=True)
class _Probe:
    """The model with all its tensors as outputs, and what the agent needs beside it."""

    model: bytes
    manifest: Mapping[str, Any]
    feeds: Mapping[str, Array]
    layers: tuple[tuple[str, str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, bundle: Bundle) -> _Probe:
        """Make it from a bundle. Layers are (operator, name of its first output, places among the outputs)."""
        model = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(bundle.read(bundle.manifest.model), 0))
        graph = model.subgraphs[0]
        inputs = {graph.tensors[i].name.decode(): i for i in graph.inputs}
        names = [(t.name or b"").decode(errors="replace") for t in graph.tensors]
        outputs: list[int] = []
        layers = []
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = op_name(max(code.builtinCode, code.deprecatedBuiltinCode))
            made = [int(i) for i in operator.outputs if not graph.tensors[i].isVariable]
            layers.append((kind, names[made[0]] if made else "", tuple(range(len(outputs), len(outputs) + len(made)))))
            outputs += made
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"t{index}"
        graph.outputs = outputs
        model.signatureDefs = None  # they name the outputs that were
        golden = bundle.goldens()[0].raw_inputs
        order = [b.artifact.name for b in bundle.inputs]
        return cls(
            _packed(model),
            {
                "model": "model.tflite",
                "backend": "tflite",
                "inputs": [{"artifact": {"name": f"t{inputs[name]}"}} for name in order],
                "outputs": [{"artifact": {"name": f"t{index}"}} for index in outputs],
            },
            {str(i): golden[name][None] for i, name in enumerate(order)},
            tuple(layers),
        )

    def run(self, device: Transport, kernels: str, timeout_s: float) -> list[Array]:
        """Every tensor's value on a device."""
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder, device.scratch() as scratch:
            here = Path(folder)
            for name in ("bundle", "in"):
                (here / name).mkdir()
            (here / "bundle" / "model.tflite").write_bytes(self.model)
            (here / "bundle" / "manifest.json").write_text(json.dumps(self.manifest))
            feeds: dict[str, Any] = dict(self.feeds)
            np.savez(here / "in" / "golden.npz", **feeds)
            for name in ("bundle", "in"):
                device.push(here / name, f"{scratch}/{name}")
            device.push(AGENT, f"{scratch}/agent.py")
            arguments = ("feed", f"{scratch}/bundle", f"--kernels={kernels}", f"--feeds={scratch}/in",
                         f"--out={scratch}/out")  # fmt: skip
            call_agent(device, f"{scratch}/agent.py", arguments, timeout_s=timeout_s, where=device.name)
            device.pull(f"{scratch}/out", here / "out")
            with np.load(here / "out" / "golden.npz", allow_pickle=False) as arrays:
                return [arrays[str(i)][0] for i in range(len(self.manifest["outputs"]))]

    def compare(self, here: list[Array], there: list[Array]) -> Layer | None:
        """The first layer in the order of the file, which is one in which the model can be computed."""
        for place, (operator, tensor, outputs) in enumerate(self.layers):
            for i in outputs:
                one, other = here[i], there[i]
                same = one.shape == other.shape and one.dtype == other.dtype
                if same and one.tobytes() == other.tobytes():
                    continue
                return Layer(
                    operator=operator,
                    tensor=tensor,
                    place=place + 1,
                    of=len(self.layers),
                    differing=int(np.count_nonzero(one != other)) if same else one.size,
                    values=one.size,
                )
        return None


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
