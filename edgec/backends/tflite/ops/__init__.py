"""One file a family of operators; each exports LOWERINGS: ONNX operator type → function."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from edgec.backends.tflite.context import Lowering
from edgec.registry import merge_unique


@cache
def all_lowerings() -> dict[str, Lowering]:
    """Every ONNX operator type that TFLite can express, with its lowering."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)]
    tables = (m.LOWERINGS for m in modules if hasattr(m, "LOWERINGS"))
    return merge_unique(tables, kind="lowering of")
