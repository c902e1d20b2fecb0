"""The judge hears every sample alike, and nothing of what a Softmax throws away."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.quantization.measures.judge import Judge, Noise, Trial
from edgec.tensors import Array
from tests.support.graphs import graph


def noise(*errors: float) -> Noise:
    return Noise(error=np.asarray([errors]), signal=np.ones((1, len(errors))))


def test_one_loud_sample_does_not_outvote_the_others() -> None:
    before = noise(1, 1, 1, 1, 1, 1, 1, 100)
    after = noise(0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 110)
    gain, deviation = after.gain_over(before)
    assert gain > 3 * deviation and after.pooled_db < before.pooled_db
    # Seven of eight samples gain 6 dB; δ is 2 % of a mean noise of 13.4.
    assert gain == pytest.approx(7 / 8 * 10 * np.log10(1.268 / 0.518), abs=0.1)


def test_luck_has_a_large_error() -> None:
    gain, deviation = noise(1, 1, 1, 0.01).gain_over(noise(1, 1, 1, 1))
    assert 0 < gain < 1.1 * deviation


def test_samples_without_noise_say_nothing() -> None:
    gain, _ = noise(1e-9, 1e-9, 1).gain_over(noise(1e-12, 1e-12, 1))
    assert gain == pytest.approx(0, abs=1e-3)


def test_the_output_that_loses_speaks_for_all() -> None:
    before = Noise(error=np.ones((2, 4)), signal=np.ones((2, 4)))
    after = Noise(error=np.stack([np.full(4, 0.1), np.full(4, 2.0)]), signal=np.ones((2, 4)))
    gains = 10 * np.log10([1.002 / 0.102, 1.02 / 2.02])  # with δ of 2 %
    wanted = -5 * np.log10(np.mean(10 ** (-gains / 5)))
    assert after.gain_over(before)[0] == pytest.approx(wanted, abs=1e-6) and wanted < -1.4


def test_where_the_worst_output_stays_as_it_was_the_others_count() -> None:
    before = Noise(error=np.stack([np.full(4, 1.0), np.full(4, 0.1)]), signal=np.ones((2, 4)))
    after = Noise(error=np.stack([np.full(4, 1.0), np.full(4, 0.001)]), signal=np.ones((2, 4)))
    gain, deviation = after.gain_over(before)
    assert gain > deviation == 0
    assert before.gain_over(after)[0] < 0


def test_an_output_without_noise_is_the_best_and_not_the_worst() -> None:
    before = Noise(error=np.stack([np.full(4, 1.0), np.zeros(4)]), signal=np.ones((2, 4)))
    after = Noise(error=np.stack([np.full(4, 0.1), np.zeros(4)]), signal=np.ones((2, 4)))
    assert before.pooled_db == pytest.approx(0.0)
    assert after.gain_over(before)[0] == pytest.approx(10 * np.log10(1.002 / 0.102), abs=1e-6)


def test_nothing_to_judge_gains_nothing() -> None:
    nothing = Noise(error=np.zeros((0, 3)), signal=np.zeros((0, 3)))
    assert nothing.gain_over(nothing) == (0.0, 0.0) and nothing.pooled_db == 300.0


def test_values_that_are_not_finite_are_the_worst() -> None:
    source = graph("(float[1,4] x) => (float[1,4] y) { y = Identity(x) }")
    broken = graph("(float[1,4] x) => (float[1,4] y) { z = Sub(x, x) y = Div(x, z) }")
    judge = Judge(source, [{"x": np.ones((1, 4), np.float32)}] * 2)
    gain, _ = judge.noise(broken).gain_over(judge.noise(source))
    assert gain < -300 and np.isfinite(gain)


def scores(values: list[float]) -> dict[str, Array]:
    return {"x": np.asarray([values], np.float32)}


def test_what_lies_far_below_the_first_class_does_not_count() -> None:
    source = graph("(float[1,3] x) => (float[1,3] y) { z = Mul(x, x) y = Softmax(z) }")
    lowest = {"low": np.asarray(20, np.float32)}
    clipped = graph(
        "(float[1,3] x) => (float[1,3] y) { q = Mul(x, x) z = Max(q, low) y = Softmax(z) }", constants=lowest
    )
    judge = Judge(source, [scores([6, 5.5, 0]), scores([6, 5.4, 1])])
    assert judge.noise(clipped).error.max() == 0  # 20 below 36 is as impossible as 0
    near = Judge(source, [scores([6, 5.5, 5.4]), scores([6.1, 5.6, 5.4])])
    shifted = graph(
        "(float[1,3] x) => (float[1,3] y) { q = Mul(x, x) z = Add(q, low) y = Softmax(z) }", constants=lowest
    )
    assert near.noise(shifted).error.max() < 1e-6  # a Softmax does not see what all its scores share
    doubled = {"two": np.asarray(2, np.float32)}
    wrong = graph(
        "(float[1,3] x) => (float[1,3] y) { q = Mul(x, x) z = Mul(q, two) y = Softmax(z) }", constants=doubled
    )
    assert near.noise(wrong).error.min() > 1


def scaled(factor: float) -> Model:
    constants = {"k": np.asarray(factor, np.float32)}
    return graph("(float[1,4] x) => (float[1,4] y) { y = Mul(x, k) }", constants=constants)


def looked_at(trial: Trial) -> int:
    return int(trial.known.error.shape[1])


def test_what_is_clear_is_said_after_the_first_look() -> None:
    rng = np.random.default_rng(0)
    judge = Judge(scaled(1.0), [{"x": rng.standard_normal((1, 4)).astype(np.float32)} for _ in range(40)])
    near, far = judge.trial(scaled(1.01)), judge.trial(scaled(1.1))
    better = judge.verdict(near, far)
    assert better.sure and better.gain == pytest.approx(20, abs=0.5)  # a tenth of the error
    worse = judge.verdict(judge.trial(scaled(1.1)), near)
    assert not worse.sure and worse.gain == pytest.approx(-20, abs=0.5)
    assert looked_at(near) == looked_at(far) == 6


def test_what_is_in_doubt_is_looked_at_longer() -> None:
    # One is better on some samples, the other on others, by turns.
    feeds = [{"x": np.asarray([[i % 2, (i + 1) % 2]], np.float32)} for i in range(40)]
    first, second = (
        graph("(float[1,2] x) => (float[1,2] y) { y = Mul(x, k) }", constants={"k": np.asarray(factors, np.float32)})
        for factors in ([1.02, 1.01], [1.01, 1.02])
    )
    judge = Judge(graph("(float[1,2] x) => (float[1,2] y) { y = Identity(x) }"), feeds)
    new, old = judge.trial(first), judge.trial(second)
    verdict = judge.verdict(new, old)
    assert not verdict.sure and looked_at(new) == looked_at(old) == len(feeds)
    assert verdict.gain == pytest.approx(0, abs=1e-3)


def test_sorted_data_is_not_looked_at_in_order() -> None:
    """Twenty samples of one kind first, on which the plan is better, then twenty on which it is worse by more."""
    kinds = [[1, 0]] * 20 + [[0, 1]] * 20
    feeds = [{"x": np.asarray([kind], np.float32)} for kind in kinds]
    text = "(float[1,2] x) => (float[1,2] y) { y = Mul(x, k) }"
    better_first = graph(text, constants={"k": np.asarray([1.01, 1.1], np.float32)})
    even = graph(text, constants={"k": np.asarray([1.02, 1.02], np.float32)})
    judge = Judge(graph("(float[1,2] x) => (float[1,2] y) { y = Identity(x) }"), feeds)
    assert not judge.verdict(judge.trial(better_first), judge.trial(even)).sure
