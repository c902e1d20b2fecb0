"""Rows of the accuracy table whose architecture is well known but whose trained weights are not to be had here.

Weights are drawn from a seed so that no branch is idle: as wide as keeps activations alive, normalisations and layer
scales away from 1 and 0, BatchNorms settled on real pictures, and the classifier's bias set so that the mean picture
has no favourite class. Real pictures or speech calibrate and judge; figures compare tools with each other, no more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgec.frontends.base import SourceOptions, load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tools.accuracy_rows import CACHE, Feeds, Material, zoo_file
from tools.accuracy_samples import crops


@dataclass(frozen=True, kw_only=True, slots=True)
class Net:
    """An architecture of Transformers: its class, what its configuration has beside the defaults, how many samples."""

    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    part: str | None = None
    side: int = 224
    samples: int = 24


_TINY = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
# idle channels of a random net vary next to nothing, and a small epsilon would blow that up
_B0 = {
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
    "dropout_rate": 0.0,
    "batch_norm_eps": 0.1,
}
_WHISPER = {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
_CLASSES = {"num_labels": 1000}

NETS = {
    "efficientnet_b0": Net(
        cls="EfficientNetForImageClassification",
        config={**_B0, **_CLASSES, "image_size": 224, "drop_connect_rate": 0.0},
    ),
    "deit_tiny": Net(cls="DeiTForImageClassification", config={**_TINY, **_CLASSES}),
    "swin_tiny": Net(cls="SwinForImageClassification", config={**_CLASSES, "drop_path_rate": 0.0}, samples=16),
    "convnext_tiny": Net(cls="ConvNextForImageClassification", config=_CLASSES, samples=16),
    "segformer_b0": Net(
        cls="SegformerForSemanticSegmentation", config={"num_labels": 150, "drop_path_rate": 0.0}, side=256
    ),
    "whisper_tiny": Net(
        cls="WhisperForConditionalGeneration",
        config={**_WHISPER, "decoder_layers": 1, "decoder_attention_heads": 6, "decoder_ffn_dim": 96},
        part="encoder",
        samples=8,
    ),
}


def pictures(side: int, count: int) -> Feeds:
    """Crops as these nets take them: [1, 3, side, side], ImageNet's mean and deviation taken out."""
    from PIL import Image

    mean, deviation = np.asarray([0.485, 0.456, 0.406], np.float32), np.asarray([0.229, 0.224, 0.225], np.float32)
    found = []
    for path in sorted(crops(count).iterdir()):
        picture = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        value = (np.asarray(picture, np.float32) / 255 - mean) / deviation
        found.append({"x": np.ascontiguousarray(value.transpose(2, 0, 1)[None], np.float32)})
    return found


def speech(count: int, seconds: float) -> Feeds:
    """Log-mel pictures of spoken digits, ten a clip, as Whisper takes them: [1, 80, 3000], silence at the end."""
    import soundfile
    from transformers import WhisperFeatureExtractor

    index = zoo_file("fsdd/fsdd_index.npz")
    sound, rate = soundfile.read(index.with_name("fsdd_8k_concat.flac"), dtype="float32")
    extract, length = WhisperFeatureExtractor(), int(seconds * rate)
    found = []
    for start in np.linspace(0, len(sound) - length, count).astype(int):
        at_8k = sound[start : start + length]
        at_16k = np.interp(np.arange(0, length, rate / 16000), np.arange(length), at_8k)
        mel = extract(at_16k.astype(np.float32), sampling_rate=16000, return_tensors="np")["input_features"]
        found.append({"x": np.ascontiguousarray(mel, np.float32)})
    return found


def transformers_net(name: str) -> Material:
    """A net of `NETS` with seeded weights, read as a user's folder of Transformers is."""
    import torch
    import transformers

    net = NETS[name]
    feeds = speech(2 * net.samples, 8.0) if net.part else pictures(net.side, 2 * net.samples)
    torch.manual_seed(0)
    cls = getattr(transformers, net.cls)
    module = cls(cls.config_class(**net.config))
    _draw(module)
    if not net.part:
        _settle(module, [torch.from_numpy(feed["x"]) for feed in feeds[0::2]])
    with tempfile.TemporaryDirectory() as folder:
        module.eval().save_pretrained(folder)
        options = SourceOptions(signature=net.part)
        shapes = {} if net.part else {"pixel_values": (1, 3, net.side, net.side)}
        model = canonicalize(load_source(Path(folder), inputs=shapes, options=options).model)
    return _material(model, feeds)


def yolo() -> Material:
    """The graph of YOLOv8n at 320 x 320: boxes in pixels and scores from 0 to 1 in one output."""
    import torch

    from tools.peers.cases import case_named, torch_module

    feeds = pictures(320, 48)
    module = torch_module(case_named("yolov8n_like"))
    _settle(module, [torch.from_numpy(feed["x"]) for feed in feeds[0::2]])
    path = CACHE / "models" / "yolo_on_pictures.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(), (torch.from_numpy(feeds[0]["x"]),), input_names=["x"], output_names=["y"],
            opset_version=18, dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=False)
    return _material(canonicalize(load_source(path).model), feeds, view="boxes_and_scores")


def _material(model: Model, feeds: Feeds, view: str = "") -> Material:
    (spec,) = model.inputs()
    named: list[dict[str, Array]] = [{spec.name: feed["x"]} for feed in feeds]
    return Material(model, named[0::2], named[1::2], view=view, trained=False)


def _draw(module: Any) -> None:
    """Weights from the seed: as wide as the number of inputs asks for, and nothing left at 0 or 1."""
    import torch
    from torch import nn

    from tools.peers.nets import settle
    from tools.zoo.models import _shake

    settle(module, None)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.is_floating_point() and "running" not in name:
                _shake(name, value)
        for name, part in module.named_modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # a plain mean over all that it sees
            if name.endswith("project_bn"):
                part.weight.mul_(0.3)  # a branch adds less than what it is added to, as training leaves it


def _settle(module: Any, seen: list[Any]) -> None:
    """BatchNorms see the pictures; then the last layer's bias takes the mean answer away."""
    import torch
    from torch import nn

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
        module.train()
        for start in range(0, len(seen), 8):
            module(torch.cat(seen[start : start + 8]))
        module.eval()
        last = getattr(module, "classifier", None)
        if isinstance(last, nn.Linear) and last.bias is not None:
            mean = torch.cat([module(x).logits for x in seen]).mean(0)
            last.bias.sub_(mean)


NETS_ROWS: dict[str, Callable[[], Material]] = {name: lambda n=name: transformers_net(n) for name in NETS}  # type: ignore[misc]
NETS_ROWS["yolo"] = yolo
