"""Lift a float .tflite file back to ONNX, so that it can be quantized; as it is, it needs no frontend.

tf2onnx does it, in TensorFlow's Python. The pipeline compares what comes out with LiteRT on the file itself.
"""

from __future__ import annotations

from edgec.frontends._tensorflow import load_with_tensorflow
from edgec.frontends.base import Loaded, Request


def accepts(request: Request) -> bool:
    """True for files with TFLite's mark."""
    if request.path is None or not request.path.is_file():
        return False
    try:
        with request.path.open("rb") as file:
            return file.read(8)[4:] == b"TFL3"
    except OSError:
        return False


def load(request: Request) -> Loaded:
    """Read it. Raises `EdgecError` (`source/…`, `env/missing-environment`)."""
    return load_with_tensorflow(request, "tflite")
