"""Read calibration samples from text: a line a sample, tokenized as the model's own tokenizer.json says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.errors import EdgecError, Finding
from edgec.quantization.data.readers.base import constants_of, list_files, sample_shape
from edgec.quantization.data.recipe import Recipe, TextSteps
from edgec.tensors import Array, TensorSpec

SUFFIXES = frozenset({".txt"})

#: Model input → what the tokenizer calls it.
_FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class TextReader:
    """One sample a line that is not empty; a folder's files one after the other."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], recipe: Recipe) -> None:
        self.findings: tuple[Finding, ...] = ()
        self._constants = constants_of(inputs, recipe.inputs)
        self._inputs = [spec for spec in inputs if spec.name not in self._constants]
        self._tokenizer = _tokenizer(recipe.text, _length(self._inputs, path))
        self._lines = [line for file in _files(path) for line in _lines(file)]

    def __len__(self) -> int:
        return len(self._lines)

    def close(self) -> None:
        """Nothing stays open."""

    def content(self, index: int) -> bytes:
        """The line's bytes."""
        return self._lines[index].encode()

    def read(self, index: int) -> dict[str, Array]:
        """The tokens of line `index`, as long as the model's input."""
        encoding = self._tokenizer.encode(self._lines[index])
        values = {
            spec.name: np.asarray(getattr(encoding, _FIELDS[spec.name]), spec.dtype.numpy).reshape(sample_shape(spec))
            for spec in self._inputs
        }
        return {**values, **self._constants}


def _length(inputs: Sequence[TensorSpec], path: Path) -> int:
    lengths = {sample_shape(spec) for spec in inputs if spec.name in _FIELDS}
    others = [spec.name for spec in inputs if spec.name not in _FIELDS]
    if others or len(lengths) != 1 or len(shape := lengths.pop()) != 1:
        listing = ", ".join(f"{spec.name} {spec.shape}" for spec in inputs)
        raise EdgecError(
            "calibration/inputs",
            f"text feeds {', '.join(_FIELDS)} of one length, the model takes {listing}",
            where=str(path),
            hint="give .npz files or a .jsonl with a value for each input, or constants for the others in a recipe",
        )
    return shape[0]


def _tokenizer(steps: TextSteps, length: int) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise EdgecError(
            "env/missing-extra", "reading text needs tokenizers", hint="pip install 'edgec[huggingface]'"
        ) from None
    if steps.tokenizer is None:
        raise EdgecError(
            "calibration/recipe",
            "text needs a tokenizer",
            hint='set tokenizer = "tokenizer.json" under [text] in a recipe, or give the tokens as .npz',
        )
    try:
        tokenizer = tokenizers.Tokenizer.from_file(steps.tokenizer)
    except Exception as error:  # the library raises bare Exception
        raise EdgecError(
            "calibration/unreadable", f"cannot read the tokenizer: {error}", where=steps.tokenizer
        ) from error
    pad = steps.pad_token or (tokenizer.padding or {}).get("pad_token") or "[PAD]"
    number = tokenizer.token_to_id(pad)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(
        direction=steps.padding_side, length=length, pad_token=pad, pad_id=0 if number is None else number
    )
    return tokenizer


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else list_files(path, SUFFIXES)


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EdgecError(
            "calibration/unreadable", f"cannot read the text: {error}", where=str(file), hint="save it as UTF-8"
        ) from error
