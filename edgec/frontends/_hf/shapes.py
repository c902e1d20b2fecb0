"""Which inputs a Transformers model takes, and their fixed shapes.

A size is the user's (`--input`), else the processor's, else the config's; one that is our own choice is announced.
Attention masks and token types are inputs in their own right; a position that the model can count is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from edgec.errors import EdgecError, Finding, Severity
from edgec.registry import did_you_mean

Shape = tuple[int, ...]

#: Tokens of a text input when nobody says how many.
TEXT_LENGTH = 128
#: Side of an image when neither the processor nor the config says it.
IMAGE_SIDE = 224
#: Seconds of a waveform when nobody says how many.
SECONDS = 1.0
_RATE = 16000

_INTEGERS = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "position_ids", "bbox", "decoder_input_ids", "input_values_mask"}
)
#: Inputs that are given beside the main one where the model takes them.
_COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "input_ids": ("bbox", "attention_mask", "token_type_ids"),
    "past_values": ("past_time_features", "past_observed_mask"),
}
_TEXT, _VISION, _AUDIO = ("text_config",), ("vision_config", "backbone_config", "encoder"), ("audio_config",)


@dataclass(slots=True)
class Shapes:
    """Sizes of one model's inputs.

    `given` and `dtypes` are the user's, `processor` and `tokenizer` the model's own files (empty where there is none).
    """

    config: Any
    given: Mapping[str, Shape] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def inputs_of(self, call: Callable[..., Any], *, main: str) -> dict[str, Tensor]:
        """Example tensors by name. Raises `EdgecError` (`source/hf-input`)."""
        parameters = inspect.signature(call).parameters
        needed = [n for n, p in parameters.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        beside = [n for n in _COMPANIONS.get(main, ()) if n in parameters and self._made_by_tokenizer(n)]
        names = list(dict.fromkeys([main, *needed, *beside]))
        for name in self.given:
            if name not in parameters:
                raise EdgecError(
                    "source/hf-input",
                    f"there is no input {name!r}",
                    hint=f"{did_you_mean(name, names)}; it takes: {', '.join(names)}",
                )
            if name not in names:
                names.append(name)
        return {name: self.example(name) for name in names}

    def example(self, name: str) -> Tensor:
        """A tensor of the input's shape and type; ones are true, and valid as tokens and as masks."""
        dtype = self.dtypes.get(name) or ("int64" if name in _INTEGERS else "float32")
        try:
            return torch.ones(self.shape(name), dtype=getattr(torch, dtype))
        except (AttributeError, TypeError) as error:
            raise EdgecError(
                "source/hf-input", f"there is no type {dtype!r} for input {name!r}", hint="write it as int64 or float32"
            ) from error

    def shape(self, name: str) -> Shape:
        """The shape of one input. Raises `EdgecError` (`source/hf-input`) when nothing tells it."""
        if name in self.given:
            return self.given[name]
        maker = _SHAPES.get(name)
        if maker is None:
            raise EdgecError(
                "source/hf-input",
                f"the configuration does not tell the shape of input {name!r}",
                hint=f"give it: --input {name}:1x…",
            )
        return maker(self)

    def value(self, key: str, inside: tuple[str, ...] = ()) -> Any:
        """A config's value, its own or that of one of the configs inside it; None where there is none."""
        configs = [*(getattr(self.config, part, None) for part in inside), self.config]
        for config in configs:
            found = getattr(config, key, None) if config is not None else None
            if found is not None:
                return found
        return None

    def _made_by_tokenizer(self, name: str) -> bool:
        listed = self.tokenizer.get("model_input_names")
        if listed:
            return name in listed
        return name != "token_type_ids" or (self.value("type_vocab_size", _TEXT) or 0) > 1

    def chosen(self, name: str, what: str) -> None:
        """Announce a size that is our own choice."""
        self.findings.append(
            Finding(
                code="source/hf-size",
                message=f"{name} is fixed at {what}",
                severity=Severity.INFO,
                where=name,
                hint=f"choose another with --input {name}:SHAPE",
            )
        )


def _text(shapes: Shapes) -> Shape:
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        if name in shapes.given:
            return shapes.given[name]
    limits = [TEXT_LENGTH, shapes.value("max_position_embeddings", _TEXT), shapes.tokenizer.get("model_max_length")]
    if shapes.value("model_type", _TEXT) in _OFFSET_POSITIONS and limits[1]:
        limits[1] -= shapes.value("pad_token_id", _TEXT) + 1
    length = min(int(limit) for limit in limits if limit and limit > 0)
    if not any(finding.where == "input_ids" for finding in shapes.findings):
        shapes.chosen("input_ids", f"{length} tokens")
    return (1, length)


#: Positions count from behind the padding token, so that a few of the table are never used.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "data2vec-text", "ibert"})


def _boxes(shapes: Shapes) -> Shape:
    return (*_text(shapes), 4)


def _pixels(shapes: Shapes) -> Shape:
    channels = shapes.value("num_channels", _VISION) or 3
    height, width = _image_size(shapes)
    frames = shapes.value("num_frames", _VISION)
    return (1, int(frames), channels, height, width) if frames else (1, channels, height, width)


def _image_size(shapes: Shapes) -> tuple[int, int]:
    size = shapes.processor.get("model_size") or _pair(shapes.value("image_size", _VISION))
    if size is not None:
        return size
    side = shapes.processor.get("shortest_edge") or IMAGE_SIDE
    shapes.chosen("pixel_values", f"{side} × {side} pixels")
    return side, side


def _pair(size: Any) -> tuple[int, int] | None:
    """(height, width) of a config's image size: a number, a pair, or a dict."""
    if isinstance(size, Mapping):
        size = (size["height"], size["width"])
    if isinstance(size, (tuple, list)):
        return (int(size[0]), int(size[-1]))
    return (int(size), int(size)) if size else None


def _waveform(shapes: Shapes) -> Shape:
    mels, frames = shapes.value("num_mel_bins", _AUDIO), shapes.value("max_length", _AUDIO)
    if mels and frames:  # a spectrogram under the waveform's name
        return (1, frames, mels)
    rate = shapes.processor.get("sampling_rate") or shapes.value("sampling_rate", _AUDIO) or _RATE
    samples = int(SECONDS * rate)
    shapes.chosen("input_values", f"{samples} samples, {SECONDS:g} s at {rate} Hz")
    channels = shapes.value("audio_channels", _AUDIO)
    return (1, channels, samples) if channels else (1, samples)


def _features(shapes: Shapes) -> Shape:
    mels, positions = shapes.value("num_mel_bins", _AUDIO), shapes.value("max_source_positions", _AUDIO)
    spec = shapes.value("spec_size", _AUDIO)
    if spec and mels:  # CLAP cuts its square spectrogram from this one
        return (1, 1, shapes.processor.get("frames") or spec * spec // mels, mels)
    if mels and positions:
        return (1, mels, 2 * positions)  # the first convolution halves the frames
    width = shapes.value("feature_projection_input_dim", _AUDIO) or shapes.value("input_feat_per_channel", _AUDIO)
    width = width or mels
    if not width:
        raise EdgecError(
            "source/hf-input",
            "the configuration does not tell the shape of input 'input_features'",
            hint="give it: --input input_features:1xFRAMESxBINS",
        )
    shapes.chosen("input_features", "100 frames")
    return (1, 100, width)


def _series(shapes: Shapes) -> Shape:
    length = shapes.value("context_length")
    lags = max(shapes.value("lags_sequence") or [0])
    channels = shapes.value("num_input_channels")
    if channels is None:
        width = shapes.value("input_size") or 1
        return (1, length + lags) if width == 1 else (1, length + lags, width)
    return (1, length, channels)


def _time_features(shapes: Shapes) -> Shape:
    return (*_series(shapes)[:2], shapes.value("num_time_features") or 0)


_SHAPES: Mapping[str, Callable[[Shapes], Shape]] = {
    "input_ids": _text,
    "attention_mask": _text,
    "token_type_ids": _text,
    "bbox": _boxes,
    "pixel_values": _pixels,
    "pixel_values_videos": _pixels,
    "input_values": _waveform,
    "input_features": _features,
    "past_values": _series,
    "past_observed_mask": _series,
    "past_time_features": _time_features,
}
