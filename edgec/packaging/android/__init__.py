"""What an Android app needs beside the model: TFLite Metadata inside it, its inputs and outputs as JSON, a recipe."""

from edgec.packaging.android.step import package

__all__ = ["package"]
