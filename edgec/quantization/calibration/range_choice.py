"""Choose a tensor's range from its statistics, and say how much of it the choice leaves out.

`minmax` keeps everything, `percentile` cuts the same share off each end. `mse` and `auto` search the range with the
least squared error of 8 bits: rounding of what is inside, and what is cut off outside. `mse` rounds the histogram
itself. `auto` counts step²/12 for each value, also for those beside a step so small that they vanish and lose less; and
what is cut off twice, as the largest values are the ones that the network acts on. Where readers make one function of
a value (SiLU), `auto` counts the error of what they make: steps where that is flat are wasted. `entropy` keeps the
distribution, by the least Kullback-Leibler divergence.

Inputs to come go beyond the samples where those are few. How far is read off the samples themselves
(`roomy_range_of`): for values with bounds of their own it is next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from edgec.quantization.response import Response
from edgec.quantization.types import TensorStats
from edgec.tensors import Array

RangeMethod = Literal["minmax", "percentile", "mse", "entropy", "auto"]

RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)


@dataclass(frozen=True, kw_only=True, slots=True)
class ByTensor:
    """One way for most tensors, and others for some, by name. Those of `channels` have a range a channel within it."""

    usual: RangeMethod
    others: Mapping[str, RangeMethod] = field(default_factory=dict)
    channels: frozenset[str] = frozenset()


#: How a model's ranges are chosen.
RangeChoice = RangeMethod | ByTensor


def method_for(name: str, choice: RangeChoice) -> RangeMethod:
    """How one tensor's range is chosen."""
    return choice.others.get(name, choice.usual) if isinstance(choice, ByTensor) else choice


def channels_of(choice: RangeChoice) -> frozenset[str]:
    """Names of the tensors that have a range a channel."""
    return choice.channels if isinstance(choice, ByTensor) else frozenset()


def with_channels(choice: RangeChoice, names: frozenset[str]) -> RangeChoice:
    """The same choice, with a range a channel for some tensors."""
    if not names:
        return choice
    return replace(choice, channels=names) if isinstance(choice, ByTensor) else ByTensor(usual=choice, channels=names)


#: How much more than rounding an error by cutting off counts.
CUT_WEIGHT: dict[RangeMethod, float] = {"mse": 1.0, "auto": 2.0}

#: Ends that are tried on each side, from this share of the full range up to all of it.
_TRIED = 64
_SMALLEST = 0.1

#: Steps whose rounding is computed value by value, and places in each bin where its values are taken to lie.
_STEPS_TRIED = 128
_PLACES = 4

#: Steps of the 8 bit numbers that the errors are of.
_STEPS = 255

#: Ranges have room for what this many samples would show, but for this many doublings at most: on the rows of the
#: accuracy table with 4 and 8 samples each, one gains half of what two do, and three cost in steps what they save.
_USUAL = 100
_MOST_DOUBLINGS = 2.0

#: How far beyond what was seen of it a channel's range reaches (with 1.15 a trained EfficientNet-B0 lost 6 dB on unseen
#: samples, with 2 next to nothing), and how much finer than the tensor's its steps become at most.
_CHANNEL_ROOM = 2.0
_FINEST = 32.0

#: A model's answer has room for what this many samples would show, where rounding makes no more of it than this.
_MANY = 800
_LITTLE = 1e-4

#: Share of the values, in percent, that lie below the upper end; as much again lies above the lower end.
DEFAULT_PERCENTILE = 99.99


def range_of(
    stats: TensorStats,
    method: RangeMethod = "minmax",
    *,
    percentile: float = DEFAULT_PERCENTILE,
    response: Response | None = None,
) -> tuple[float, float]:
    """(low, high) that holds 0. A tensor that is always zero gives (0, 0). `response` counts for `auto` alone.

    `percentile` cuts off (100 − percentile) % of the sampled values at each end, never more than min-max has.
    """
    low, high = stats.minimum, stats.maximum
    if method == "percentile" and stats.counts.sum() > 0:
        share = 1.0 - percentile / 100.0
        low = max(low, quantile(stats, share))
        high = min(high, quantile(stats, 1.0 - share))
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return low, high
    if method in CUT_WEIGHT and stats.counts.sum() > 0:
        return _least_error(stats, low, high, method, response if method == "auto" else None)
    if method == "entropy" and stats.counts.sum() > 0:
        return _least_divergence(stats, low, high)
    return low, high


def roomy_range_of(stats: TensorStats, method: RangeMethod, response: Response | None = None) -> tuple[float, float]:
    """`range_of`, reaching out to where its ends are expected with as many samples as are usual.

    An end that the least error cuts off, or that was cut, stays: where what was seen is not worth its coarser steps,
    what was not seen is not either.
    """
    low, high = range_of(stats, method, response=response)
    worth_low, worth_high = (low, high) if method == "auto" else range_of(stats, "auto", response=response)
    if low < 0 and worth_low <= stats.minimum >= low and len(stats.lows):
        low = min(low, -_expected(-stats.lows, stats.runs))
    if high > 0 and worth_high >= stats.maximum <= high and len(stats.highs):
        high = max(high, _expected(stats.highs, stats.runs))
    return low, high


def channel_ranges(stats: TensorStats, low: float, high: float) -> list[tuple[float, float]] | None:
    """A range for each channel: what was seen of it with room, within [low, high], the range of the tensor.

    None where channels were not observed. A channel's largest value is known less well than the tensor's, which is the
    largest of many; and a channel that gave next to nothing may give more.
    """
    if stats.channel_min is None or stats.channel_max is None:
        return None
    if np.isnan(stats.channel_min).any() or np.isnan(stats.channel_max).any():
        return None
    lows = np.clip(np.minimum(stats.channel_min, 0.0) * _CHANNEL_ROOM, low, low / _FINEST)
    highs = np.clip(np.maximum(stats.channel_max, 0.0) * _CHANNEL_ROOM, high / _FINEST, high)
    return [(float(a), float(b)) for a, b in zip(lows, highs, strict=True)]


def answer_range_of(stats: TensorStats) -> tuple[float, float] | None:
    """All that was seen of a model's answer, with room for `_MANY` samples: a cut there is a wrong answer.

    None where steps as wide as that make more than a little of the answer: then it is for others to weigh.
    """
    low, high = min(stats.minimum, 0.0), max(stats.maximum, 0.0)
    if low < 0 and len(stats.lows):
        low = -_expected(-stats.lows, stats.runs, _MANY)
    if high > 0 and len(stats.highs):
        high = _expected(stats.highs, stats.runs, _MANY)
    count = stats.counts.astype(np.float64)
    middle = (np.arange(len(count)) + stats.first_bin + 0.5) * stats.bin_width
    rounding = ((high - low) / _STEPS) ** 2 / 12 * float(count.sum())
    return (low, high) if rounding <= _LITTLE * float(np.sum(count * middle**2)) else None


def _expected(extremes: Array, runs: int, usual: int = _USUAL) -> float:
    """The expected maximum over more samples; `extremes` are the largest of all runs' own maxima, largest first.

    Of a random half of the samples the n-th largest is the largest with probability 2⁻ⁿ. As the maximum grew from
    half of them to all, so it goes on.
    """
    largest = extremes.astype(np.float64)
    growth = float(np.sum((largest[0] - largest) * 0.5 ** np.arange(1, len(largest) + 1)))
    growth += float(largest[0] - largest[-1]) * 0.5 ** len(largest)
    most = _MOST_DOUBLINGS + math.log2(usual / _USUAL)
    return float(largest[0]) + min(max(math.log2(usual / runs), 0.0), most) * growth


def _ends(full: float) -> Array:
    """Candidates for one end of the range, the full one last."""
    return full * np.linspace(_SMALLEST, 1.0, _TRIED) if full else np.zeros(1)


def _least_error(
    stats: TensorStats, low: float, high: float, method: RangeMethod, response: Response | None = None
) -> tuple[float, float]:
    """The range inside [low, high] with the least expected squared error; the widest one of equals."""
    lows, highs = _ends(low), _ends(high)
    count = stats.counts.astype(np.float64)
    middle = (np.arange(len(count)) + stats.first_bin + 0.5) * stats.bin_width
    step = (highs[None, :] - lows[:, None]) / _STEPS
    if response is None:
        above = _beyond(middle, count, highs)
        below = _beyond(-middle[::-1], count[::-1], -lows)
        felt = float(count.sum()) - _exact_zeros(stats)
    else:
        made, slope = response(middle), np.diff(response(_edges(stats))) / stats.bin_width
        above = _made_beyond(middle, made, count, highs, response(highs))
        below = _made_beyond(-middle[::-1], made[::-1], count[::-1], -lows, response(lows))
        felt = float(np.sum(count * slope**2))
    rounding = _rounded(stats, step) if method == "mse" else step**2 / 12 * felt
    cost = rounding + CUT_WEIGHT[method] * (above[None, :] + below[:, None])
    best = np.flatnonzero(cost.reshape(-1) <= cost.min() * (1 + 1e-9))[-1]
    i, j = divmod(int(best), len(highs))
    return float(lows[i]), float(highs[j])


def _rounded(stats: TensorStats, steps: Array) -> Array:
    """Σ (value − its nearest multiple of a step)², for many steps: 0 is one of the multiples in any range.

    Exact for a few of them, the nearest of which stands for the others.
    """
    count = stats.counts.astype(np.float64)
    if (zeros := _exact_zeros(stats)) > 0:
        count[-stats.first_bin] -= zeros
    used = np.flatnonzero(count)
    inside = (np.arange(_PLACES) + 0.5) / _PLACES
    places = ((used + stats.first_bin)[:, None] + inside).ravel() * stats.bin_width
    places = np.clip(places, stats.minimum, stats.maximum)
    weights = np.repeat(count[used] / _PLACES, _PLACES)
    smallest, largest = math.log(float(steps.min())), math.log(float(steps.max()))
    tried = np.exp(np.linspace(smallest, largest, _STEPS_TRIED))
    errors = np.asarray([np.sum(weights * (places - step * np.rint(places / step)) ** 2) for step in tried])
    position = (np.log(steps) - smallest) / max(largest - smallest, np.finfo(np.float64).tiny) * (_STEPS_TRIED - 1)
    return np.asarray(errors[np.rint(position).astype(np.int64)])


def _exact_zeros(stats: TensorStats) -> float:
    """Values at 0 behind a Relu: they have no rounding error, whatever the step."""
    zero_bin = -stats.first_bin
    return float(stats.counts[zero_bin]) if stats.minimum == 0 and 0 <= zero_bin < len(stats.counts) else 0.0


def _beyond(values: Array, count: Array, ends: Array) -> Array:
    """Σ count·(value − end)² over the values above each end; `values` ascend."""
    moments = [np.append(np.cumsum((count * values**k)[::-1])[::-1], 0.0) for k in range(3)]
    first = np.searchsorted(values, ends, side="right")
    zeroth, once, twice = (m[first] for m in moments)
    return np.asarray(np.maximum(twice - 2 * ends * once + ends**2 * zeroth, 0.0))


def _made_beyond(values: Array, made: Array, count: Array, ends: Array, made_of_ends: Array) -> Array:
    """Σ count·(f(value) − f(end))² over the values above each end, where `made` are f(value); `values` ascend."""
    beyond = values[None, :] > ends[:, None]
    return np.asarray((np.where(beyond, made[None, :] - made_of_ends[:, None], 0.0) ** 2 * count).sum(axis=1))


def _edges(stats: TensorStats) -> Array:
    """Where the bins of the histogram begin and end."""
    return np.asarray((np.arange(len(stats.counts) + 1) + stats.first_bin) * stats.bin_width)


def _least_divergence(stats: TensorStats, low: float, high: float) -> tuple[float, float]:
    """The range, cut on both sides by the same share, whose 8 bit distribution diverges least from the observed one."""
    shares = np.linspace(_SMALLEST, 1.0, _TRIED)
    costs = [_divergence(stats, low * share, high * share) for share in shares]
    best = int(np.flatnonzero(np.asarray(costs) <= min(costs) + 1e-12)[-1])
    return float(low * shares[best]), float(high * shares[best])


def _divergence(stats: TensorStats, low: float, high: float) -> float:
    """KL of the observed distribution, its tails swept to the ends, from what 256 levels make of it."""
    count = stats.counts.astype(np.float64)
    count[count.argmax()] -= _exact_zeros(stats) if count.argmax() == -stats.first_bin else 0.0
    middle = (np.arange(len(count)) + stats.first_bin + 0.5) * stats.bin_width
    middle = np.clip(middle, stats.minimum, stats.maximum)  # the last bin may begin at the maximum itself
    inside = (middle >= low) & (middle <= high)
    if not inside.any():
        return float("inf")
    kept = np.where(inside, count, 0.0)
    swept = kept.copy()
    indices = np.flatnonzero(inside)
    swept[indices[0]] += count[: indices[0]].sum()
    swept[indices[-1]] += count[indices[-1] + 1 :].sum()
    level = np.clip(np.rint((middle - low) / (high - low) * _STEPS), 0, _STEPS).astype(np.int64)
    used = kept > 0
    mass = np.bincount(level[used], weights=kept[used], minlength=_STEPS + 1)
    sharing = np.bincount(level[used], minlength=_STEPS + 1)
    coded = np.where(used, mass[level] / np.maximum(sharing[level], 1), 0.0)
    total, coded_total = swept.sum(), coded.sum()
    if coded_total == 0:
        return float("inf")
    p, q = swept / total, np.maximum(coded / coded_total, 1e-12)
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))


def quantile(stats: TensorStats, share: float) -> float:
    """The value below which `share` of the sampled values lie; linear inside a bin."""
    cumulative = np.concatenate([[0], np.cumsum(stats.counts)])
    edges = _edges(stats)
    value = float(np.interp(share * cumulative[-1], cumulative, edges))
    return min(max(value, stats.minimum), stats.maximum)


def outside(stats: TensorStats, low: float, high: float) -> float:
    """Share of the sampled values outside [low, high], 0..1; linear inside a bin."""
    total = int(stats.counts.sum())
    if total == 0:
        return 0.0
    cumulative = np.concatenate([[0], np.cumsum(stats.counts)])
    edges = _edges(stats)
    below = np.interp(low, edges, cumulative) if low > stats.minimum else 0.0
    above = total - np.interp(high, edges, cumulative) if high < stats.maximum else 0.0
    return float((below + above) / total)
