"""One input or output of a model, and the way between the source model's terms and the artifact's.

The same conversions as `edgec.artifact.IoBinding`, from the manifest's facts alone; a test holds them together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgec.service.problems import ServiceError


class Port:
    """An entry of the manifest's `inputs` or `outputs`."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.source = Side(facts["source"])
        self.artifact = Side(facts["artifact"])
        self._perm = facts.get("perm")

    def side(self, raw: bool) -> Side:
        """How clients name and shape it: as the artifact does (`raw`), or as the source model did."""
        return self.artifact if raw else self.source

    def to_artifact(self, value: Any) -> Any:
        """A source-side array as the artifact wants it."""
        if self._perm is not None:
            value = value.transpose(self._perm)
        if self._quantized:
            scale, zero = self.artifact.steps(value.ndim)
            q = np.rint(value.astype(np.float32) / scale).astype(np.float64) + zero
            limits = np.iinfo(self.artifact.dtype)
            # A NaN is no number of steps; it becomes zero, as the zero point says.
            value = np.clip(np.where(np.isnan(q), zero, q), limits.min, limits.max)
        return np.ascontiguousarray(value.astype(self.artifact.dtype)).reshape(value.shape)

    def to_source(self, value: Any) -> Any:
        """An artifact-side array as the source model would have given it."""
        if self._quantized:
            scale, zero = self.artifact.steps(value.ndim)
            value = (value.astype(np.int64) - zero).astype(np.float32) * scale
        if self._perm is not None:
            value = value.transpose(np.argsort(self._perm))
        return value.astype(self.source.dtype)

    @property
    def _quantized(self) -> bool:
        return self.artifact.qparams is not None and self.source.dtype.kind == "f"


class Side:
    """Name, shape, element type and quantization on one side."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = str(facts["name"])
        self.shape = tuple(int(size) for size in facts["shape"])
        self.qparams = facts.get("qparams")
        try:
            self.dtype = np.dtype(facts["dtype"])
        except TypeError as error:
            message = f"{self.name!r} has element type {facts['dtype']!r}, which numpy does not know here"
            raise ServiceError(500, "bad-release", message) from error

    def steps(self, rank: int) -> tuple[Any, Any]:
        """Scale and zero point, in the shape that broadcasts against an array of the given rank."""
        q = self.qparams or {}
        scale, zero = np.asarray(q["scale"], np.float32), np.asarray(q["zero_point"], np.int64)
        if q.get("axis") is None:
            return scale.reshape(()), zero.reshape(())
        shape = [1] * rank
        shape[q["axis"]] = -1
        return scale.reshape(shape), zero.reshape(shape)

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"name": self.name, "shape": list(self.shape), "dtype": str(self.dtype)}

    def take(self, value: Any) -> Any:
        """A client's array in this side's element type, when that loses nothing but float precision."""
        kinds, wanted = ("U", "texts") if self.dtype.kind == "U" else ("biuf", "numbers")
        if value.dtype.kind not in kinds:
            raise ServiceError(400, "bad-input", f"input {self.name!r} must hold {wanted} in nested lists of one shape")
        fits = value.ndim == len(self.shape) and all(want in (-1, have) for want, have in zip(self.shape, value.shape))
        if not fits:
            message = f"input {self.name!r} has shape {list(value.shape)}, not {list(self.shape)}"
            raise ServiceError(400, "bad-input", message)
        if self.dtype.kind == "U":
            return value
        if not self._holds(value):
            message = f"input {self.name!r} is {self.dtype}, which cannot hold these {value.dtype} values"
            raise ServiceError(400, "bad-input", message)
        with np.errstate(over="ignore"):
            taken = value.astype(self.dtype)
        if self.dtype.kind == "f" and np.isinf(taken).sum() != np.isinf(value).sum():
            raise ServiceError(400, "bad-input", f"input {self.name!r} holds values beyond {self.dtype}")
        return taken

    def _holds(self, value: Any) -> bool:
        if self.dtype.kind == "b" or value.dtype.kind == "b":
            return bool(self.dtype.kind == value.dtype.kind)
        if self.dtype.kind == "f":
            return True
        if value.dtype.kind == "f":
            return False
        limits = np.iinfo(self.dtype)
        return value.size == 0 or (int(value.min()) >= limits.min and int(value.max()) <= limits.max)
