"""Open a Transformers folder: its configuration, the class that its weights belong to, the weights themselves.

Nothing is fetched. Code that a folder brings along runs only where the user trusts it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import torch
import transformers
from transformers.utils import logging as transformers_logging

from edgec.errors import EdgecError, Finding, Severity
from edgec.frontends._hf.processor import read_json

_SHOWN = 4


@contextlib.contextmanager
def offline_and_quiet() -> Iterator[None]:
    """No network, no progress bars, no log lines, while a folder is read; afterwards as it was."""
    was_offline = huggingface_hub.constants.HF_HUB_OFFLINE
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = was_offline
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def load_model(folder: Path, *, trust: bool) -> tuple[Any, tuple[Finding, ...]]:
    """The model in float32, ready to run, and what is odd about its weights. Raises `EdgecError` (`source/…`)."""
    table = read_json(folder / "config.json")
    make = _class_of(folder, table, trust=trust)
    words: dict[str, Any] = {
        "local_files_only": True,
        "output_loading_info": True,
        "dtype": torch.float32,
        "trust_remote_code": trust,
    }
    try:
        try:
            # The plain form of attention: matrix products and a softmax, which every backend knows.
            model, info = make.from_pretrained(folder, attn_implementation="eager", **words)
        except ValueError as error:
            if "attn_implementation" not in str(error) and "attention" not in str(error):
                raise
            model, info = make.from_pretrained(folder, **words)
    except EdgecError:
        raise
    except Exception as error:  # transformers, safetensors, torch and the files' own problems raise many types
        raise EdgecError(
            "source/hf-load",
            f"Transformers {transformers.__version__} cannot load the model: {_said(error)}",
            where=str(folder),
            hint=_remedy(error),
        ) from error
    model.eval()
    return model, _findings(model, info)


def _class_of(folder: Path, table: dict[str, Any], *, trust: bool) -> Any:
    names = table.get("architectures") or []
    known = [getattr(transformers, name, None) for name in names]
    found = next((cls for cls in known if cls is not None), None)
    if found is not None:
        return found
    if table.get("auto_map"):
        if not trust:
            raise EdgecError(
                "source/untrusted",
                f"{names[0] if names else 'the model'} is defined by Python files in the folder, which would be run",
                where=str(folder),
                hint="look at them, then give --trust",
            )
        auto = next((key for key in table["auto_map"] if key.startswith("AutoModel")), "AutoModel")
        return getattr(transformers, auto)
    if names:
        raise EdgecError(
            "source/hf-unknown",
            f"Transformers {transformers.__version__} has no {names[0]}",
            where=str(folder / "config.json"),
            hint="pip install --upgrade transformers, or export the model to ONNX and give that file",
        )
    if table.get("model_type") not in transformers.CONFIG_MAPPING:
        raise EdgecError(
            "source/hf-unknown",
            f"config.json names neither an architecture nor a model type that Transformers {transformers.__version__} "
            f"knows (model_type: {table.get('model_type')!r})",
            where=str(folder / "config.json"),
            hint='add "architectures": ["BertForSequenceClassification"], or whatever class made the weights',
        )
    return transformers.AutoModel


def _findings(model: Any, info: dict[str, Any]) -> tuple[Finding, ...]:
    found = []
    for key, what, severity, hint in _ODDITIES:
        names = sorted(str(name) for name in info.get(key) or ())
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            found.append(
                Finding(
                    code=f"source/hf-{key.partition('_')[0]}-weights",
                    message=f"{len(names)} weights of {type(model).__name__} {what}: {', '.join(names[:_SHOWN])}{more}",
                    severity=severity,
                    hint=hint,
                )
            )
    return tuple(found)


_ODDITIES = (
    (
        "missing_keys",
        "are not in the folder and have random values",
        Severity.WARNING,
        "check that the folder is whole, and that `architectures` in config.json is the class that was trained",
    ),
    (
        "unexpected_keys",
        "in the folder belong to no part of the model and are left out",
        Severity.INFO,
        "nothing to do where they belong to another head than the one that config.json names",
    ),
)


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _remedy(error: Exception) -> str:
    text = str(error)
    if "no file named" in text:
        return "the folder needs the weights: model.safetensors or pytorch_model.bin"
    if "pip install" in text or isinstance(error, ImportError):
        return "install the package that the message names"
    if "size mismatch" in text or "shape" in text:
        return "weights and config.json do not belong together: copy the folder again"
    return "check that the folder is whole: transformers' from_pretrained must load it offline"
