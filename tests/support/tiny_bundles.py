"""Tiny real artifacts for both runtimes, and bundles made of them.

All compute y = relu(x · SCALE[channel]). Source side: x [1,2,3,4] NCHW. The TFLite ones take NHWC; `int8` ones
dequantize, multiply, and quantize again.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from edgec.artifact import Artifact, IoBinding
from edgec.bundle.golden import Golden
from edgec.bundle.manifest import Provenance
from edgec.bundle.pack import write_bundle
from edgec.runners.base import agent_source, run_artifact
from edgec.targets.profile import Target
from edgec.tensors import Array, DType, QParams, TensorSpec

SCALE = np.array([2.0, -3.0], np.float32)
IN_Q = QParams.per_tensor(0.05, 3)
OUT_Q = QParams.per_tensor(0.1, -128)
NHWC = (0, 2, 3, 1)


def target() -> Target:
    """A profile with both backends."""
    runtimes = {"tflite": ("ai-edge-litert", "1.0"), "openvino": ("openvino", "2024.0")}
    return Target.model_validate(
        {
            "id": "bench",
            "title": "A bench machine",
            "hardware": {"arch": "x86_64", "cpu": "any", "cores": 2, "memory_bytes": 1 << 30},
            "default_backend": "tflite",
            "backends": {
                backend: {"runtime": {"package": package, "min_version": version}, "precisions": ["float32"]}
                for backend, (package, version) in runtimes.items()
            },
        }
    )


def expected(x: Array) -> Array:
    """What the model computes, source side."""
    return np.maximum(x * SCALE.reshape(1, 2, 1, 1), 0).astype(np.float32)


def sample(seed: int) -> Array:
    """A source-side input within the int8 input's range."""
    return np.random.default_rng(seed).uniform(-4, 4, (1, 2, 3, 4)).astype(np.float32)


def _spec(name: str, shape: tuple[int, ...], q: QParams | None = None) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=DType.FLOAT32 if q is None else DType.INT8, qparams=q)


def _bindings(shape: tuple[int, ...], perm: tuple[int, ...] | None, *, int8: bool) -> dict[str, Any]:
    x, y = (1, 2, 3, 4), (1, 2, 3, 4)
    inside, outside = (IN_Q, OUT_Q) if int8 else (None, None)
    return {
        "inputs": (IoBinding(source=_spec("x", x), artifact=_spec("x_in", shape, inside), perm=perm),),
        "outputs": (IoBinding(source=_spec("y", y), artifact=_spec("y_out", shape, outside), perm=perm),),
    }


def tflite_artifact(*, int8: bool = False) -> Artifact:
    """A .tflite, float or int8 inputs and outputs."""
    return Artifact(
        backend="tflite",
        precision="int8" if int8 else "float32",
        files={"model.tflite": tflite_bytes(int8=int8)},
        main="model.tflite",
        requirements={"ai-edge-litert": "1.0"},
        operators={"MUL": 1, "RELU": 1},
        op_versions={"MUL": 1, "RELU": 1},
        **_bindings((1, 3, 4, 2), NHWC, int8=int8),
    )


def tflite_bytes(*, int8: bool = False) -> bytes:
    """The file itself, through the schema's object API."""
    from ai_edge_litert import schema_py_generated as schema

    def op_code(builtin: int) -> Any:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 2 if builtin == schema.BuiltinOperator.DEQUANTIZE and int8 else 1
        return code

    def tensor(name: str, shape: tuple[int, ...], buffer: int = 0, q: QParams | None = None) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name, list(shape), buffer
        made.type = schema.TensorType.FLOAT32 if q is None else schema.TensorType.INT8
        if q is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = list(q.scale), list(q.zero_point)
        return made

    def operator(code: int, inputs: list[int], outputs: list[int]) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
        return made

    shape = (1, 3, 4, 2)
    builtin = schema.BuiltinOperator
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x_in" if not int8 else "x_real", shape),
        tensor("scale", (2,), buffer=1),
        tensor("product", shape),
        tensor("y_out" if not int8 else "y_real", shape),
    ]
    graph.operators = [operator(0, [0, 1], [2]), operator(1, [2], [3])]
    graph.operators[0].builtinOptionsType = schema.BuiltinOptions.MulOptions
    graph.operators[0].builtinOptions = schema.MulOptionsT()
    graph.inputs, graph.outputs = [0], [3]
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes = [op_code(builtin.MUL), op_code(builtin.RELU)]
    if int8:
        graph.tensors += [tensor("x_in", shape, q=IN_Q), tensor("y_out", shape, q=OUT_Q)]
        graph.operators = [operator(2, [4], [0]), *graph.operators, operator(3, [3], [5])]
        graph.inputs, graph.outputs = [4], [5]
        model.operatorCodes += [op_code(builtin.DEQUANTIZE), op_code(builtin.QUANTIZE)]
    constant = schema.BufferT()
    constant.data = np.frombuffer(SCALE.tobytes(), np.uint8)
    model.buffers = [schema.BufferT(), constant]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def openvino_artifact() -> Artifact:
    """An IR in NCHW, float."""
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([1, 2, 3, 4], np.float32, name="x_in")
    y = ops.relu(ops.multiply(x, ops.constant(SCALE.reshape(1, 2, 1, 1))), name="y_out")
    x.output(0).get_tensor().set_names({"x_in"})
    y.output(0).get_tensor().set_names({"y_out"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.xml")
        openvino.serialize(openvino.Model([y], [x], "tiny"), str(path))
        files = {name: Path(folder, name).read_bytes() for name in ("model.xml", "model.bin")}
    return Artifact(
        backend="openvino",
        precision="float32",
        files=files,
        main="model.xml",
        requirements={"openvino": "2024.0"},
        operators={"Multiply": 1, "ReLU": 1},
        **_bindings((1, 2, 3, 4), None, int8=False),
    )


def reference(x: Array, artifact: Artifact) -> Array:
    """What the model of the artifact's precision should give, source side."""
    if artifact.precision != "int8":
        return expected(x)
    through = IN_Q.dequantize(IN_Q.quantize(x, DType.INT8))
    return OUT_Q.dequantize(OUT_Q.quantize(expected(through), DType.INT8))


def goldens(artifact: Artifact, count: int = 2) -> list[Golden]:
    """Goldens with what the artifact really gives here."""
    inputs = [sample(seed) for seed in range(count)]
    raw = [{"x_in": artifact.inputs[0].to_artifact(x)} for x in inputs]
    return [
        Golden(
            inputs={"x": x},
            raw_inputs=feed,
            raw_outputs=out,
            reference_outputs={"y": reference(x, artifact)},
            float_outputs={"y": expected(x)},
        )
        for x, feed, out in zip(inputs, raw, run_artifact(artifact, raw), strict=True)
    ]


def provenance() -> Provenance:
    """Where the tiny models pretend to come from."""
    return Provenance(
        source_name="tiny.onnx",
        source_kind="onnx",
        source_digest="0" * 64,
        calibration_name="noise",
        calibration_digest="1" * 64,
        samples=2,
        tools={"numpy": np.__version__, "edgec": "0.1.0"},
    )


def pack(path: Path, artifact: Artifact, **changes: Any) -> Path:
    """A complete bundle of an artifact; `changes` replace arguments of `write_bundle`."""
    arguments: dict[str, Any] = {
        "name": "tiny",
        "artifact": artifact,
        "target": target(),
        "provenance": provenance(),
        "agent": agent_source(),
        "labels": ("first", "second"),
        "preprocessing": {"mean": [0.5, 0.5], "layout": "NCHW"},
        "report_json": b"{}\n",
    }
    arguments.update(changes)
    if "goldens" not in arguments:
        arguments["goldens"] = goldens(artifact)
    return write_bundle(path, **arguments)
