"""Google's Edge TPU: what its rules allow, and its own compiler where that is installed."""

from edgec.packaging.edgetpu.step import package

__all__ = ["package"]
