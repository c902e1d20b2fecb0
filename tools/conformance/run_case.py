"""Run one case through one backend: load, canonicalize, legalize, compile, run, compare."""

from __future__ import annotations

import re
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from edgec.backends.base import CompileOptions, load_backend
from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.runners import agent
from edgec.targets.load import load_target
from tools.conformance.cases import Case, CaseRef
from tools.conformance.compare import difference

#: What we compare ourselves with: the same cases, opset number lowered, nothing of ours in between.
REFERENCE = "onnxruntime"
#: The newest opset of the default domain that ONNX Runtime accepts.
_REFERENCE_OPSET = 26
_TARGET = "linux-x86_64"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The verdict on a case: pass, refused, wrong, error, crash or timeout, and why."""

    name: str
    suite: str
    op_type: str
    backend: str
    verdict: str
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)


def run_case(ref: CaseRef, backend: str) -> Result:
    """The verdict on a case. Never raises; what ends the process or hangs is the pool's business."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict, reason, detail = _judge(ref, backend)
    return Result(
        name=ref.name,
        suite=ref.suite,
        op_type=ref.op_type,
        backend=backend,
        verdict=verdict,
        reason=reason,
        detail=detail,
        seconds=round(time.perf_counter() - start, 3),
    )


def _judge(ref: CaseRef, backend: str) -> tuple[str, str, str]:
    try:
        case = ref.read()
        text = _reference(case) if backend == REFERENCE else _ours(case, backend)
    except EdgecError as error:
        rules = [_rule(f) for f in error.findings if f.severity == Severity.ERROR]
        if error.code.startswith("internal/"):
            return "error", error.code, str(error)
        return "refused", " + ".join(dict.fromkeys(rules)) or error.code, _texts(error.findings)
    except agent.AgentError as error:
        return "error", error.record["code"], error.record["message"][:400]
    except Exception as error:  # noqa: BLE001 # the verdict on a bug of ours is 'error'
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        last = frames[-1] if frames else None
        at = f"{Path(last.filename).name}:{last.lineno}" if last else ""
        if backend == REFERENCE:
            return "refused", _brief(str(error)), ""
        return "error", f"{type(error).__name__} at {at}", str(error)[:400]
    return ("wrong", re.sub(r"\d[\d.e+-]*", "N", text), text) if text else ("pass", "", "")


def _rule(finding: Finding) -> str:
    if finding.rule.endswith("/operator"):
        return finding.message
    return f"{finding.code} {finding.rule}".strip()


def _texts(findings: tuple[Finding, ...]) -> str:
    return "; ".join(dict.fromkeys(f"{f.where}: {f.message}" for f in findings))[:400]


def _brief(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:120]


@cache
def _target() -> Any:
    return load_target(_TARGET)


def _ours(case: Case, name: str) -> str:
    backend, target = load_backend(name), _target()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(case.model)
        source = load_source(path, inputs=_empty_inputs(case)).model
        model = backend.legalize(canonicalize(source), target, "float32")
        artifact = backend.compile(model, target, CompileOptions(precision="float32"))
        for file, data in artifact.files.items():
            (Path(folder) / file).write_bytes(data)
        runtime = agent.load(str(Path(folder) / artifact.main), name, 1)
        names = [v.name for v in onnx.load_model_from_string(case.model).graph.input]
        for inputs, outputs in case.data:
            feeds = dict(zip(names, inputs, strict=False))
            results = runtime.run({b.artifact.name: b.to_artifact(feeds[b.source.name]) for b in artifact.inputs})
            actual = [b.to_source(results[b.artifact.name]) for b in artifact.outputs]
            text = difference(case.name, outputs, actual, case.rtol, case.atol)
            if text:
                return text
    return ""


def _empty_inputs(case: Case) -> dict[str, tuple[int, ...]]:
    """Shapes to give on the command line: a declared 0 counts as free unless the user says that it is meant."""
    proto = onnx.load_model_from_string(case.model)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in proto.graph.input}
    values = dict(zip(shapes, case.data[0][0], strict=False))
    empty = {name: shape for name, shape in shapes.items() if 0 in shape}
    return {n: s for n, s in empty.items() if getattr(values.get(n), "shape", None) == s}


def _reference(case: Case) -> str:
    import onnxruntime

    proto = onnx.load_model_from_string(case.model)
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = min(entry.version, _REFERENCE_OPSET)
    proto.ir_version = min(proto.ir_version, 11)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [v.name for v in session.get_inputs()]
    for inputs, outputs in case.data:
        feeds = dict(zip(names, inputs, strict=False))
        text = difference(case.name, outputs, session.run(None, feeds), case.rtol, case.atol)
        if text:
            return text
    return ""
