"""The C++ project around a model for TensorFlow Lite Micro: data, resolver, goldens, a main that checks them, CMake.

Nothing is left to edit for a first run: the program allocates, runs every golden and compares. Integers must be equal
to what TFLM's reference kernels computed, within `EDGEC_GOLDEN_STEPS`; floats within a share of the largest value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.artifact import IoBinding
from edgec.bundle.golden import Golden
from edgec.packaging._tflm.c_source import array, comment, header, identifier, string
from edgec.packaging._tflm.text import CMAKE, GOLDENS_H, MAIN_CC, MODEL_H, README
from edgec.tensors import Array, DType

FOLDER = "micro"
#: Goldens travel in program memory too: as many as fit in this, and one in any case.
_GOLDEN_BYTES = 65536

#: Operators whose method of MicroMutableOpResolver is not their name in camel case.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
    "CUSTOM ethos-u": "AddEthosU",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """What the sources are made from. `steps` is how far a golden's integers may be off on this device."""

    name: str
    target_id: str
    model: bytes
    operators: Sequence[str]
    arena_bytes: int
    scratch_bytes: int
    inputs: Sequence[IoBinding]
    outputs: Sequence[IoBinding]
    goldens: Sequence[Golden]
    steps: int = 0
    notes: Sequence[str] = ()


def resolver_method(kind: str) -> str:
    """The method of MicroMutableOpResolver that adds an operator."""
    if kind in _METHODS:
        return _METHODS[kind]
    # 2D keeps its capital, ND does not: AddConv2D, AddGatherNd
    return "Add" + "".join(part if part[0].isdigit() else part.capitalize() for part in kind.split("_"))


def project_files(project: Project) -> dict[str, bytes]:
    """All files by archive name."""
    kept = _fitting(project.goldens)
    values = _values(project)
    files = {
        "model_data.h": _fill(MODEL_H, values),
        "model_data.cc": _model_source(project),
        "op_resolver.h": _resolver(project),
        "goldens.h": _fill(GOLDENS_H, values),
        "goldens.cc": _goldens_source(project, kept),
        "main.cc": _fill(MAIN_CC, values),
        "CMakeLists.txt": _fill(CMAKE, values),
        "README.md": _fill(README, values),
    }
    return {f"{FOLDER}/{name}": data for name, data in files.items()}


def _values(project: Project) -> dict[str, str]:
    return {
        "NAME": comment(project.name),
        "PROJECT": identifier(project.name),
        "TARGET": comment(project.target_id),
        "ARENA": str(project.arena_bytes),
        "SCRATCH": str(project.scratch_bytes),
        "MODEL_BYTES": str(len(project.model)),
        "INPUTS": str(len(project.inputs)),
        "OUTPUTS": str(len(project.outputs)),
        "STEPS": str(project.steps),
        "OPERATORS": ", ".join(sorted(project.operators)),
        "NOTES": "".join(f"- {comment(note)}\n" for note in project.notes),
        "IO": _io_table(project),
    }


def _fill(text: str, values: Mapping[str, str]) -> bytes:
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode("ascii", "replace")


def _model_source(project: Project) -> bytes:
    text = f'// {comment(project.name)}, as edgec compiled it.\n#include "model_data.h"\n\n'
    return (text + array("g_model_data", project.model)).encode()


def _resolver(project: Project) -> bytes:
    methods = sorted(resolver_method(kind) for kind in project.operators)
    adds = " ||\n      ".join(f"resolver.{method}() != kTfLiteOk" for method in methods) or "false"
    body = [
        '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
        "",
        "// Exactly the operators of the model: kernels that are not named here are not linked.",
        f"constexpr unsigned int kOperatorCount = {max(len(methods), 1)};",
        "using ModelOpResolver = tflite::MicroMutableOpResolver<kOperatorCount>;",
        "",
        "inline TfLiteStatus RegisterOps(ModelOpResolver& resolver) {",
        "  (void)resolver;" if not methods else f"  if ({adds}) {{\n    return kTfLiteError;\n  }}",
        "  return kTfLiteOk;",
        "}",
    ]
    return header(f"The operators of {project.name}.", "EDGEC_OP_RESOLVER_H_", body)


def _fitting(goldens: Sequence[Golden]) -> list[Golden]:
    kept: list[Golden] = []
    used = 0
    for golden in goldens:
        used += sum(value.nbytes for value in (*golden.raw_inputs.values(), *golden.raw_outputs.values()))
        if kept and used > _GOLDEN_BYTES:
            break
        kept.append(golden)
    return kept


_KINDS = {DType.INT8: "kInt8", DType.INT16: "kInt16", DType.INT32: "kInt32", DType.FLOAT32: "kFloat32"}


def _goldens_source(project: Project, goldens: Sequence[Golden]) -> bytes:
    parts = ['// Inputs with the outputs that belong to them.\n#include "goldens.h"\n\nnamespace {\n']
    rows = []
    for number, golden in enumerate(goldens):
        cells = {}
        for kind, bindings, arrays in (
            ("input", project.inputs, golden.raw_inputs),
            ("output", project.outputs, golden.raw_outputs),
        ):
            names = []
            for i, binding in enumerate(bindings):
                name = f"g_{kind}_{number}_{i}"
                data = _little_endian(arrays[binding.artifact.name])
                parts.append(array(name, data))
                dtype = _KINDS.get(binding.artifact.dtype, "kBytes")
                names.append(f"{{{name}, {len(data)}u, GoldenType::{dtype}}}")
            cells[kind] = ", ".join(names)
        rows.append(f"  {{{{{cells['input']}}}, {{{cells['output']}}}}},")
    parts.append("}  // namespace\n\n")
    parts.append(f"const unsigned int kGoldenCount = {len(rows)};\n")
    parts.append("const Golden kGoldens[] = {\n" + ("\n".join(rows) or "  {}") + "\n};\n")
    return "\n".join(parts).encode()


def _little_endian(value: Array) -> bytes:
    return np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def _io_table(project: Project) -> str:
    return "".join(_io_rows("input", project.inputs)) + "".join(_io_rows("output", project.outputs))


def _io_rows(kind: str, bindings: Sequence[IoBinding]) -> Iterable[str]:
    for i, binding in enumerate(bindings):
        spec = binding.artifact
        shape = " x ".join(map(str, spec.shape)) or "scalar"
        q = spec.qparams
        scale = "" if q is None else f"real = (q - {q.zero_point[0]}) * {q.scale[0]:.9g}"
        order = "" if binding.perm is None else f"axes {list(binding.perm)} of the source model's"
        yield f"| {kind} {i} | {string(spec.name)[1:-1]} | {spec.dtype} | {shape} | {scale} | {order} |\n"
