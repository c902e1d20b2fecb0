"""TFLite backend: ONNX to a FlatBuffer, directly.

lower (ONNX → TIR, naive layout) → fuse → layout (whole-graph solver) → types (int8 where annotated) → write.
"""

from edgec.backends.tflite.adopt import adopt
from edgec.backends.tflite.backend import check, compile, supported_ops, survey
from edgec.backends.tflite.legalize import legalize

__all__ = ["adopt", "check", "compile", "legalize", "supported_ops", "survey"]
