"""What a model folder says about its input: image processor, feature extractor, tokenizer; read as JSON, nothing run.

Three things come of it: sizes for the inputs (`Processing.sizes`), facts for the manifest (`facts`), and a recipe that
prepares calibration data in the same way, where a reader of ours can (`recipe`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.errors import EdgecError, Finding, Severity
from edgec.quantization.data.recipe import ANY_INPUT, AudioSteps, InputSteps, Recipe, Resize, TextSteps

#: Files in the order in which they are believed.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_NESTED = ("image_processor", "feature_extractor", "video_processor")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model",
    "source.spm", "target.spm",
)  # fmt: skip
#: Pillow's numbers for its filters.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_IMAGE_FACTS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_rescale", "rescale_factor",
    "rescale_offset", "offset", "do_normalize", "image_mean", "image_std", "do_flip_channel_order", "do_convert_rgb",
    "do_convert_grayscale", "do_pad", "pad_size", "size_divisor", "include_top",
)  # fmt: skip
_AUDIO_FACTS = (
    "sampling_rate", "do_normalize", "feature_size", "num_mel_bins", "max_length", "n_fft", "hop_length",
    "chunk_length", "padding_value", "padding_side", "mean", "std", "fft_window_size", "frequency_min", "frequency_max",
    "window", "nb_max_samples", "max_length_s", "truncation", "padding",
)  # fmt: skip
_TEXT_FACTS = ("model_max_length", "padding_side", "truncation_side", "pad_token", "do_lower_case", "model_input_names")


@dataclass(frozen=True, kw_only=True, slots=True)
class Processing:
    """What the folder says. `sizes` has `model_size` (height, width), `shortest_edge`, `sampling_rate`, `frames`."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None
    findings: tuple[Finding, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; an empty one when there is no such file. Raises `EdgecError` (`source/malformed`)."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EdgecError(
            "source/malformed", f"{path.name} is not valid JSON: {error}", where=str(path), hint="copy the folder again"
        ) from error
    if not isinstance(value, dict):
        raise EdgecError("source/malformed", f"{path.name} holds no JSON object", where=str(path))
    return value


def read_processing(folder: Path, main: str) -> Processing:
    """How input `main` (`pixel_values`, `input_values`, `input_features`, `input_ids`, …) is prepared."""
    if main in ("pixel_values", "pixel_values_videos"):
        return _image(_processor(folder))
    if main in ("input_values", "input_features"):
        return _audio(_processor(folder), waveform=main == "input_values")
    if main == "input_ids":
        return _text(folder)
    return Processing()


def _processor(folder: Path) -> dict[str, Any]:
    for name in _PROCESSORS:
        table = read_json(folder / name)
        for nested in _NESTED:
            if isinstance(table.get(nested), dict):
                table = {**table, **table[nested]}
        if table:
            return table
    return {}


def _kept(table: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: table[key] for key in keys if table.get(key) is not None}


def _image(table: dict[str, Any]) -> Processing:
    if not table:
        return Processing()
    size, crop = _size(table.get("size")), _size(table.get("crop_size"))
    resizes, crops = table.get("do_resize", size != {}), bool(table.get("do_center_crop")) and crop != {}
    final = crop if crops else size if resizes else {}
    sizes: dict[str, Any] = {}
    if "height" in final:
        sizes["model_size"] = (final["height"], final["width"])
    elif "shortest_edge" in final and ("crop_pct" in table or final.get("longest_edge") is None):
        sizes["model_size"] = (final["shortest_edge"], final["shortest_edge"])
    elif "shortest_edge" in final:
        sizes["shortest_edge"] = final["shortest_edge"]
    steps = InputSteps(
        resize=_resize(table, size, crop if crops else None),
        color="bgr" if table.get("do_flip_channel_order") else "gray" if table.get("do_convert_grayscale") else "rgb",
        **_values(table),
    )
    facts = {"kind": "image", **_kept(table, _IMAGE_FACTS), "recipe": _as_facts(steps)}
    return Processing(facts=facts, sizes=sizes, recipe=Recipe(reader="image", inputs={ANY_INPUT: steps}))


def _size(given: Any) -> dict[str, int]:
    """A processor's size in the one form of today: older files have a number, or a pair."""
    if isinstance(given, int):
        return {"shortest_edge": given}
    if isinstance(given, (list, tuple)) and len(given) == 2:
        return {"height": int(given[0]), "width": int(given[1])}
    if not isinstance(given, dict):
        return {}
    if "max_height" in given:
        return {"shortest_edge": int(given["max_height"]), "longest_edge": int(given["max_width"])}
    return {key: int(value) for key, value in given.items() if value is not None}


def _resize(table: Mapping[str, Any], size: Mapping[str, int], crop: Mapping[str, int] | None) -> Resize:
    resample = table.get("resample", 2)
    mode = {"filter": _FILTERS.get(resample, "bilinear") if isinstance(resample, int) else "bilinear"}
    before = size.get("shortest_edge") or min(size.values(), default=0)
    if crop is not None:
        after = crop.get("height") or crop.get("shortest_edge") or before
        return Resize(mode="center-crop", crop=min(1.0, after / before) if before else 1.0, **mode)
    percent = table.get("crop_pct")
    if percent and before < 384:  # larger ones are only resized, by the processors that have this key
        return Resize(mode="center-crop", crop=float(percent), **mode)
    return Resize(mode="stretch", **mode)


def _values(table: Mapping[str, Any]) -> dict[str, Any]:
    """(x·scale − mean)/std, with what some processors do besides put into these three."""
    scale = float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0
    if not table.get("do_normalize", "image_mean" in table):
        mean, std = [0.0], [1.0]
    else:
        mean, std = _numbers(table.get("image_mean", 0.0)), _numbers(table.get("image_std", 1.0))
        if table.get("include_top"):  # EfficientNet divides twice
            mean, std = mean, [value * value for value in std]
    if table.get("rescale_offset") or table.get("offset"):
        mean = [value + 1.0 for value in mean]
    return {"scale": scale, "mean": tuple(mean), "std": tuple(std)}


def _numbers(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)]


def _audio(table: dict[str, Any], *, waveform: bool) -> Processing:
    if not table:
        return Processing()
    facts: dict[str, Any] = {"kind": "audio", "extractor": table.get("feature_extractor_type", ""),
                             **_kept(table, _AUDIO_FACTS)}  # fmt: skip
    sizes = _kept(table, ("sampling_rate",))
    if table.get("nb_max_samples") and table.get("hop_length"):
        sizes["frames"] = table["nb_max_samples"] // table["hop_length"] + 1
    if waveform and not table.get("num_mel_bins"):
        steps = AudioSteps(sample_rate=table.get("sampling_rate"), normalize=bool(table.get("do_normalize")))
        facts["recipe"] = steps.model_dump(mode="json", exclude_none=True)
        return Processing(facts=facts, sizes=sizes, recipe=Recipe(reader="audio", audio=steps))
    note = Finding(
        code="source/hf-features",
        message="the model takes spectrograms, which its own feature extractor makes",
        severity=Severity.INFO,
        hint="calibrate with the extractor's output as .npy or .npz; its settings are in the bundle's manifest",
    )
    return Processing(facts=facts, sizes=sizes, findings=(note,))


def _text(folder: Path) -> Processing:
    files = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        return Processing()
    table = read_json(folder / "tokenizer_config.json")
    facts: dict[str, Any] = {"kind": "text", **_kept(table, _TEXT_FACTS)}
    facts["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for key in ("pad_token",):
        if isinstance(facts.get(key), dict):
            facts[key] = facts[key].get("content", "")
    length = table.get("model_max_length")
    if not isinstance(length, int) or length > 1 << 30:  # "no limit" is written as a very large number
        facts.pop("model_max_length", None)
        table = {**table, "model_max_length": None}
    whole = folder / "tokenizer.json"
    steps = TextSteps(
        tokenizer=str(whole),
        digest=facts["files"][whole.name],
        pad_token=facts.get("pad_token"),
        padding_side=table.get("padding_side") or "right",
    ) if whole.is_file() else None  # fmt: skip
    facts["padding"] = "max_length"
    return Processing(facts=facts, tokenizer=table, recipe=None if steps is None else Recipe(reader="text", text=steps))


def _as_facts(steps: InputSteps) -> dict[str, Any]:
    return steps.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
