"""Read a Hugging Face Transformers folder: configuration, weights, and what its tokenizer or processor does.

The class comes from `architectures`, the inputs from the class and the configuration, their sizes from the processor.
Where a model is several networks, `--signature` names the one to build. Offline always.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._hf.processor import read_json
from edgec.frontends._onnx_model import from_ir
from edgec.frontends._same_answer import compare_answers
from edgec.frontends.base import Loaded, Request, existing
from edgec.graph.model import SourceInfo

if TYPE_CHECKING:
    from torch import Tensor

    from edgec.frontends._hf.opening import Opened

_CHUNK_BYTES = 1 << 20
_WEIGHTS = (".safetensors", ".bin")
#: Operators that choose: where two scores are almost equal, rounding decides, and answers differ though both are right.
_TIES = frozenset({"ArgMax", "ArgMin", "NonMaxSuppression", "NonZero", "TopK"})
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
    from edgec.frontends._hf.load import offline_and_quiet
    from edgec.frontends._hf.opening import open_folder
    from edgec.frontends._torch_export import answers, export_module

    options = request.options
    with offline_and_quiet():
        opened = open_folder(
            folder, part=options.signature, given=request.inputs, dtypes=options.dtypes, trust=options.trust
        )
        exported = export_module(opened.module, opened.inputs, name=folder.name, where=str(folder))
        fed, given = answers(
            opened.module, _drawn(opened.inputs), [value.name or "" for value in exported.graph.outputs]
        )
    title = _title(folder.absolute())
    name = f"{title}-{opened.part}" if len(opened.parts) > 1 else title
    source = SourceInfo(kind="huggingface", name=title, digest=_digest(folder))
    loaded = from_ir(exported, source=source, name=name, inputs={})
    told = (*_parts_finding(opened.parts, opened.part), *opened.findings, *loaded.findings)
    if not any(node.op_type in _TIES for node in loaded.model.nodes()):
        told += compare_answers(loaded.model, fed, given, where=str(folder))
    return Loaded(
        model=loaded.model,
        findings=told,
        labels=_labels(opened.config, opened.part),
        preprocessing=_facts(opened),
        recipe=opened.processing.recipe,
    )


def _drawn(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The example inputs with seeded random numbers where they are floats."""
    import torch

    source = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=source) if value.dtype == torch.float32 else value
        for name, value in inputs.items()
    }


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


def _title(folder: Path) -> str:
    """The folder's name; of a downloaded one (models--owner--name/snapshots/…) the model's."""
    return folder.parent.parent.name.rpartition("--")[2] if folder.parent.name == "snapshots" else folder.name


def _labels(config: Any, part: str) -> tuple[str, ...]:
    """Labels in the order of the classes; none where the config only counts them (LABEL_0, LABEL_1, …)."""
    table = getattr(config, "id2label", None) or {}
    names = tuple(str(table[index]) for index in sorted(table))
    counted = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return () if counted or part != "model" else names


def _facts(opened: Opened) -> dict[str, Any]:
    """The preprocessing for the manifest; nothing where the folder says nothing."""
    if not opened.processing.facts:
        return {}
    facts = {"input": opened.main, **opened.processing.facts}
    if opened.main == "input_ids":
        facts["max_length"] = opened.inputs["input_ids"].shape[-1]
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
