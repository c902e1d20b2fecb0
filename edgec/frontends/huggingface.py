"""Read a Hugging Face Transformers folder: configuration, weights, and what its tokenizer or processor does.

The class comes from `architectures`, the inputs from the class and the configuration, their sizes from the processor.
Where a model is several networks, `--signature` names the one to build. Offline always.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._hf.processor import Processing, read_json, read_processing
from edgec.frontends._onnx_model import from_ir
from edgec.frontends.base import Loaded, Request, existing
from edgec.graph.model import SourceInfo

_CHUNK_BYTES = 1 << 20
_WEIGHTS = (".safetensors", ".bin")
_PACKAGES = ("torch", "transformers", "safetensors")


def accepts(request: Request) -> bool:
    """True for a folder whose config.json is that of a Transformers model, or that has a modules.json."""
    path = request.path
    if path is None or not path.is_dir():
        return False
    if (path / "modules.json").is_file():
        return True
    try:
        table = read_json(path / "config.json")
    except EdgecError:
        return True  # named like one: `load` says what is wrong with it
    return "model_type" in table or "architectures" in table


def load(request: Request) -> Loaded:
    """See the module. Raises `EdgecError` (`source/…`, `env/missing-extra`)."""
    folder = existing(request)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EdgecError(
            "env/missing-extra",
            f"reading a Transformers folder needs {' and '.join(missing)}",
            where=str(folder),
            hint="pip install 'edgec[huggingface]'",
        )
    from edgec.frontends._hf import parts
    from edgec.frontends._hf.load import load_model, offline_and_quiet
    from edgec.frontends._hf.sentence import modules_of, sentence_encoder
    from edgec.frontends._hf.shapes import Shapes
    from edgec.frontends._torch_export import export_module

    modules = modules_of(folder)
    inner = next((path for kind, path in modules if kind == "Transformer"), folder)
    with offline_and_quiet():
        model, findings = load_model(inner, trust=request.options.trust)
        names = parts.part_names(model)
        asked = request.options.signature or names[0]
        main = parts.main_input(model, asked)
        processing = read_processing(inner, main)
        shapes = Shapes(
            config=model.config,
            given=request.inputs,
            dtypes=request.options.dtypes,
            processor=processing.sizes,
            tokenizer=processing.tokenizer,
        )
        part = parts.make_part(model, asked, shapes)
        module = sentence_encoder(part.module, modules) if modules else part.module
        exported = export_module(module, part.inputs, name=folder.name, where=str(folder))
    name = folder.resolve().name + (f"-{asked}" if len(names) > 1 else "")
    source = SourceInfo(kind="huggingface", name=folder.resolve().name, digest=_digest(folder))
    loaded = from_ir(exported, source=source, name=name, inputs={})
    shape_of = {name: list(tensor.shape) for name, tensor in part.inputs.items()}
    return Loaded(
        model=loaded.model,
        findings=(*findings, *_parts_finding(names, asked), *shapes.findings, *processing.findings, *loaded.findings),
        labels=_labels(model.config, asked),
        preprocessing=_facts(processing, main, shape_of),
        recipe=processing.recipe,
    )


def _parts_finding(names: tuple[str, ...], built: str) -> tuple[Finding, ...]:
    if len(names) == 1:
        return ()
    others = [name for name in names if name != built]
    return (
        Finding(
            code="source/hf-parts",
            message=f"the model is several networks: {', '.join(names)}; {built} is built",
            severity=Severity.INFO,
            hint="build the others too: " + ", ".join(f"--signature {name}" for name in others),
        ),
    )


def _labels(config: Any, part: str) -> tuple[str, ...]:
    """Labels in the order of the classes; none where the config only counts them (LABEL_0, LABEL_1, …)."""
    table = getattr(config, "id2label", None) or {}
    names = tuple(str(table[index]) for index in sorted(table))
    counted = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return () if counted or part != "model" else names


def _facts(processing: Processing, main: str, shapes: dict[str, list[int]]) -> dict[str, Any]:
    if not processing.facts:
        return {}
    facts = {"input": main, **processing.facts}
    if main == "input_ids" and main in shapes:
        facts["max_length"] = shapes[main][-1]
    return facts


def _digest(folder: Path) -> str:
    """sha256 over the names and contents of configurations and weights; of code too, where there is any."""
    sha = hashlib.sha256()
    kept = [path for path in folder.rglob("*") if path.suffix in (*_WEIGHTS, ".json", ".py") and path.is_file()]
    for path in sorted(kept, key=lambda path: path.relative_to(folder).as_posix()):
        sha.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            for chunk in iter(lambda file=file: file.read(_CHUNK_BYTES), b""):  # type: ignore[misc]
                sha.update(chunk)
    return sha.hexdigest()
