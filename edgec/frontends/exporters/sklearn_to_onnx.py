"""scikit-learn estimators to ONNX: give up rights → load → tidy columns → skl2onnx → names → samples of what is right.

Run as `python -P sklearn_to_onnx.py request.json response.json`; imports nothing of edgec.

1. Rights are given up before the file is opened: a pickle runs whatever its maker wrote into it.
2. skops asks before it makes scikit-learn's own trees, whose arrays it cannot check: a process that can reach nothing
   makes them unasked. numpy's element types, which encoders of text keep, are harmless anywhere.
3. The converted model is compared later with what scikit-learn itself says to the samples that are written here.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import lockdown
from refusal import SourceError, answer, essence


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write `request["output"]` and the samples; labels, versions, findings, and which rights were given up."""
    folder, source = Path(request["output"]).parent, Path(request["source"])
    offline = lockdown.without_network()
    lockdown.limited()
    # What is imported now is trusted, and what the model brings later can only be what is installed.
    import sklearn
    from sklearn_convert import convert
    from sklearn_probe import write_probes

    readable, writable = [*lockdown.pythons_folders(), source], [folder, Path(sys.argv[2]).parent]
    confined = lockdown.without_files(readable=readable, writable=writable)
    findings: list[dict[str, str]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator = load(source, {**request, "confined": confined and offline})
        findings += version_findings(caught, sklearn.__version__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = convert(estimator, request["inputs"], request["dtypes"])
        Path(request["output"]).write_bytes(made.pop("model").SerializeToString())
        write_probes(estimator, made["inputs"], folder / "probes.npz")
    return {**made, "findings": [*findings, *made["findings"]], "offline": offline, "confined": confined}


def load(source: Path, request: dict[str, Any]) -> Any:
    """The estimator in the file. Raises `SourceError`."""
    try:
        return _load_skops(source, request) if request["kind"] == "skops" else _load_pickle(source)
    except SourceError:
        raise
    except ModuleNotFoundError as error:
        raise SourceError(
            "env/missing-package",
            f"the model was made with the Python package {error.name}, which is not installed here",
            f"install {error.name} beside edgec; code of your own in a pickle has to be importable",
        ) from error
    except Exception as error:
        raise SourceError(
            "source/unreadable",
            f"{source.name} cannot be loaded: {type(error).__name__}: {essence(error)}",
            "load it with the scikit-learn that saved it, and save it again with skops.io.dump",
        ) from error


def _load_skops(source: Path, request: dict[str, Any]) -> Any:
    import skops.io

    foreign = skops.io.get_untrusted_types(file=source)
    own = request["confined"]
    strange = [name for name in foreign if name != "numpy.dtype" and not (own and _is_scikits_own(name))]
    if strange and not request["trust"]:
        raise SourceError(
            "source/untrusted",
            "the file names types that skops does not know to be harmless: " + ", ".join(sorted(strange)),
            "give --trust when you know who made the file",
        )
    return skops.io.load(source, trusted=foreign)


def _is_scikits_own(name: str) -> bool:
    """Rule 2: whether it is a class of scikit-learn."""
    module, _, attribute = name.rpartition(".")
    if not module.startswith("sklearn."):
        return False
    return isinstance(getattr(importlib.import_module(module), attribute, None), type)


def _load_pickle(source: Path) -> Any:
    import joblib  # reads what pickle writes too, and unpacks zlib, gzip, bz2, lzma and xz

    return joblib.load(source)


def version_findings(caught: list[warnings.WarningMessage], installed: str) -> list[dict[str, str]]:
    """One finding for all warnings of scikit-learn that the file is of another version."""
    found = {
        str(getattr(w.message, "original_sklearn_version", "another version"))
        for w in caught
        if type(w.message).__name__ == "InconsistentVersionWarning"
    }
    if not found:
        return []
    return [
        {
            "code": "source/sklearn-version",
            "message": f"the model was saved by scikit-learn {', '.join(sorted(found))} and loaded by {installed}",
            "severity": "warning",
            "hint": "scikit-learn promises nothing across versions: compare the answers with those of the old one",
        }
    ]


if __name__ == "__main__":
    os.environ.update(PYTHONHASHSEED="0")
    sys.exit(answer(sys.argv, export))
