"""The accuracy table's figures: decibels by the worst output, a median of samples, views, ranking."""

from __future__ import annotations

import numpy as np
import pytest

from tools.accuracy_measure import mcnemar, measure

rng = np.random.default_rng(0)


def test_one_bad_sample_is_in_the_whole_and_not_in_the_median() -> None:
    reference = [{"y": np.ones((1, 4), np.float32)} for _ in range(5)]
    outputs = [{"y": np.full((1, 4), 1.01, np.float32)} for _ in range(4)] + [{"y": np.full((1, 4), 3.0, np.float32)}]
    found = measure(reference, outputs)
    assert found["median dB"] == pytest.approx(40.0, abs=0.1)
    assert found["dB"] == pytest.approx(10 * np.log10(5 / (4 * 0.01**2 + 4)), abs=0.1)


def test_the_worst_output_speaks_for_all_and_integers_do_not_count() -> None:
    reference = [{"a": np.ones((1, 2), np.float32), "b": np.ones((1, 2), np.float32), "n": np.asarray([1])}]
    outputs = [{"a": np.full((1, 2), 1.1, np.float32), "b": np.ones((1, 2), np.float32), "n": np.asarray([7])}]
    assert measure(reference, outputs)["dB"] == pytest.approx(20.0, abs=0.1)


def test_labels_say_what_is_right() -> None:
    reference = [{"y": np.eye(3, dtype=np.float32)[[i]]} for i in (0, 1, 2, 2)]
    outputs = [{"y": np.eye(3, dtype=np.float32)[[i]]} for i in (0, 1, 2, 1)]
    found = measure(reference, outputs, [0, 1, 1, 1])
    assert (found["top-1"], found["right"]) == (75.0, 75.0)
    assert found["correct"] == [True, True, False, True]
    assert measure(reference, outputs)["right"] is None


def test_an_uneven_split_of_few_samples_may_be_chance() -> None:
    both = [True] * 20
    assert mcnemar(both, both) == (0, 0, 1.0)
    assert mcnemar([*both, True, False], [*both, False, True]) == (1, 1, 1.0)
    # five tosses of one side: 2 / 2^5
    ahead, behind, chance = mcnemar([*both, *[False] * 5], [*both, *[True] * 5])
    assert (ahead, behind) == (0, 5) and chance == pytest.approx(0.0625, rel=1e-12)
    # of ten tosses at most two of one side: 2 · (1 + 10 + 45) / 2^10
    ahead, behind, chance = mcnemar([True] * 8 + [False] * 2, [False] * 8 + [True] * 2)
    assert (ahead, behind) == (8, 2) and chance == pytest.approx(112 / 1024, rel=1e-12)


def test_boxes_do_not_drown_scores() -> None:
    value = np.concatenate([np.full((1, 4, 2), 300.0), np.full((1, 3, 2), 0.5)], 1).astype(np.float32)
    wrong = value.copy()
    wrong[:, 4:] += 0.5
    assert measure([{"y": value}], [{"y": wrong}])["dB"] > 50
    assert measure([{"y": value}], [{"y": wrong}], view="boxes_and_scores")["dB"] == pytest.approx(0.0, abs=0.1)


def test_embeddings_leave_padding_out_and_are_ranked() -> None:
    feeds = [{"attention_mask": np.asarray([[1, 1, 0]])} for _ in range(6)]
    reference = [{"last_hidden_state": rng.standard_normal((1, 3, 8)).astype(np.float32)} for _ in feeds]
    keep = np.asarray([1, 1, 9], np.float32)[None, :, None]
    padded = [{"last_hidden_state": r["last_hidden_state"] * keep} for r in reference]
    same = measure(reference, padded, view="sentence", feeds=feeds)
    assert same["dB"] > 100 and (same["cosine"], same["Spearman"]) == (1.0, 1.0)
    mixed = [reference[i] for i in (1, 2, 3, 4, 5, 0)]
    other = measure(reference, mixed, view="sentence", feeds=feeds)
    assert other["dB"] < 10 and other["Spearman"] < 0.9
