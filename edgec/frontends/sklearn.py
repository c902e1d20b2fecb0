"""Read a scikit-learn estimator: `.skops`, or a pickle, also packed by joblib, where the user trusts it.

scikit-learn runs in a process of its own that has given up network, files and other programs before it opens the file
(see exporters/lockdown.py). What comes back is ONNX, which is compared here with what scikit-learn itself answered.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._child import run_exporter
from edgec.frontends._onnx_model import from_proto
from edgec.frontends._pickled import names_in_pickle
from edgec.frontends.base import Loaded, Request, existing
from edgec.graph.model import Model, SourceInfo
from edgec.passes.pipelines import canonicalize
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array

_SCRIPT = Path(__file__).parent / "exporters" / "sklearn_to_onnx.py"
_NEEDED = ("sklearn", "skl2onnx", "skops")
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
#: Packages whose estimators are made to stand in scikit-learn's place.
_OURS = ("sklearn.",)
_OTHERS = ("torch.",)
#: float32 beside float64: what a comparison allows before it counts a sample as answered differently.
_ROUNDING = 1e-3
_BENT = 0.1

Kind = Literal["skops", "pickle"]


def accepts(request: Request) -> bool:
    """True for skops archives, and for pickles that name scikit-learn, or are named as pickles and are not torch's."""
    return request.path is not None and request.path.is_file() and _kind(request.path) is not None


def load(request: Request) -> Loaded:
    """Convert it in a process of its own; see the module. Raises `EdgecError` (`source/…`, `env/…`)."""
    path = existing(request)
    kind: Kind = _kind(path) or ("skops" if zipfile.is_zipfile(path) else "pickle")
    if kind == "pickle" and not request.options.trust:
        raise EdgecError(
            "source/untrusted",
            f"{path.name} is a Python pickle: loading it runs whatever code its maker wrote into it",
            where=str(path),
            hint="save it with skops.io.dump and give that; or give --trust when you know who made the file",
        )
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgecError(
            "env/missing-extra",
            f"reading scikit-learn models needs {' and '.join(missing)}, not installed here",
            where=str(path),
            hint="pip install 'edgec[sklearn]'",
        )
    with tempfile.TemporaryDirectory(prefix="edgec-sklearn-") as folder:
        output = Path(folder) / "model.onnx"
        answer = run_exporter(
            _SCRIPT,
            {
                "source": str(path.resolve()),
                "kind": kind,
                "trust": request.options.trust,
                "output": str(output),
                "inputs": {name: list(shape) for name, shape in request.inputs.items()},
                "dtypes": dict(request.options.dtypes),
            },
            where=str(path),
            python=_clean_python(folder),
        )
        proto = onnx.load(str(output))
        probes = _arrays(Path(folder) / "probes.npz")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = SourceInfo(kind="sklearn", name=path.name, digest=digest)
    loaded = from_proto(proto, source=source, name=path.stem, inputs=request.inputs)
    findings = [Finding(**{**f, "severity": Severity(f["severity"])}) for f in answer["findings"]]
    findings += _kept_from(answer, path) if kind == "pickle" or request.options.trust else []
    findings += _compared(loaded.model, loaded.labels, probes)
    features = {"features": answer["features"]} if answer["features"] else {}
    return Loaded(
        model=loaded.model,
        findings=(*findings, *loaded.findings),
        labels=loaded.labels,
        preprocessing={**loaded.preprocessing, **features},
    )


def _clean_python(folder: str) -> tuple[str, ...]:
    """This interpreter with an environment that holds no secrets."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    kept = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": threads}
    return ("/usr/bin/env", "-i", *(f"{k}={v}" for k, v in kept.items() if v), sys.executable)


def _kind(path: Path) -> Kind | None:
    if zipfile.is_zipfile(path):
        return "skops" if _is_skops(path) else None
    names = names_in_pickle(path)
    if names is None or any(name.startswith(_OTHERS) for name in names):
        return None
    ours = any(name.startswith(_OURS) for name in names)
    return "pickle" if ours or path.suffix in _PICKLE_SUFFIXES else None


def _is_skops(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive, archive.open("schema.json") as file:
            return "__loader__" in json.loads(file.read(1 << 24))
    except (KeyError, OSError, ValueError, zipfile.BadZipFile):
        return False


def _arrays(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _kept_from(answer: dict[str, Any], path: Path) -> list[Finding]:
    """What code in the file could have reached all the same."""
    open_ = [
        what
        for what, closed in (("the network", answer["offline"]), ("this user's files", answer["confined"]))
        if not closed
    ]
    if not open_:
        return []
    return [
        Finding(
            code="source/not-confined",
            message=f"code in {path.name} could reach {' and '.join(open_)} while it was loaded",
            severity=Severity.WARNING,
            where=str(path),
            hint="this kernel lets a process give up neither or only one (user namespaces, Landlock): load files "
            "of strangers elsewhere",
        )
    ]


def _compared(model: Model, labels: tuple[str, ...], probes: dict[str, Array]) -> list[Finding]:
    """Whether the converted model answers as scikit-learn did, sample by sample; inputs' names stand behind a `>`."""
    specs = model.inputs()
    asked = {s.name: probes[f">{s.name}"].astype(s.dtype.numpy) for s in specs if f">{s.name}" in probes}
    answers = {name: array for name, array in probes.items() if not name.startswith(">")}
    if len(asked) < len(specs) or not answers:
        return []
    batch = specs[0].shape[0]
    executor = Executor(canonicalize(model))
    count = len(asked[specs[0].name]) // batch * batch
    if not count:
        return []
    got = [executor.run({n: a[i : i + batch] for n, a in asked.items()}) for i in range(0, count, batch)]
    bent = np.zeros(count, bool)
    for key, right in answers.items():
        if key in got[0]:
            found = np.concatenate([np.asarray(g[key]).reshape(batch, -1) for g in got])
            bent |= _differs(found, right[:count].reshape(count, -1), labels)
    share = float(bent.mean())
    if not share:
        return []
    message = f"skl2onnx's conversion answers {100 * share:.1f} % of {count} samples differently from scikit-learn"
    if share > _BENT:
        raise EdgecError(
            "source/conversion-differs",
            message,
            where=model.source.name,
            hint="a step of the pipeline is converted wrongly: replace it (docs/sources.md lists what is tested)",
        )
    return [
        Finding(
            code="source/conversion-differs",
            message=message,
            severity=Severity.WARNING,
            hint="in float32 samples that lie on a border may fall to its other side; compare on data of your own",
        )
    ]


def _differs(found: Array, right: Array, labels: tuple[str, ...]) -> Array:
    """By sample."""
    if found.shape != right.shape:
        return np.ones(len(found), bool)
    if right.dtype.kind == "U":
        found = np.asarray(labels or ("",))[found.astype(int)]
    if right.dtype.kind in "Ui":
        return np.asarray(np.any(found != right, axis=1))
    sound = np.isfinite(right)
    off = np.abs(found - right) > _ROUNDING * (1 + np.abs(right))
    return np.asarray(np.any(off & sound, axis=1))
