"""Which set of kernels ran a bundle's goldens: what the runtime says of itself, and what the bits of the outputs say.

1. Bits as in the bundle: nothing more to ask.
2. A quantized TFLite model with other bits is run here with each set of kernels. The device's bits equal one of them,
   or are nearest to one; what the runtime says decides between XNNPACK and the others where it says anything. A model
   of which XNNPACK takes nothing here either runs with the kernels that it should.
3. The same kernels compute the same int8 bits on every processor, but only inside the delegate: operators outside run
   in code that is written for each processor. There, and in another version of the runtime, other bits are explained.
4. Float operators that come last, a Softmax, round by the processor's own arithmetic: floats count as the same within
   `FLOAT_ROUNDING` of the largest, far below what a quantization step makes of them.
5. Another set of kernels rounds otherwise, and deep models amplify that: steps mean nothing, the task does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import Worker
from edgec.errors import EdgecError, Finding, Severity
from edgec.metrics import relative_error
from edgec.tensors import Array

#: The agent's names of the sets, and what they are called in results.
SETS = {"default": "XNNPACK", "builtin": "builtin", "reference": "reference"}
#: Precisions in which equal kernels give equal bits.
EXACT = ("int8", "int16x8")
FLOAT_ROUNDING = 1e-5
#: Rule 5: how well an output of other kernels must agree with the reference: the same winner, or little noise.
OTHER_TOP1, OTHER_DB = 0.9, 10.0

Outputs = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of the kernels.

    `kernel_set` is XNNPACK, builtin, reference, the runtime's own word, or empty; `nearest` is True where the bits
    equal none of the sets here. `bit_exact` compares with the bundle's goldens, `host_exact` with the same set here.
    `expected` is False for another set than the goldens were made with, `rounded` True where the goldens differ in
    nothing but the rounding of floats (rule 4).
    """

    kernel_set: str
    bit_exact: bool
    host_exact: bool
    expected: bool = True
    nearest: bool = False
    rounded: bool = False


def identify(bundle: Bundle, outputs: Outputs, kernels: Mapping[str, Any]) -> Evidence:
    """The set of kernels that gave these raw outputs, one dictionary a golden. Raises nothing a runtime here does."""
    wanted = [golden.raw_outputs for golden in bundle.goldens()]
    exact = same_bits(wanted, outputs)
    told = str(kernels.get("kernels") or kernels.get("asked_for") or kernels.get("delegate") or "")
    manifest = bundle.manifest
    word = {"none": "builtin", "unknown": ""}.get(told, told)
    if exact and not word and manifest.runner == "tflite" and manifest.precision in EXACT:
        word = SETS["default"]
    if exact or manifest.runner != "tflite":  # rule 1
        return Evidence(kernel_set=word, bit_exact=exact, host_exact=exact)
    if manifest.precision in EXACT and same_bits(wanted, outputs, rounding=FLOAT_ROUNDING):  # rule 4
        return Evidence(kernel_set=word or SETS["default"], bit_exact=False, host_exact=False, rounded=True)
    if told == "none" and _delegate_here(bundle) == "none":  # rule 2
        here = outputs_here(bundle, "default")
        return Evidence(kernel_set=word, bit_exact=False, host_exact=here is not None and same_bits(here, outputs))
    if manifest.precision not in EXACT:
        expected = told not in ("none", "builtin", "reference")
        return Evidence(kernel_set=word, bit_exact=False, host_exact=False, expected=expected)
    return _by_bits(bundle, outputs, told)


def _delegate_here(bundle: Bundle) -> str:
    """What takes the model on this machine; empty where its runtime does not tell."""
    try:
        with Worker(bundle.model_path, bundle.manifest.runner) as worker:
            return str(worker.kernels().get("delegate", ""))
    except EdgecError:
        return ""


def _by_bits(bundle: Bundle, outputs: Outputs, told: str) -> Evidence:
    """Rule 2."""
    allowed = {"XNNPACK": ("default",), "none": ("builtin", "reference")}.get(told, tuple(SETS))
    if told in SETS:
        allowed = (told,)
    distances: dict[str, float] = {}
    for name in allowed:
        here = outputs_here(bundle, name)
        if here is None:
            continue
        if same_bits(here, outputs, rounding=FLOAT_ROUNDING):
            return Evidence(kernel_set=SETS[name], bit_exact=False, host_exact=True, expected=name == "default")
        distances[name] = _distance(here, outputs)
    if not distances:
        known = {"none": "builtin", "unknown": ""}.get(told, told)
        return Evidence(kernel_set=known, bit_exact=False, host_exact=False, expected=told not in ("none", "builtin"))
    nearest = min(distances, key=lambda name: distances[name])
    return Evidence(
        kernel_set=SETS[nearest], bit_exact=False, host_exact=False, expected=nearest == "default", nearest=True
    )


def outputs_here(bundle: Bundle, kernels: str) -> list[dict[str, Array]] | None:
    """The goldens' raw outputs with a set of kernels on this machine; None where its runtime cannot."""
    try:
        with Worker(bundle.model_path, bundle.manifest.runner, kernels=kernels) as worker:
            return [worker.run(golden.raw_inputs) for golden in bundle.goldens()]
    except EdgecError:
        return None


def same_bits(wanted: Outputs, got: Outputs, *, rounding: float = 0.0) -> bool:
    """Equal in type, shape and every bit; with `rounding` floats may differ by so much of the largest."""
    return all(
        name in there and same_value(value, there[name], rounding=rounding)
        for here, there in zip(wanted, got, strict=True)
        for name, value in here.items()
    )


def same_value(one: Array, other: Array, *, rounding: float = 0.0) -> bool:
    """`same_bits` of one output."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.tobytes() == other.tobytes():
        return True
    return rounding > 0 and one.dtype.kind == "f" and relative_error(one, other) <= rounding


def _distance(wanted: Outputs, got: Outputs) -> float:
    """Mean absolute difference; infinite for another shape."""
    parts = [
        np.abs(value.astype(np.float64) - there[name]).mean() if value.shape == there[name].shape else np.inf
        for here, there in zip(wanted, got, strict=True)
        for name, value in here.items()
        if name in there and value.size
    ]
    return float(np.mean(parts)) if parts else 0.0


def kernel_findings(
    bundle: Bundle, evidence: Evidence, *, runtime: str, kernels: Mapping[str, Any], sys_visible: bool | None
) -> list[Finding]:
    """What is to be said of the kernels (rules 3 to 5). `sys_visible` is None where nobody looked."""
    manifest = bundle.manifest
    if not evidence.expected:
        return [_other_kernels(evidence, runtime, sys_visible, asked=bool(kernels.get("asked_for")))]
    if evidence.bit_exact or manifest.runner != "tflite" or manifest.precision not in EXACT:
        return []
    if evidence.rounded:
        return [
            Finding(
                code="validate/float-rounding",
                message="the model ends in float operators, which round otherwise on this processor",
                severity=Severity.INFO,
                hint="their results agree within 1e-5; the integers before them are what is compared to the bit",
            )
        ]
    reason = _explanation(runtime, kernels, evidence)
    return [
        Finding(
            code="validate/not-exact",
            message=f"the outputs are not those of {evidence.kernel_set or 'the same kernels'} to the bit"
            + (f": {reason}" if reason else ", and nothing explains it"),
            severity=Severity.WARNING if reason else Severity.ERROR,
            hint="build and validate with the device's own version of the runtime for the same bits"
            if reason
            else "the device computes otherwise than it should: another model file, a fault of its runtime or memory",
        )
    ]


def _other_kernels(evidence: Evidence, runtime: str, sys_visible: bool | None, *, asked: bool) -> Finding:
    """Rule 5, and the usual reasons for it."""
    how = "nearest to" if evidence.nearest else "those of"
    if asked:
        hint = "it was asked for with --kernels"
    elif sys_visible is False:
        hint = "/sys is not mounted there, and LiteRT drops XNNPACK when it cannot look at the processor: mount it"
    elif runtime.startswith("tflite-runtime"):
        hint = "tflite-runtime does not take XNNPACK for int8 by itself: install ai-edge-litert"
    else:
        hint = "is /sys mounted there, and was the runtime built with XNNPACK? ai-edge-litert from PyPI is"
    return Finding(
        code="validate/other-kernels",
        message=f"{runtime or 'the runtime'} runs without XNNPACK: the outputs are {how} the {evidence.kernel_set} "
        "kernels. It is slower, and rounds otherwise than the goldens; the task decides, not the steps",
        severity=Severity.WARNING,
        hint=hint,
    )


def _explanation(runtime: str, kernels: Mapping[str, Any], evidence: Evidence) -> str:
    """Rule 3; empty where there is none."""
    if evidence.host_exact:
        return "this machine's runtime gives the device's bits today, so the bundle was built with another one"
    outside = kernels.get("outside") or {}
    if outside:
        names = ", ".join(f"{name} {count}" for name, count in sorted(outside.items())[:4])
        return f"{names} run outside XNNPACK, in code that is another one on each processor"
    package, _, version = runtime.partition(" ")
    with contextlib.suppress(metadata.PackageNotFoundError):
        here = metadata.version(package)
        if here != version:
            return f"the device has {package} {version}, this machine {here}"
    return ""
