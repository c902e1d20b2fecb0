"""Strings on OpenVINO: compared, joined, cleaned, and in the other case, for all of Unicode."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgec.backends.base import load_backend
from edgec.errors import EdgecError
from edgec.targets.load import load_target
from tests.support.backends import answers
from tests.support.graphs import graph


def normalized(words: Sequence[str], *, rest: str) -> list[str]:
    model = graph(f"(string[{len(words)}] x) => (string[n] y) {{ y = StringNormalizer <{rest}> (x) }}")
    return [str(s) for s in answers(model, "openvino", x=np.asarray(words, object))["y"]]


@pytest.mark.parametrize("action", ["UPPER", "LOWER"])
def test_every_character_has_the_other_case_of_unicode(action: str) -> None:
    rows = [a for a in range(0, 0x20000, 256) if not 0xD800 <= a < 0xE000]
    words = ["x" + "x".join(map(chr, range(a, a + 256))) for a in rows]  # letters between: no final Σ
    got = normalized(words, rest=f'case_change_action="{action}", is_case_sensitive=1')
    for word, made in zip(words, got, strict=True):
        for character, other in zip(word[1::2], made[1::2], strict=True):
            changed = character.upper() if action == "UPPER" else character.lower()
            if len(changed) == 1:
                assert other == changed, hex(ord(character))
            else:
                assert other == character or len(character.title()) == 1 or character == "İ", hex(ord(character))
    assert "x" not in got[0] if action == "UPPER" else "X" not in got[0]


def test_stop_words_go_first_and_whole_words_only() -> None:
    words = ["Monday", "monday", "mondays", "", "mond", "ÉTÉ", "été"]
    assert normalized(words, rest='stopwords=["monday", "été"], is_case_sensitive=1') == [
        *("Monday", "mondays", "", "mond", "ÉTÉ")
    ]
    assert normalized(words, rest='stopwords=["MONDAY", "été"], case_change_action="UPPER"') == ["MONDAYS", "", "MOND"]
    assert normalized(["\u212aelvin", "kelvin", "x"], rest='stopwords=["Kelvin"]') == ["x"]  # the Kelvin sign is a k


def test_when_nothing_is_left_an_empty_string_is() -> None:
    assert normalized(["a", "A"], rest='stopwords=["a"]') == [""]


def test_letters_of_turkish_are_refused() -> None:
    text = '{ y = StringNormalizer <locale = "tr_TR", case_change_action = "LOWER"> (x) }'
    plugin, target = load_backend("openvino"), load_target("linux-x86_64")
    model = graph(f"(string[2] x) => (string[2] y) {text}")
    assert "letters of tr" in plugin.check(model, target)[0].message
    with pytest.raises(EdgecError, match="computed wrongly"):
        answers(model, "openvino", x=np.asarray(["I", "İ"], object))


def test_strings_join_and_compare_with_broadcasting() -> None:
    model = graph(
        "(string[2, 1] a, string[3] b) => (string[2, 3] y, bool[2, 3] z) { y = StringConcat(a, b) z = Equal(a, b) }"
    )
    a, b = np.asarray([["é"], [""]], object), np.asarray(["é", "éé", ""], object)
    got = answers(model, "openvino", a=a, b=b)
    assert got["y"].tolist() == [["éé", "ééé", "é"], ["é", "éé", ""]]
    np.testing.assert_array_equal(got["z"], a == b)


def test_numbers_still_compare_beside_strings() -> None:
    model = graph("(float[3] a, float[1] b, string[1] s) => (bool[3] y, bool[1] z) { y = Equal(a, b) z = Equal(s, s) }")
    got = answers(
        model,
        "openvino",
        a=np.asarray([1, 2, np.nan], np.float32),
        b=np.asarray([2], np.float32),
        s=np.asarray(["q"], object),
    )
    assert got["y"].tolist() == [False, True, False] and got["z"].tolist() == [True]
