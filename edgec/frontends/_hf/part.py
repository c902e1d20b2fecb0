"""A part of a model: a module whose `forward` takes its inputs by name and gives a dict of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A module whose `forward` takes the inputs by name and gives a dict of tensors."""

    module: nn.Module
    inputs: Mapping[str, Tensor]


def encoder_input(model: Any) -> str:
    """What an encoder takes: what it says itself where that is true, or what the whole model does."""
    encoder = model.get_encoder()
    parameters = inspect.signature(encoder.forward).parameters
    for name in (getattr(encoder, "main_input_name", None), model.main_input_name):
        if name in parameters:
            return str(name)
    return next(iter(parameters))


def takes(call: Callable[..., Any], name: str) -> bool:
    """True when a function's signature names this parameter."""
    return name in inspect.signature(call).parameters
