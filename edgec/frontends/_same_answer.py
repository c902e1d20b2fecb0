"""Does the exported graph answer as the framework did? One example through both: a wrong export is found at once.

Only real outputs are compared: integers (an argmax, a count) may tip over at a tie. The difference is taken relative
to the output's largest value; two correct implementations of a deep net differ by 1e-4 of it at most.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array

#: Bits of the mantissa decide what is rounding, by the narrowest type that takes part.
_ROUNDING = {"float16": 3e-2, "float32": 1e-3, "float64": 1e-3}
#: Beyond this no rounding explains it.
_WRONG = 0.1


def compare_answers(
    model: Model, inputs: Mapping[str, Array], outputs: Mapping[str, Array], *, where: str
) -> tuple[Finding, ...]:
    """Run the model on the example and compare. Raises `EdgecError` (`source/exporter-differs`) when it is wrong.

    A model that ONNX Runtime does not take as it is (bfloat16) is left to the later stages.
    """
    kinds = {value.dtype.name for value in (*inputs.values(), *outputs.values()) if value.dtype.kind in "fV"}
    if not kinds <= _ROUNDING.keys():
        return ()
    try:
        got = Executor(model, threads=1).run(inputs)
    except EdgecError:
        return ()
    differences = {name: _difference(got[name], value) for name, value in outputs.items() if name in got}
    if not differences:
        return ()
    worst = max(differences, key=lambda name: differences[name])
    difference = differences[worst]
    if difference <= max((_ROUNDING[kind] for kind in kinds), default=0.0):
        return ()
    message = f"output {worst!r} of the exported graph is {difference:.2g} of its range away from the framework's own"
    hint = "a fault of the exporter: export to ONNX by other means, and report it; randomness in forward() looks alike"
    if difference > _WRONG:
        raise EdgecError("source/exporter-differs", message, where=where, hint=hint)
    return (
        Finding(code="source/exporter-differs", message=message, severity=Severity.WARNING, where=where, hint=hint),
    )


def _difference(got: Array, want: Array) -> float:
    """The largest difference relative to the largest value; infinite where shapes or NaNs are not the same."""
    if want.dtype.kind != "f" or not want.size:
        return 0.0
    if got.shape != want.shape:
        return float("inf")
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(float(np.abs(b[finite]).max()), 1e-6))
