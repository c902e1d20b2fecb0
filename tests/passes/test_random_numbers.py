"""Operators that draw are named, as information."""

from __future__ import annotations

from edgec.errors import Severity
from edgec.passes.pipelines import canonicalize
from edgec.passes.random_numbers import drawn
from tests.support.graphs import graph


def test_who_draws_is_named() -> None:
    model = graph(
        "(float[2,3] x) => (float[2,3] y) { r = RandomNormalLike(x) u = RandomUniform<shape=[2,3]>() "
        "s = Add(r, u) y = Add(s, x) }"
    )
    found = drawn(canonicalize(model))
    assert [f.message.split()[0] for f in found] == ["RandomNormalLike", "RandomUniform"]
    assert {(f.code, f.severity) for f in found} == {("graph/random", Severity.INFO)}
    assert all(f.where and f.hint for f in found)


def test_in_branches_too() -> None:
    model = graph(
        """(float[2] x, bool c) => (float[2] y)
        { y = If(c)<then_branch = g1 () => (float[2] a) { a = RandomNormalLike(x) },
                    else_branch = g2 () => (float[2] b) { b = Relu(x) }> }"""
    )
    assert [f.code for f in drawn(model)] == ["graph/random"]


def test_no_word_about_others() -> None:
    assert not drawn(graph("(float[2,3] x) => (float[2,3] y) { y = Relu(x) }"))
