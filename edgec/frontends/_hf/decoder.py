"""One step of a decoder: a token and the past in, its logits and the past with it out.

    input_ids [1, 1], past_key_values.N.key and .value [1, heads, P, size]
    →  logits [1, 1, tokens], present.N.key and .value [1, heads, P+1, size]

P is fixed. The mask, [1, P+1], says which places are filled: while fewer than P are, the past is padded on the left.
`position_ids` says where the token stands, as padding does not count. A decoder that has an encoder takes its output
as `encoder_hidden_states` and works out the keys of the cross attention itself at each step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from edgec.errors import EdgecError
from edgec.frontends._hf.part import Part, encoder_input, takes
from edgec.frontends._hf.shapes import Shapes

#: Places of the past when nobody says how many: with the new token a power of two.
PAST_LENGTH = 127
_PAST = "past_key_values.0.key"


class DecoderStep(nn.Module):
    """See the module. `positions` are the modules inside that count positions when nobody tells them."""

    def __init__(self, model: Any, positions: list[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self._with_encoder = bool(model.config.is_encoder_decoder)
        self._takes_positions = next((n for n in _POSITIONS if takes(model.forward, n)), None)
        self._positions = positions

    def forward(
        self,
        *,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_key_values: tuple[Mapping[str, Tensor], ...],
        position_ids: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Logits and the longer past."""
        cache = DynamicCache(ddp_cache_data=[(layer["key"], layer["value"]) for layer in past_key_values])
        words: dict[str, Any] = {"use_cache": True, "return_dict": True}
        if self._with_encoder:
            words["decoder_input_ids"] = input_ids
            words["decoder_attention_mask"] = attention_mask
            words["encoder_outputs"] = BaseModelOutput(last_hidden_state=encoder_hidden_states)
            words["past_key_values"] = EncoderDecoderCache(cache, DynamicCache())
            if encoder_attention_mask is not None:
                words["attention_mask"] = encoder_attention_mask
        else:
            words.update(input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache)
        if position_ids is not None and self._takes_positions:
            words[self._takes_positions] = position_ids
        handles = [m.register_forward_pre_hook(_tell(position_ids), with_kwargs=True) for m in self._positions]
        try:
            output = self.model(**words)
        finally:
            for handle in handles:
                handle.remove()
        layers: list[Any] = cache.layers
        present = tuple({"key": layer.keys, "value": layer.values} for layer in layers)
        answer = output.logits if "logits" in output else output.last_hidden_state
        return {"logits" if "logits" in output else "last_hidden_state": answer, "present": present}


_POSITIONS = ("position_ids", "decoder_position_ids")


def _tell(position_ids: Tensor | None) -> Callable[..., Any]:
    """A hook that puts the position where a table of positions would count it from the length of the past."""

    def hook(
        _module: nn.Module, args: tuple[Any, ...], words: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert position_ids is not None
        return args, {**words, "position_ids": position_ids[0]}

    return hook


def decoder_step(model: Any, shapes: Shapes) -> Part:
    """The step as a part. Raises `EdgecError` (`source/hf-cache`, `source/hf-input`)."""
    past = _past_length(shapes)
    with_encoder = bool(model.config.is_encoder_decoder)
    inputs: dict[str, Tensor] = {"input_ids": torch.ones(1, 1, dtype=torch.int64)}
    inputs["attention_mask"] = torch.ones(1, past + 1, dtype=torch.int64)
    tables = [] if any(takes(model.forward, n) for n in _POSITIONS) else _position_tables(model)
    if tables or any(takes(model.forward, n) for n in _POSITIONS):
        inputs["position_ids"] = torch.full((1, 1), past, dtype=torch.int64)
    if with_encoder:
        inputs.update(_of_encoder(model, shapes))
    for index, (key, value) in enumerate(_one_step(model, inputs)):
        inputs[f"past_key_values.{index}.key"] = key.new_zeros(*key.shape[:2], past, key.shape[3])
        inputs[f"past_key_values.{index}.value"] = value.new_zeros(*value.shape[:2], past, value.shape[3])
    shapes.chosen(_PAST, f"{past} places; padded on the left while fewer are filled")
    return Part(module=DecoderStep(model, tables), inputs=inputs)


def _past_length(shapes: Shapes) -> int:
    unknown = [name for name in shapes.given if name not in (_PAST, "encoder_hidden_states", "input_features")]
    if unknown:
        raise EdgecError(
            "source/hf-input",
            f"the decoder's input {unknown[0]!r} follows from the length of its past",
            hint=f"give that: --input {_PAST}:1xHEADSxLENGTHxSIZE",
        )
    if _PAST in shapes.given:
        shape = shapes.given[_PAST]
        if len(shape) != 4 or shape[2] < 1:
            raise EdgecError("source/hf-input", f"{_PAST} has four axes: 1, heads, length, size", where=_PAST)
        return shape[2]
    keys = ("max_target_positions", "max_position_embeddings", "n_positions")
    limits = [limit for limit in (shapes.value(key, ("text_config",)) for key in keys) if limit]
    return min(PAST_LENGTH, *(int(limit) - 1 for limit in limits)) if limits else PAST_LENGTH


def _position_tables(model: Any) -> list[nn.Module]:
    decoder = model.get_decoder()
    return [
        module
        for module in decoder.modules()
        if isinstance(module, nn.Embedding) and "position_ids" in inspect.signature(module.forward).parameters
    ]


def _of_encoder(model: Any, shapes: Shapes) -> dict[str, Tensor]:
    """What the decoder takes of its encoder, and the mask over it where that is text."""
    main = encoder_input(model)
    encoder = model.get_encoder()
    examples = Shapes(
        config=shapes.config,
        given={n: s for n, s in shapes.given.items() if takes(encoder.forward, n)},
        processor=shapes.processor,
        tokenizer=shapes.tokenizer,
    ).inputs_of(encoder.forward, main=main)
    with torch.no_grad():
        states = encoder(**examples).last_hidden_state
    found = {"encoder_hidden_states": torch.zeros_like(states)}
    if "attention_mask" in examples:
        found["encoder_attention_mask"] = examples["attention_mask"]
    return found


def _one_step(model: Any, inputs: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values that each layer keeps of one token."""
    words: dict[str, Any] = {"use_cache": True, "return_dict": True}
    if "encoder_hidden_states" in inputs:
        words["decoder_input_ids"] = inputs["input_ids"]
        words["encoder_outputs"] = BaseModelOutput(last_hidden_state=inputs["encoder_hidden_states"])
    else:
        words["input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        cache = model(**words).past_key_values
    cache = getattr(cache, "self_attention_cache", cache)
    layers = getattr(cache, "layers", None)
    kept = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers or ()]
    if not kept or any(key is None or value is None or key.dim() != 4 for key, value in kept):
        raise EdgecError(
            "source/hf-cache",
            f"{type(model).__name__} keeps more than keys and values of its past, which no step with inputs and "
            "outputs holds",
            hint="build the model without its head, or export the step to ONNX yourself and give that file",
        )
    return kept  # type: ignore[return-value]  # checked above
