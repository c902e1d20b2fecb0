"""The data doctor: looks at what is fed to a model and says, with evidence, what seems wrong with it.

1. Value range. In a trained network the response of the first convolution varies about as much as its biases are
   large: contrast = std(response) / rms(bias) was 0.3 to 4 for right inputs of EfficientNet-lite0, ResNet-20 and two
   face detectors, above 79 when they were fed 0..255, below 0.01 when fed 1/255 of what they want.
2. Normalised twice. The model itself begins with a normalisation by constants, and the data has already had one.
3. Layout. In a picture neighbours resemble each other; in one whose channels are interleaved, every third value does.
4. Constant inputs carry nothing to calibrate with.
5. Too few samples: the ranges of two disjoint halves differ. It says nothing of a model whose data stays float
   (`without_ranges`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model, const_of, label
from edgec.quantization.calibration.collect import Halves, Samples
from edgec.quantization.calibration.prologue import Prologue, prologue_of
from edgec.quantization.calibration.range_choice import range_of
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array, TensorSpec

#: Code of rule 5.
FEW_SAMPLES = "calibration/few-samples"

#: Samples that the doctor looks at.
_LOOKED_AT = 8

#: Contrast of the first layer (rule 1) beyond which the values are wrong by a factor of tens.
_TOO_STRONG, _TOO_WEAK = 20.0, 0.05

#: Two halves whose ranges differ by more than this, as a share of the range, do not agree about a tensor (rule 5).
_HALVES_DIFFER = 0.25

#: Share of the tensors on which the halves may disagree.
_TENSORS_DIFFER = 0.1

#: As many samples as are usually enough: whoever gave them is not told that they are the usual number.
_USUAL = 100

#: An input of fewer values (a rate, a flag) may well be constant.
_SMALL_INPUT = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fed:
    """What one input was fed in the samples looked at."""

    spec: TensorSpec
    values: Array
    prologue: Prologue
    contrast: float | None

    @property
    def low(self) -> float:
        """Smallest value."""
        return float(self.values.min())

    @property
    def high(self) -> float:
        """Largest value."""
        return float(self.values.max())

    @property
    def range_text(self) -> str:
        """The range as messages show it."""
        return f"{self.low:.3g} to {self.high:.3g}"


def examine(model: Model, samples: Samples) -> tuple[Finding, ...]:
    """What seems wrong with the inputs, from a few samples (rules 1 to 4)."""
    feeds = list(itertools.islice(samples, _LOOKED_AT))
    found: list[Finding] = []
    for spec in model.inputs():
        if not spec.dtype.is_float or not feeds:
            continue
        values = np.stack([feed[spec.name] for feed in feeds]).astype(np.float32)
        if values.size == 0 or not np.isfinite(values).all():
            continue
        prologue = prologue_of(model, spec.name)
        fed = _Fed(spec=spec, values=values, prologue=prologue, contrast=_contrast(model, feeds, spec, prologue))
        for rule in (_constant, _twice, _value_range, _layout):
            if (finding := rule(fed)) is not None:
                found.append(finding)
                break  # the first that fits explains what the later ones would see
    return tuple(found)


def examine_halves(halves: Halves) -> tuple[Finding, ...]:
    """Too few samples (rule 5)."""
    if halves.runs < 2:
        return (_few("there is only one sample", "a range seen once says little about the next input", halves.runs),)
    differing = {}
    for name, (a, b) in halves.tensors.items():
        if a is None or b is None:
            continue
        (low_a, high_a), (low_b, high_b) = range_of(a, "percentile"), range_of(b, "percentile")
        span = max(high_a, high_b) - min(low_a, low_b)
        gap = max(abs(low_a - low_b), abs(high_a - high_b))
        if span > 0 and gap / span > _HALVES_DIFFER:
            differing[name] = gap / span
    if len(differing) <= _TENSORS_DIFFER * len(halves.tensors):
        return ()
    worst = max(differing, key=lambda name: differing[name])
    return (
        _few(
            f"{halves.runs} runs are too few",
            f"in {len(differing)} of {len(halves.tensors)} tensors the ranges of two halves of them differ by more "
            f"than {_HALVES_DIFFER:.0%}, most in {worst!r} ({differing[worst]:.0%})",
            halves.runs,
        ),
    )


def without_ranges(findings: Sequence[Finding], samples: int) -> list[Finding]:
    """Findings without rule 5's, for a model in which no data has a range.

    That there is only one sample stays said: weights are rounded for what they meet.
    """
    return [finding for finding in findings if samples < 2 or finding.code != FEW_SAMPLES]


def _few(message: str, evidence: str, runs: int) -> Finding:
    usual = f"; {_USUAL} are usual" if runs < _USUAL else ""
    return Finding(
        code=FEW_SAMPLES,
        message=f"{message}: {evidence}",
        severity=Severity.WARNING,
        hint=f"give more, and more varied, samples{usual}",
    )


def _contrast(model: Model, feeds: Sequence[dict[str, Array]], spec: TensorSpec, prologue: Prologue) -> float | None:
    """std(response) / rms(bias) of the first convolution; None where it has no bias to compare with, or no image."""
    node = prologue.first
    if node is None or node.op_type != "Conv" or not _is_image(spec) or len(node.inputs) < 3:
        return None
    bias = const_of(node.inputs[2])
    name = node.outputs[0].name
    if bias is None or name is None or not np.any(bias):
        return None
    executor = Executor(model, fetch=[name])
    try:
        responses = np.concatenate([found[name] for found in executor.run_all(feeds)])
    except EdgecError:
        return None  # a feed that does not fit is reported by the run itself
    channels = np.moveaxis(responses, 1, 0).reshape(responses.shape[1], -1).astype(np.float64)
    return float(np.sqrt(channels.var(axis=1).mean() / np.square(bias, dtype=np.float64).mean()))


def _is_image(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and bool({spec.shape[1], spec.shape[3]} & {1, 3, 4})


def _finding(fed: _Fed, code: str, message: str, hint: str) -> Finding:
    return Finding(code=code, message=message, severity=Severity.WARNING, where=fed.spec.name, hint=hint)


def _constant(fed: _Fed) -> Finding | None:
    """Rule 4."""
    samples = fed.values.reshape(len(fed.values), -1)
    if samples.shape[1] < _SMALL_INPUT:
        return None
    what = "the samples of input {} are all the same" if len(samples) > 1 and not np.ptp(samples, axis=0).any() else ""
    if fed.low == fed.high:
        what = f"input {{}} is always {fed.low:.4g}"
    if not what:
        return None
    return _finding(
        fed,
        "calibration/constant-input",
        f"{what.format(repr(fed.spec.name))} in the {len(samples)} samples looked at",
        "check the reader and the paths: calibration needs the variety that the device will see",
    )


def _twice(fed: _Fed) -> Finding | None:
    """Rule 2: pixels are wanted and normalised values come, or values of 0..1 are wanted and negative ones come."""
    wants = fed.prologue.wants
    if wants is None:
        return None
    low, high = wants
    pixels_wanted = high - low > 64 and max(abs(fed.low), abs(fed.high)) < 16
    centred = 0.2 < high - low < 8 and low + high > 0.2  # a mean between 0 and 1 or so is taken off
    unit_wanted = centred and _is_image(fed.spec) and fed.low < min(low, 0.0) - 0.75 * (high - low)
    if not (pixels_wanted or unit_wanted):
        return None
    after = sorted(fed.prologue.scale * x + fed.prologue.shift for x in (fed.low, fed.high))
    return _finding(
        fed,
        "calibration/normalised-twice",
        f"input {fed.spec.name!r} looks normalised already ({fed.range_text}), and the model normalises it again "
        f"({', '.join(fed.prologue.steps)}: {low:.3g} to {high:.3g} become -1 to 1): its first layer sees "
        f"{after[0]:.3g} to {after[1]:.3g}",
        "feed the values that the model's own normalisation expects, e.g. pixels 0..255 with raw-255:FOLDER"
        if pixels_wanted
        else "feed values from 0 to 1, e.g. with zero-one:FOLDER",
    )


def _value_range(fed: _Fed) -> Finding | None:
    """Rule 1: pixels where small values are wanted, or the reverse."""
    wants = fed.prologue.wants
    pixels = _is_image(fed.spec) and fed.low >= 0 and 20 < fed.high <= 256
    if pixels and wants is not None and wants[1] - wants[0] < 8:
        evidence = f"the model's own normalisation turns {wants[0]:.3g} to {wants[1]:.3g} into -1 to 1"
        return _range_finding(fed, "too large", evidence, "0..1", "zero-one")
    if fed.contrast is None or fed.prologue.first is None:
        return None
    evidence = (
        f"the response of the first layer, {label(fed.prologue.first)!r}, varies {fed.contrast:.3g} times as much as "
        "its biases (trained networks: about 0.3 to 4)"
    )
    if pixels and fed.contrast > _TOO_STRONG:
        return _range_finding(fed, "too large", evidence, "0..1 or normalised ones", "imagenet")
    if max(abs(fed.low), abs(fed.high)) > 4 or fed.contrast >= _TOO_WEAK:
        return None
    if fed.high - fed.low > 0.1:
        return _range_finding(fed, "too small", evidence, "0..255", "raw-255")
    return _range_finding(fed, "too small", evidence, "0..1 or normalised ones", "imagenet")  # divided by 255 twice


def _range_finding(fed: _Fed, what: str, evidence: str, wanted: str, recipe: str) -> Finding:
    return _finding(
        fed,
        "calibration/value-range",
        f"the values of input {fed.spec.name!r} ({fed.range_text}) look {what} for the model: {evidence}",
        f"the model seems to want values of {wanted}: preprocess as in training, e.g. with {recipe}:FOLDER",
    )


def _layout(fed: _Fed) -> Finding | None:
    """Rule 3, for three channels. Works on steps between values: |x[i+k] − x[i]|."""
    shape = fed.spec.shape
    if len(shape) != 4 or 3 not in (shape[1], shape[3]) or min(shape[1:]) < 1:
        return None
    if shape[1] == 3 and shape[3] != 3 and shape[3] >= 16:
        one, three = _step(fed.values, 1), _step(fed.values, 3)
        if three < 0.8 * one:
            return _layout_finding(fed, f"every third value in a row (mean step {three:.3g})", one, "NHWC", "NCHW")
    if shape[3] == 3 and shape[1] != 3 and shape[1] >= 16:
        flat = fed.values.reshape(len(fed.values), -1)
        one, three = _step(flat, 1), _step(flat, 3)
        # In true NHWC data the step from one pixel to the next differs from that between channels.
        steps = [float(np.abs(np.diff(flat))[:, phase::3].mean()) for phase in range(3)]
        if one < 0.8 * three and max(steps) - min(steps) < 0.05 * max(steps):
            return _layout_finding(fed, f"the next value in memory (mean step {one:.3g})", three, "NCHW", "NHWC")
    return None


def _step(values: Array, distance: int) -> float:
    return float(np.abs(values[..., distance:] - values[..., :-distance]).mean())


def _layout_finding(fed: _Fed, resembles: str, other: float, data: str, wanted: str) -> Finding:
    return _finding(
        fed,
        "calibration/layout",
        f"input {fed.spec.name!r} seems to be fed {data} data for {wanted}: values resemble {resembles} more than the "
        f"neighbouring pixel of the same channel (mean step {other:.3g})",
        "transpose the data, do not reshape it: numpy.transpose(x, (0, 3, 1, 2)) makes NCHW of NHWC",
    )
