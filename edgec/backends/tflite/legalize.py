"""What the runtime lacks, or runs badly in this precision, as plain ONNX that calibration can see."""

from __future__ import annotations

from edgec.backends.base import Precision
from edgec.graph.model import Model
from edgec.targets.profile import Target


def legalize(model: Model, target: Target, precision: Precision) -> Model:
    """A model whose nodes map one to one to operators that may be quantized."""
    return model
