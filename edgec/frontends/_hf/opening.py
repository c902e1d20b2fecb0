"""A folder as a torch module with example inputs: the part that was asked for, loaded and ready to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgec.errors import Finding
from edgec.frontends._hf import parts
from edgec.frontends._hf.load import load_model
from edgec.frontends._hf.processor import Processing, read_processing
from edgec.frontends._hf.sentence import modules_of, sentence_encoder
from edgec.frontends._hf.shapes import Shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """`parts` are all that the model has, `part` the one opened, `main` the input that a processor prepares."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    config: Any
    parts: tuple[str, ...]
    part: str
    main: str
    processing: Processing
    findings: tuple[Finding, ...]


def open_folder(
    folder: Path,
    *,
    part: str | None = None,
    given: Mapping[str, tuple[int, ...]] | None = None,
    dtypes: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Opened:
    """Load a model and cut out a part. Raises `EdgecError` (`source/…`)."""
    modules = modules_of(folder)
    inner = next((path for kind, path in modules if kind == "Transformer"), folder)
    model, findings = load_model(inner, trust=trust)
    names = parts.part_names(model)
    asked = part or names[0]
    main = parts.main_input(model, asked)
    processing = read_processing(inner, main)
    shapes = Shapes(
        config=model.config,
        given=given or {},
        dtypes=dtypes or {},
        processor=processing.sizes,
        tokenizer=processing.tokenizer,
    )
    found = parts.make_part(model, asked, shapes)
    return Opened(
        module=sentence_encoder(found.module, modules) if modules else found.module,
        inputs=found.inputs,
        config=model.config,
        parts=names,
        part=asked,
        main=main,
        processing=processing,
        findings=(*findings, *shapes.findings, *processing.findings),
    )
