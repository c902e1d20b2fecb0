"""Judge quantized models sample by sample, so that one sample in doubt does not outvote the others.

1. An output that a Softmax gives is judged by what goes into it: of a dozen samples the one that is undecided would
   tell more about itself than about the model. What lies far below the first, where float has it too, does not count.
2. Plans are compared pairwise: a sample's noise under one against its noise under the other, in dB, and the mean of
   that. How much a sample amplifies noise cancels out; pooled noise would be that of the one that amplifies most.
3. δ, a share of the mean noise, stands beside each noise: samples that are all but exact under both say nothing.
4. Of several outputs, what counts is the root mean square of their shares of noise: all but the worst one's alone, and
   where that stays as it was, the others'.
5. An output that holds several kinds of values counts as so many outputs (`kinds`).
6. Two plans run on a few samples first, and on more only while these might still change what is said of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgec.graph.model import Model
from edgec.metrics import MAX_DB, sqnr_db
from edgec.quantization.measures.fidelity import stand_ins
from edgec.quantization.measures.kinds import kinds_in
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array, Kind, of_kind

Feeds = Sequence[Mapping[str, Array]]

#: Rule 3: δ as a share of the mean noise.
_NEGLIGIBLE = 0.02

#: Rule 1: e⁻⁸ of the first class's share is nothing.
_FAR = 8.0

#: A gain of so many standard errors is more than luck.
_SURE = 1.0

#: Rule 6: samples of the first look; each further look is at twice as many.
_FIRST_LOOK = 6

#: Rule 6: of so many standard errors the samples not seen yet are not expected to be off.
_DECIDED = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Squared error of each judged output on each sample, and the squared signal; each [outputs, samples]."""

    error: Array
    signal: Array

    @property
    def pooled_db(self) -> float:
        """Signal to noise of the worst output over all samples."""
        return float(min(self._levels, default=MAX_DB))

    @property
    def _levels(self) -> Array:
        """Signal to noise of each output over all samples."""
        found = []
        for error, signal in zip(self.error.sum(axis=1), self.signal.sum(axis=1), strict=True):
            found.append(10 * math.log10(signal / error) if signal > 0 and error > 0 else -MAX_DB if error else MAX_DB)
        return np.clip(found, -MAX_DB, MAX_DB)

    def gain_over(self, other: Noise) -> tuple[float, float]:
        """How many dB better the outputs are than those of `other` (rule 4), and that mean's standard error.

        Over the samples that both have.
        """
        both = min(self.error.shape[1], other.error.shape[1])
        if self.error.shape[1] != other.error.shape[1]:
            return self.until(both).gain_over(other.until(both))
        if not self.error.size:
            return 0.0, 0.0
        delta = _NEGLIGIBLE * np.minimum(self.error, other.error).mean(axis=1, keepdims=True) + 1e-30
        gains = 10 * np.log10((other.error + delta) / (self.error + delta))  # rules 2 and 3
        before = -other._levels / 5  # of the squares of the shares
        after = before - gains.mean(axis=1) / 5
        shares = 10 ** (after - after.max())
        gain = 5 * (_log_of_sum(before) - _log_of_sum(after))
        felt = shares / shares.sum() @ gains
        return float(gain), float(felt.std(ddof=1) / math.sqrt(len(felt))) if len(felt) > 1 else 0.0

    def until(self, count: int) -> Noise:
        """The same of the first samples alone."""
        return Noise(error=self.error[:, :count], signal=self.signal[:, :count])

    def then(self, other: Noise) -> Noise:
        """The same of these samples, and of others behind them."""
        return Noise(
            error=np.concatenate([self.error, other.error], axis=1),
            signal=np.concatenate([self.signal, other.signal], axis=1),
        )


def _log_of_sum(powers: Array) -> float:
    """log₁₀ Σ 10^p, of powers that need not fit a float."""
    largest = powers.max()
    return float(largest + math.log10(np.sum(10 ** (powers - largest))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How many dB a trial gains on another, whether a gain or a loss is more than luck, and whether there was anything
    to judge.
    """

    gain: float
    sure: bool
    harm: bool
    heard: bool


class Trial:
    """What one model does on a judge's samples, run as far as anybody asked. `known` is what was found so far."""

    def __init__(self, run: Callable[[int, int], Noise], outputs: int) -> None:
        self._run: Callable[[int, int], Noise] | None = run
        self.known = Noise(error=np.zeros((outputs, 0)), signal=np.zeros((outputs, 0)))

    def noise(self, count: int) -> Noise:
        """On the first `count` samples."""
        seen = self.known.error.shape[1]
        if seen < count and self._run is not None:
            self.known = self.known.then(self._run(seen, count))
        return self.known.until(count)

    def close(self) -> None:
        """Let the model go, which takes as much memory as its weights; what is known stays."""
        self._run = None


class Judge:
    """Holds what the float model makes of some samples against what quantized models make of them."""

    def __init__(self, model: Model, feeds: Feeds) -> None:
        # in a drawn order: data often comes sorted, and the first look is to be at all sorts
        self._feeds = [feeds[i] for i in np.random.default_rng(0).permutation(len(feeds))]
        self._model = model
        self._first = min(_FIRST_LOOK, len(feeds))
        outputs = [v for v in model.graph.outputs if v.dtype is not None and v.dtype.is_floating_point()]
        self._judged = tuple(_judged(v) for v in outputs)
        self._expected = list(Executor(model, fetch=self._names(), any_layout=True).run_all(self._feeds))
        self._far = {name: _reach([e[name] for e in self._expected]) for name, scores in self._judged if scores}
        kinds = kinds_in([v for v in outputs if v.name in self._names()], self._expected)
        #: What counts as an output (rule 5): the position of the value that it is of, and what of that; None is all.
        self._parts: list[tuple[int, Kind | None]] = [
            (i, kind) for i, name in enumerate(self._names()) for kind in kinds.get(name, (None,))
        ]

    def __call__(self, quantized: Model) -> float:
        """Signal to noise of the judged outputs in dB, the worst one's; `MAX_DB` for a model without float outputs."""
        names = self._stand_ins(quantized)
        found = list(Executor(quantized, fetch=names, any_layout=True).run_all(self._feeds))
        own = self._names()
        return min(
            (
                sqnr_db(
                    np.stack([_part(e[own[i]], kind) for e in self._expected]),
                    np.stack([_part(a[names[i]], kind) for a in found]),
                )
                for i, kind in self._parts
            ),
            default=MAX_DB,
        )

    @property
    def count(self) -> int:
        """The number of samples."""
        return len(self._feeds)

    def noise(self, quantized: Model) -> Noise:
        """Sample by sample, on all of them."""
        return self.trial(quantized.clone()).noise(self.count)

    def trial(self, quantized: Model) -> Trial:
        """To be run on as many samples as it takes (rule 6). Nothing is left of the model."""
        names = self._stand_ins(quantized)
        executor = Executor(quantized, fetch=names, consume=True, any_layout=True)

        def run(start: int, stop: int) -> Noise:
            return self._noise(start, stop, names, executor.run_all(self._feeds[start:stop]))

        return Trial(run, len(self._parts))

    def first_look(self, trial: Trial) -> Noise:
        """On the samples that every trial is run on."""
        return trial.noise(self._first)

    def verdict(self, new: Trial, old: Trial) -> Verdict:
        """How much better one is than the other, on as many samples as it takes to be sure (rule 6)."""
        count = self._first
        while True:
            noise = new.noise(count)
            gain, deviation = noise.gain_over(old.noise(count))
            at_end = deviation * math.sqrt(count / self.count)  # as far as is known
            still_open = _DECIDED * deviation * math.sqrt(1 - count / self.count)
            if abs(gain - _SURE * at_end) >= still_open:
                luck = _SURE * at_end
                return Verdict(gain=gain, sure=gain > luck, harm=gain < -luck, heard=bool(noise.error.size))
            # what another look would leave over is taken along
            count = 2 * count if 3 * count <= self.count else self.count

    def _noise(self, start: int, stop: int, names: Sequence[str], found: Iterable[Mapping[str, Array]]) -> Noise:
        """What a model gives for some samples against float; `names` are its outputs."""
        error = np.zeros((len(self._parts), stop - start))
        signal = np.zeros_like(error)
        own = self._names()
        for j, (expected, actual) in enumerate(zip(self._expected[start:stop], found, strict=True)):
            seen = [
                (self._seen(name, expected[name]), self._seen(name, actual[other]))
                for name, other in zip(own, names, strict=True)
            ]
            for i, (at, kind) in enumerate(self._parts):
                wanted, got = (_part(value, kind) for value in seen[at])
                error[i, j] = np.sum(np.square(wanted - got))
                signal[i, j] = np.sum(np.square(wanted))
        return Noise(error=np.where(np.isfinite(error), np.minimum(error, 1e200), 1e200), signal=signal)

    def _stand_ins(self, quantized: Model) -> list[str]:
        replaced = stand_ins(self._model, quantized)
        return [replaced.get(name, name) for name in self._names()]

    def _names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._judged)

    def _seen(self, name: str, value: Array) -> Array:
        """What counts of a value: of the scores before a Softmax what is not far below the first (rule 1)."""
        value = value.astype(np.float64)
        if name not in self._far:
            return value
        near = np.maximum(value - value.max(axis=-1, keepdims=True), -self._far[name])
        return np.asarray(near - near.mean(axis=-1, keepdims=True))


def _part(value: Array, kind: Kind | None) -> Array:
    return value if kind is None else of_kind(value, kind)


def _reach(values: Sequence[Array]) -> float:
    """How far below the first a score still counts: twice as far as the second usually is, and where e⁻ˣ is nothing."""
    stacked = np.stack(values)
    if stacked.shape[-1] < 2:
        return _FAR
    first = np.partition(stacked, -2, axis=-1)
    return max(_FAR, 2 * float(np.median(first[..., -1] - first[..., -2])))


def _judged(output: ir.Value) -> tuple[str, bool]:
    """The value that an output is judged by, and whether it holds the scores before a Softmax over the last axis."""
    node = output.producer()
    if node is None or node.op_type not in ("LogSoftmax", "Softmax") or node.inputs[0] is None:
        return output.name or "", False
    scores = node.inputs[0]
    axis = node.attributes.get("axis")
    last = axis is None or axis.as_int() in (-1, len(scores.shape or ()) - 1)
    return scores.name or "", last and node.op_type == "Softmax"
