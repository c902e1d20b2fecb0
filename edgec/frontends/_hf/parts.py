"""The parts of a Transformers model that make sense alone on a device, as modules with named tensors in and out.

A model that is one network has one part, `model`. Others are several that run at different times:

1. two towers (CLIP and its kind): `image` or `audio`, and `text`, each giving its embedding in the common space;
2. encoder and decoder (T5, Whisper): `encoder`, and `decoder`, one step of it (see `decoder`);
3. a language model: `decoder`, one step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from edgec.errors import EdgecError
from edgec.frontends._hf.decoder import decoder_step
from edgec.frontends._hf.part import Part, encoder_input, takes
from edgec.frontends._hf.shapes import Shapes
from edgec.registry import did_you_mean

#: Outputs that are an answer. Those of a later row are left out where there is one of an earlier row.
_ANSWERS = (
    (
        "logits", "pred_boxes", "pred_masks", "class_queries_logits", "masks_queries_logits", "start_logits",
        "end_logits", "predicted_depth", "reconstruction", "heatmaps", "keypoints", "iou_scores", "prediction_logits",
        "seq_relationship_logits", "embeddings", "sentence_embedding", "prediction_outputs", "regression_outputs",
        "forecast_outputs", "alphas", "audio_values", "audio_codes", "spectrogram", "image_embeds", "text_embeds",
        "audio_embeds", "params",
    ),
    ("last_hidden_state", "pooler_output", "feature_maps"),
)  # fmt: skip

#: What is asked of a model where its `forward` knows the word: the answer, and nothing it keeps for training.
_QUIET = {"return_dict": True, "output_attentions": False, "output_hidden_states": False, "use_cache": False}
_TOWERS = {"image": "pixel_values", "audio": "input_features", "text": "input_ids"}

MODEL = "model"
ENCODER = "encoder"
DECODER = "decoder"


class Answering(nn.Module):
    """A model, or a part of one, asked for its answer alone. `model` owns the weights that `call` uses."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self._ask = call
        self._quiet = {key: value for key, value in _QUIET.items() if takes(call, key)}

    def forward(self, **inputs: Any) -> Any:
        """The answer by name."""
        return answer_of(self._ask(**inputs, **self._quiet))


def answer_of(output: Any) -> Any:
    """The tensors that are the answer, of whatever a model returns."""
    if not hasattr(output, "items"):
        return output
    given = {key: value for key, value in output.items() if value is not None and key != "loss"}
    for row in _ANSWERS:
        kept = {key: value for key, value in given.items() if key in row}
        if kept:
            return kept
    return {key: value for key, value in given.items() if isinstance(value, Tensor)}


def part_names(model: Any) -> tuple[str, ...]:
    """The parts that a model has; the first is built when none is asked for."""
    towers = tuple(name for name in _TOWERS if hasattr(model, f"get_{name}_features"))
    if "text" in towers and len(towers) > 1:
        return towers
    parameters = inspect.signature(model.forward).parameters
    if getattr(model.config, "is_encoder_decoder", False) and "decoder_input_ids" in parameters:
        return (ENCODER, DECODER)
    if type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")) and "past_key_values" in parameters:
        return (DECODER,)
    return (MODEL,)


def make_part(model: Any, name: str, shapes: Shapes) -> Part:
    """One part of a model with example inputs. Raises `EdgecError` (`source/hf-part`, `source/hf-input`)."""
    names = part_names(model)
    if name not in names:
        raise EdgecError(
            "source/hf-part",
            f"{type(model).__name__} has no part {name!r}",
            hint=f"{did_you_mean(name, names)}; its parts are: {', '.join(names)}",
        )
    if name == DECODER:
        return decoder_step(model, shapes)
    if name == ENCODER:
        encoder = model.get_encoder()
        return _part(encoder, encoder.forward, shapes, main=encoder_input(model))
    if name in _TOWERS:
        return _tower(model, name, shapes)
    return _part(model, model.forward, shapes, main=model.main_input_name)


def main_input(model: Any, part: str) -> str:
    """The input of a part that its processor or tokenizer prepares."""
    if part in _TOWERS:
        return _TOWERS[part]
    if part == ENCODER:
        return encoder_input(model)
    return "" if part == DECODER else str(model.main_input_name)


def _part(model: Any, call: Callable[..., Any], shapes: Shapes, *, main: str) -> Part:
    return Part(module=Answering(model, call), inputs=shapes.inputs_of(call, main=main))


def _tower(model: Any, name: str, shapes: Shapes) -> Part:
    call = getattr(model, f"get_{name}_features")

    def embed(**inputs: Tensor) -> dict[str, Tensor]:
        output = call(**inputs)
        return {f"{name}_embeds": output if isinstance(output, Tensor) else output.pooler_output}

    inputs = shapes.inputs_of(call, main=_TOWERS[name])
    return Part(module=Answering(model, embed), inputs=inputs)
