"""Rows of well-known architectures that are trained here, from a seed: labelled, and with weights that data has made.

Their like with weights drawn from a seed (`accuracy_nets`) keeps the size of real pictures; these keep what training
does to weights, to normalisations and to how sure the answers are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from edgec.frontends.base import load_source
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tools.accuracy_rows import CACHE, Feeds, Material, parted
from tools.accuracy_wheels import TRAINED, animals

#: Side of the drawings that these nets take: the last of five halvings leaves two by two positions.
_SIDE = 64
_PASSES, _BATCH, _RATE = 2, 64, 1e-3
#: Drawings that nothing was trained on: enough for labels, few enough for nets of this size.
HELD_OUT = 1000

#: Architectures of Transformers and what their configuration has beside the defaults, for every row.
_NETS: dict[str, tuple[str, dict[str, Any]]] = {
    "efficientnet_b0_animals": (
        "EfficientNetForImageClassification",
        {
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "hidden_dim": 1280,
            "dropout_rate": 0.0,
            "drop_connect_rate": 0.0,
            "image_size": _SIDE,
        },
    ),
    "mobilenet_v2_animals": ("MobileNetV2ForImageClassification", {"image_size": _SIDE}),
}


def drawings(rows: Array) -> Array:
    """Drawings [n, 1, 28, 28] in [0, 1] as [n, 3, 64, 64] in [-1, 1]: each position takes the nearest one's value."""
    nearest = np.arange(_SIDE) * rows.shape[-1] // _SIDE
    large = rows[:, :, nearest][:, :, :, nearest]
    return np.ascontiguousarray(np.repeat(large * 2 - 1, 3, axis=1), np.float32)


def held_out() -> Feeds:
    """Drawings that no row was trained on."""
    return [{"pixel_values": drawings(row[None])} for row in animals()[0][TRAINED : TRAINED + HELD_OUT]]


def trained_net(name: str) -> Material:
    """A net of `_NETS`, trained on most of the drawings and read as a user's folder of Transformers is."""
    import transformers

    cls_name, config = _NETS[name]
    cls = getattr(transformers, cls_name)
    x, y = animals()
    folder = CACHE / "models" / name
    if not (folder / "config.json").exists():
        module = _trained(cls, {**config, "num_labels": int(y.max()) + 1}, x[:TRAINED], y[:TRAINED])
        with tempfile.TemporaryDirectory() as scratch:
            module.save_pretrained(scratch)
            shutil.copytree(scratch, folder, dirs_exist_ok=True)
    model = canonicalize(load_source(folder, inputs={"pixel_values": (1, 3, _SIDE, _SIDE)}).model)
    (spec,) = model.inputs()
    feeds = [{spec.name: feed["pixel_values"]} for feed in held_out()]
    labels = y[TRAINED : TRAINED + HELD_OUT].tolist()
    learn, judge = parted(len(feeds), 100)
    return Material(model, [feeds[i] for i in learn], [feeds[i] for i in judge], [labels[i] for i in judge])


def _trained(cls: Any, config: dict[str, Any], x: Array, y: Array) -> Any:
    """Adam, its rate falling along a cosine."""
    import torch

    torch.manual_seed(0)
    module = cls(cls.config_class(**config)).train()
    for part in module.modules():  # as the papers begin; Transformers draws even the factors of BatchNorms around 0
        if isinstance(part, torch.nn.BatchNorm2d):
            part.reset_parameters()
            part.momentum = 0.1  # theirs is what other frameworks mean by it: running statistics of the last batch
        elif isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, mode="fan_out" if part.groups == 1 else "fan_in")
    optimizer = torch.optim.Adam(module.parameters(), _RATE)
    steps = _PASSES * -(-len(x) // _BATCH)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(_PASSES):
        for rows in torch.randperm(len(x)).split(_BATCH):
            optimizer.zero_grad()
            scores = module(torch.from_numpy(drawings(x[rows]))).logits
            torch.nn.functional.cross_entropy(scores, torch.from_numpy(y[rows])).backward()
            optimizer.step()
            falling.step()
    return module.eval()


TRAINED_ROWS: dict[str, Callable[[], Material]] = {name: lambda n=name: trained_net(n) for name in _NETS}  # type: ignore[misc]
