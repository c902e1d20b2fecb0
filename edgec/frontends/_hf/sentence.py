"""A sentence encoder: a Transformer, then pooling over the tokens, then layers behind it, as `modules.json` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgec.errors import EdgecError
from edgec.frontends._hf.processor import read_json

MODULES = "modules.json"


class SentenceEncoder(nn.Module):
    """`sentence_embedding` from tokens; tokens that the mask leaves out count for nothing."""

    def __init__(self, transformer: nn.Module, pooling: list[str], layers: list[nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        self.layers = nn.ModuleList(layers)
        self._pooling = pooling

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The embedding of one text."""
        states = self.transformer(**inputs)["last_hidden_state"]
        mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
        pooled = torch.cat([_POOLINGS[mode](states, mask) for mode in self._pooling], dim=-1)
        for layer in self.layers:
            pooled = layer(pooled)
        return {"sentence_embedding": pooled}


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)


def _mean_sqrt(states: Tensor, mask: Tensor) -> Tensor:
    return (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9).sqrt()


def _max(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask == 0, -1e9).max(1).values


def _last(states: Tensor, mask: Tensor) -> Tensor:
    place = torch.arange(mask.shape[1], dtype=mask.dtype).view(1, -1, 1)
    last = (place * mask).amax(1, keepdim=True)
    return (states * (place == last).to(states.dtype)).sum(1)


_POOLINGS = {
    "pooling_mode_cls_token": lambda states, _mask: states[:, 0],
    "pooling_mode_max_tokens": _max,
    "pooling_mode_mean_tokens": _mean,
    "pooling_mode_mean_sqrt_len_tokens": _mean_sqrt,
    "pooling_mode_lasttoken": _last,
}


class _Normalize(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, p=2.0, dim=1)


class _Dense(nn.Module):
    def __init__(self, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.linear(x))
        return result


def modules_of(folder: Path) -> list[tuple[str, Path]]:
    """(kind, folder) of each module; empty for a folder that is no sentence encoder."""
    file = folder / MODULES
    if not file.is_file():
        return []
    import json

    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return [(entry["type"].rpartition(".")[2], folder / entry["path"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgecError("source/malformed", f"{MODULES} is not a list of modules: {error}", where=str(file)) from error


def sentence_encoder(transformer: nn.Module, modules: list[tuple[str, Path]]) -> nn.Module:
    """The modules behind the transformer put together. Raises `EdgecError` (`source/hf-module`)."""
    pooling: list[str] = []
    layers: list[nn.Module] = []
    for kind, folder in modules:
        if kind == "Pooling":
            pooling = _pooling(folder)
        elif kind == "Normalize":
            layers.append(_Normalize())
        elif kind == "Dense":
            layers.append(_dense(folder))
        elif kind != "Transformer":
            raise EdgecError(
                "source/hf-module",
                f"{MODULES} has a {kind}, which cannot be built",
                where=str(folder),
                hint="modules that can: Transformer, Pooling, Dense, Normalize",
            )
    return SentenceEncoder(transformer, pooling or ["pooling_mode_mean_tokens"], layers)


def _pooling(folder: Path) -> list[str]:
    table = read_json(folder / "config.json")
    modes = [key for key in _POOLINGS if table.get(key)]
    unknown = [key for key, on in table.items() if key.startswith("pooling_mode_") and on is True and key not in modes]
    if unknown:
        raise EdgecError(
            "source/hf-module",
            f"pooling {unknown[0].removeprefix('pooling_mode_')!r} cannot be built",
            where=str(folder / "config.json"),
            hint="those that can: " + ", ".join(key.removeprefix("pooling_mode_") for key in _POOLINGS),
        )
    return modes


def _dense(folder: Path) -> nn.Module:
    table = read_json(folder / "config.json")
    name = str(table.get("activation_function", "torch.nn.modules.linear.Identity")).rpartition(".")[2]
    activation = getattr(nn, name, None)
    if activation is None:
        raise EdgecError("source/hf-module", f"there is no activation {name!r}", where=str(folder / "config.json"))
    linear = nn.Linear(table["in_features"], table["out_features"], bias=bool(table.get("bias", True)))
    linear.load_state_dict({k.removeprefix("linear."): v for k, v in _weights(folder).items()})
    return _Dense(linear, activation())


def _weights(folder: Path) -> dict[str, Any]:
    if (folder / "model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")
    file = folder / "pytorch_model.bin"
    if not file.is_file():
        raise EdgecError("source/hf-load", "the layer's weights are missing", where=str(folder))
    weights: dict[str, Any] = torch.load(file, weights_only=True, map_location="cpu")
    return weights
