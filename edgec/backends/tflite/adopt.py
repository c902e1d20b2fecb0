"""Take a ready .tflite file as it is: checked like our own graphs, described for the bundle, not a byte changed.

1. Names: those of the signature where the file has one for its main graph, else the tensors'.
2. A quantized input or output is float32 on the source's side; the artifact's side has the integers.
3. A free first axis becomes 1, which is said; other free axes must be given.
4. Transposes are the file's own. All that is wrong is reported at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from edgec.artifact import Artifact, IoBinding
from edgec.backends.base import Adopted, Precision, refuse_ready
from edgec.backends.tflite.kernels import check_kernels, working_type
from edgec.backends.tflite.limits import check_limits
from edgec.backends.tflite.read_graph import CUSTOM, FlatModel, Signature, read_graph
from edgec.backends.tflite.tir import Graph, Op, Tensor
from edgec.backends.tflite.versions import op_version, stored
from edgec.backends.tflite.work import peak_bytes, work_of
from edgec.errors import EdgecError, Finding, Severity
from edgec.registry import did_you_mean
from edgec.targets.profile import Target
from edgec.tensors import DType, TensorSpec

MODEL_FILE = "model.tflite"
#: Custom operators that LiteRT's own resolver has.
_REGISTERED = ("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify")


def adopt(
    path: Path, target: Target, *, inputs: Mapping[str, tuple[int, ...]], signature: str | None = None
) -> Adopted:
    """See the module. Raises `EdgecError` with all findings when the target does not run the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EdgecError(
            "source/unreadable", f"{path.name} cannot be read: {error.strerror}", where=str(path)
        ) from error
    model = read_graph(data, str(path))
    used = _signature(model, signature, path)
    names = _Names(model.graph, used)
    findings = [*_findings(model, target), *_apply_shapes(model, names, inputs)]
    refuse_ready(findings, path, target)
    graph = model.graph
    runtime = target.backends["tflite"].runtime if "tflite" in target.backends else None
    artifact = Artifact(
        backend="tflite",
        precision=precision_of(graph),
        files={MODEL_FILE: data},
        main=MODEL_FILE,
        inputs=tuple(_binding(t, names.inputs[t]) for t in graph.inputs),
        outputs=tuple(_binding(t, names.outputs[t]) for t in graph.outputs),
        requirements={} if runtime is None else {runtime.package: runtime.min_version},
        op_versions=_versions(graph),
        operators=dict(sorted(Counter(op.kind for op in graph.every_op()).items())),
        transposes=tuple(f"{op.origin}: the file transposes here" for op in graph.every_op() if op.kind == "TRANSPOSE"),
        engine="" if runtime is None else runtime.engine,
        work=work_of(graph),
        peak_bytes=peak_bytes(graph),
    )
    return Adopted(artifact=artifact, digest=hashlib.sha256(data).hexdigest(), findings=tuple(findings))


def precision_of(graph: Graph) -> Precision:
    """What narrows a file's values most: int8 or int16 activations, int8 or float16 weights, nothing."""
    kinds: set[Precision] = set()
    for op in graph.every_op():
        if op.kind in ("QUANTIZE", "DEQUANTIZE"):
            kinds |= {"float16"} if any(t is not None and t.dtype == DType.FLOAT16 for t in op.inputs) else set()
            continue
        values = [t for t in (*op.data_inputs(), *op.outputs) if t.storage is not None]
        types = {stored(t) for t in values}
        if DType.INT16 in types:
            kinds.add("int16x8")
        elif types & {DType.INT8, DType.UINT8}:
            kinds.add("int8")
        elif working_type(op) == DType.FLOAT32 and any(t is not None and t.is_const and t.storage for t in op.inputs):
            kinds.add("dynamic")
    order: tuple[Precision, ...] = ("int8", "int16x8", "dynamic", "float16")  # an int8 LSTM keeps its cell in int16
    return next((kind for kind in order if kind in kinds), "float32")


class _Names:
    """What the user calls each input and output: rule 1."""

    def __init__(self, graph: Graph, signature: Signature | None) -> None:
        self.inputs = {t: signature.inputs.get(t.name, t.name) if signature else t.name for t in graph.inputs}
        self.outputs = {t: signature.outputs.get(t.name, t.name) if signature else t.name for t in graph.outputs}


def _signature(model: FlatModel, wanted: str | None, path: Path) -> Signature | None:
    """The signature of the main graph; raises for one that is not there, or belongs to another graph."""
    main = [s for s in model.signatures if s.subgraph == 0]
    if wanted is None:
        return main[0] if main else None
    for signature in main:
        if signature.name == wanted:
            return signature
    other = any(s.name == wanted for s in model.signatures)
    raise EdgecError(
        "source/unknown-signature",
        f"signature {wanted!r} of {path.name} is not the main graph's, which is what devices run"
        if other
        else f"{path.name} has no signature {wanted!r}",
        where=str(path),
        hint=did_you_mean(wanted, [s.name for s in main]) if main else "the file has no signatures",
    )


def _findings(model: FlatModel, target: Target) -> Iterator[Finding]:
    graph = model.graph
    runtime = target.backends["tflite"].runtime if "tflite" in target.backends else None
    package = "LiteRT" if runtime is None else runtime.package
    micro = runtime is not None and runtime.engine == "tflite-micro"
    for op in graph.every_op():
        if op.kind.startswith(CUSTOM) and (micro or op.kind.removeprefix(CUSTOM) not in _REGISTERED):
            yield _custom(op, package)
    if model.misquantized and not micro:  # TFLite Micro does not look at the axis
        more = f" (and {len(model.misquantized) - 1} more)" if len(model.misquantized) > 1 else ""
        yield Finding(
            code="backend/refused-tensor",
            message=f"{model.misquantized[0]}{more}, which {package} refuses",
            where=model.misquantized[0].split("'")[1],
            hint="convert the model anew from its source: old converters wrote such files; "
            "TensorFlow Lite Micro runs them (--target cortex-m4 and the like)",
        )
    for t in dict.fromkeys((*graph.inputs, *graph.outputs)):
        if t in model.foreign:
            yield Finding(
                code="graph/unsupported-type",
                message=f"{t.name!r} has the element type {model.foreign[t]}, which no target takes",
                where=t.name,
                hint="export the part of the model that takes and gives numbers",
            )
    for specs, kind in ((graph.inputs, "input"), (graph.outputs, "output")):
        for name, count in Counter(t.name for t in dict.fromkeys(specs)).items():
            if count > 1:
                yield Finding(
                    code="backend/same-names",
                    message=f"{count} {kind}s are called {name!r}, so that none can be told from the others",
                    where=name,
                    hint="convert the model anew with names of their own",
                )
    yield from (f for f in check_kernels(graph, target) if not f.message.startswith(CUSTOM))
    yield from check_limits(graph, target)


def _custom(op: Op, package: str) -> Finding:
    name = op.kind.removeprefix(CUSTOM)
    flex = name.startswith("Flex")
    return Finding(
        code="backend/custom-op",
        message=f"custom operator {name}: {package} has no kernel for it"
        + (" (it needs TensorFlow's own operators on the device)" if flex else ""),
        where=op.origin,
        rule="tflite/builtin-operators",
        hint="build from the source model, where edgec writes such operators out"
        if flex
        else "replace it in the model",
    )


def _apply_shapes(model: FlatModel, names: _Names, given: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    """Rule 3, in place; raises for what was given wrongly."""
    by_name = {names.inputs[t]: t for t in model.graph.inputs} | {t.name: t for t in model.graph.inputs}
    for name, shape in given.items():
        if name not in by_name:
            raise EdgecError(
                "source/unknown-input",
                f"the model has no input {name!r}",
                where=name,
                hint=did_you_mean(name, names.inputs.values()),
            )
        tensor = by_name[name]
        free = model.free.get(tensor, ())
        fits = len(shape) == tensor.rank and all(
            axis in free or size == own for axis, (size, own) in enumerate(zip(shape, tensor.shape, strict=True))
        )
        if not fits or any(size < 1 for size in shape):
            raise EdgecError(
                "source/input-shape",
                f"shape {_text(shape)} does not fit input {name!r}, which is {_declared(tensor, free)}",
                where=name,
                hint="change only the free dimensions",
            )
        tensor.shape = shape
    for tensor in model.graph.inputs:
        name, free = names.inputs[tensor], model.free.get(tensor, ())
        if name in given or tensor.name in given or not free:
            continue
        if free != (0,):
            yield Finding(
                code="source/free-dimension",
                message=f"the shape of input {name!r} ({_declared(tensor, free)}) is not fixed, and cannot be guessed",
                where=name,
                hint=f"give it, with numbers for the ?: --input {name}:{_declared(tensor, free)}",
            )
            continue
        tensor.shape = (1, *tensor.shape[1:])
        yield Finding(
            code="source/default-shape",
            severity=Severity.INFO,
            message=f"input {name!r} dimension 0 fixed to 1",
            where=name,
            hint=f"another batch: --input {name}:{_text((2, *tensor.shape[1:]))}",
        )


def _declared(tensor: Tensor, free: tuple[int, ...]) -> str:
    return "x".join("?" if axis in free else str(size) for axis, size in enumerate(tensor.shape))


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _binding(t: Tensor, name: str) -> IoBinding:
    """Rule 2."""
    artifact = TensorSpec(
        name=t.name,
        shape=t.shape,
        dtype=stored(t) or DType.FLOAT32,
        qparams=None if t.storage is None else t.storage.qparams,
    )
    dtype = artifact.dtype if t.storage is None else DType.FLOAT32
    return IoBinding(source=replace(artifact, name=name, dtype=dtype, qparams=None), artifact=artifact)


def _versions(graph: Graph) -> dict[str, int]:
    table: dict[str, int] = {}
    for op in graph.every_op():
        table[op.kind] = max(table.get(op.kind, 0), op_version(op))
    return dict(sorted(table.items()))
