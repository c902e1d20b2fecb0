"""Read PyTorch: a factory of a module, an ExportedProgram, TorchScript, or weights with the factory that they fill.

Everything of torch, and all of the user's own code, runs in a process of its own: its prints, its memory and its
crashes stay there. What comes back is an ONNX graph and one file of weights, which stays on disk, mapped.

| source | what is needed beside it |
| --- | --- |
| `package.module:factory`, `file.py:factory` | `--input`, unless the module has `example_inputs` |
| `.pt2` (`torch.export.save`) | nothing |
| TorchScript (`torch.jit.save`) | `--input`, unless it was traced |
| state dict, checkpoint, `.safetensors`, `.npz` | `--factory` and `--input` |
| a whole module, pickled | `--trust` and `--input` |
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
import zipfile
from pathlib import Path

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._child import run_exporter
from edgec.frontends._handover import digest, digest_model, take, take_example
from edgec.frontends._onnx_model import from_ir
from edgec.frontends._same_answer import compare_answers
from edgec.frontends.base import Loaded, Request, not_found
from edgec.graph.model import SourceInfo

_FACTORY = re.compile(r"(?P<file>.+\.py)(:(?P<name>[\w.]+))?|(?P<module>[A-Za-z_][\w.]*):(?P<attribute>[\w.]+)")
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF"
_SUFFIXES = (".safetensors", ".pt2")
_CHILD = Path(__file__).parent / "_torch" / "child.py"


def accepts(request: Request) -> bool:
    """True for `module:factory` and `file.py:factory`, and for the files that torch writes."""
    return _kind(request) is not None


def load(request: Request) -> Loaded:
    """Export it in a process of its own; see the module. Raises `EdgecError` (`source/…`, `env/missing-extra`)."""
    kind = _kind(request) or ("state" if request.path is not None else None)
    if kind is None:
        raise not_found(request)
    if importlib.util.find_spec("torch") is None:
        raise EdgecError(
            "env/missing-extra",
            "reading PyTorch models needs torch, which is not installed",
            where=request.spec,
            hint="pip install 'edgec[torch]'",
        )
    options = request.options
    with tempfile.TemporaryDirectory(prefix="edgec-torch-") as folder:
        answer = run_exporter(
            _CHILD,
            {
                "kind": kind,
                "spec": request.spec,
                "inputs": {name: list(shape) for name, shape in request.inputs.items()},
                "dtypes": dict(options.dtypes),
                "factory": options.factory,
                "trust": options.trust,
                "folder": folder,
            },
            where=request.spec,
            # A file that torch.load would run code from is refused inside of torch too, unless trusted.
            environment={} if options.trust else {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"},
        )
        written = Path(folder)
        from_file = request.path is not None and kind != "factory"
        source = SourceInfo(
            kind="torch",
            name=_name(request),
            digest=digest([Path(request.spec)]) if from_file else digest_model(written),
        )
        model, example = take(written), take_example(written)
    # A program may have free dimensions; everything else was exported with the shapes asked for.
    inputs = request.inputs if kind == "program" else {}
    loaded = from_ir(model, source=source, name=answer["name"], inputs=inputs)
    findings = tuple(Finding(**{**f, "severity": Severity(f["severity"])}) for f in answer["findings"])
    findings += compare_answers(loaded.model, *example, where=request.spec) if example[1] else ()
    return Loaded(model=loaded.model, findings=findings + loaded.findings)


def _name(request: Request) -> str:
    """What names the source without its folder: a file's name, with the factory where there is one."""
    return request.spec.rpartition("/")[2]


def _kind(request: Request) -> str | None:
    """What kind of PyTorch source this is: factory, program, script, state; None when it is none."""
    path = request.path
    if path is None or path.suffix == ".py":
        return "factory" if _FACTORY.fullmatch(request.spec) else None
    if not path.is_file():
        return None
    if path.suffix == ".npz" and request.options.factory:
        return "state"
    if path.suffix == ".safetensors":
        return "state"
    with path.open("rb") as file:
        head = file.read(8)
    if head == _LEGACY_MAGIC:
        return "state"
    return _kind_of_zip(path) if head.startswith(b"PK\x03\x04") else None


def _kind_of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()} | set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return "state" if path.suffix in (".pt", ".pth", ".pt2") else None  # torch says what is wrong with it
    if {"models/model.json", "serialized_exported_program.json"} & names:
        return "program"
    if "constants.pkl" in names and "data.pkl" in names:
        return "script"
    return "state" if "data.pkl" in names else None
