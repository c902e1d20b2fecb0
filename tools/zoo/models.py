"""The rows of `models.toml`, and a model of each written to disk with weights that use every part of the network."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent / "models.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One architecture; see `models.toml`."""

    name: str
    cls: str
    config: dict[str, Any]
    part: str | None = None
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)


def rows() -> list[Row]:
    """All rows in the table's order."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return [
        Row(
            name=name,
            cls=entry["class"],
            config=entry.get("config", {}),
            part=entry.get("part"),
            inputs={key: tuple(shape) for key, shape in entry.get("inputs", {}).items()},
        )
        for name, entry in table.items()
    ]


def write_model(row: Row, folder: Path) -> Any:
    """A model of the row's configuration, seeded and shaken, saved in the folder as Transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(0)
    cls = getattr(transformers, row.cls)
    model = cls(cls.config_class(**row.config)).eval()
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point():
                _shake(name, value)
    model.save_pretrained(folder)
    return model


def _shake(name: str, value: Any) -> None:
    """Random values where a fresh model has only ones, zeros or next to nothing: what training would leave there.

    Scales that begin at 1e-6 hide whole branches; statistics of 0 and 1 hide a normalisation.
    """
    import torch

    if value.numel() < 2 or value.min() != value.max():
        return
    if name.endswith("running_var"):
        value.copy_(0.5 + torch.rand_like(value))
    elif float(value.flatten()[0]) == 0.0:
        value.add_(0.1 * torch.randn_like(value))
    else:
        value.copy_((1.0 + 0.1 * torch.randn_like(value)) * max(float(value.flatten()[0].abs()), 0.5))
