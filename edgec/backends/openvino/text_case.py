"""Upper and lower case of UTF-8, by Unicode's mappings of one character to one, as C's towlower and towupper have them.

1. A character's page is what all its bytes but the last say, 64 characters each; a table names the pages in which
   anything changes, another has the new bytes of their characters.
2. Characters whose mapping is longer (ß to SS) or depends on others (a final Σ) follow the mapping of one to one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import openvino.opset15 as op

from edgec.backends.openvino.text import NOTHING, Text, ints, longest, matrix, number, of_matrix
from edgec.tensors import Array

_PAGE = 64
#: Lower case beyond one to one that C's functions shorten.
_SHORT = {"\u0130": "i"}


def mapped(character: str, *, upper: bool) -> str:
    """Rule 2: the character of the other case, or itself."""
    both = (character.upper(), character.title()) if upper else (character.lower(), _SHORT.get(character, ""))
    return next((o for o in both if len(o) == 1), character)


@cache
def tables(*, upper: bool) -> tuple[Array, Array]:
    """Rule 1: page → number (0: nothing changes in it), and [numbers · 64, 4] bytes, NOTHING behind the last.

    A row of NOTHING alone is a character that stays.
    """
    changed = {c: m for c in map(chr, range(0x20000)) if (m := mapped(c, upper=upper)) != c}
    pages = sorted({ord(c) // _PAGE for c in changed})
    numbers = np.zeros(pages[-1] + 2, np.int32)
    rows = np.full(((len(pages) + 1) * _PAGE, 4), NOTHING, np.int32)
    for place, page in enumerate(pages, 1):
        numbers[page] = place
    for character, new in changed.items():
        page, low = divmod(ord(character), _PAGE)
        data = list(new.encode())
        rows[numbers[page] * _PAGE + low, : len(data)] = data
    return numbers, rows


def change_case(text: Text, *, upper: bool) -> Text:
    """Every string in the other case."""
    bytes_, there = matrix(text, longest(text))
    first, second, third, fourth = (_ahead(bytes_, i) for i in range(4))
    starts = op.logical_and(there, op.logical_or(_below(first, 0x80), op.logical_not(_below(first, 0xC0))))
    size = _by_lead(first, number(1), number(2), number(3), number(4))
    tail_2, tail_3 = (op.subtract(b, number(0x80)) for b in (second, third))
    page_3 = op.add(_times(op.subtract(first, number(0xE0)), _PAGE), tail_2)
    page_4 = op.add(_times(op.add(_times(op.subtract(first, number(0xF0)), _PAGE), tail_2), _PAGE), tail_3)
    high = op.select(_below(first, _PAGE), number(0), number(1))
    page = _by_lead(first, high, op.subtract(first, number(0xC0)), page_3, page_4)
    low = _by_lead(
        first, op.subtract(first, _times(high, _PAGE)), *(op.subtract(b, number(0x80)) for b in (second, third, fourth))
    )
    numbers, rows = tables(upper=upper)
    place = op.gather(op.constant(numbers), _within(page, len(numbers)), number(0))
    new = op.gather(op.constant(rows), _within(op.add(_times(place, _PAGE), low), len(rows)), number(0))
    own = op.concat([op.unsqueeze(b, ints(-1)) for b in (first, second, third, fourth)], -1)
    own = op.select(op.less(ints(0, 1, 2, 3), op.unsqueeze(size, ints(-1))), own, number(NOTHING))
    stays = op.equal(op.gather(new, number(0), number(-1)), number(NOTHING))
    bytes_ = op.select(op.unsqueeze(stays, ints(-1)), own, new)
    kept = op.logical_and(op.unsqueeze(starts, ints(-1)), op.not_equal(bytes_, number(NOTHING)))
    return of_matrix(_joined(bytes_), _joined(kept))


def _joined(x: Any) -> Any:
    """The last two axes as one."""
    shape = op.shape_of(x, "i32")
    rank = x.get_output_partial_shape(0).rank.get_length()
    leading = op.gather(shape, ints(*range(rank - 2)), number(0))
    return op.reshape(x, op.concat([leading, ints(-1)], 0), False)


def _ahead(rows: Any, count: int) -> Any:
    """The byte so many places further on, NOTHING behind the end."""
    if not count:
        return rows
    rank = rows.get_output_partial_shape(0).rank.get_length()
    pads = [0] * (rank - 1)
    wider = op.pad(rows, ints(*pads, 0), ints(*pads, count), "constant", number(NOTHING))
    size = op.shape_of(wider, "i32")
    end = op.gather(size, ints(rank - 1), number(0))
    return op.slice(wider, ints(count), end, ints(1), ints(rank - 1))


def _below(x: Any, limit: int) -> Any:
    return op.less(x, number(limit))


def _times(x: Any, factor: int) -> Any:
    return op.multiply(x, number(factor))


def _within(index: Any, count: int) -> Any:
    """Not outside of a table: what is no UTF-8 finds the wrong row, not none."""
    return op.minimum(op.maximum(index, number(0)), number(count - 1))


def _by_lead(first: Any, one: Any, two: Any, three: Any, four: Any) -> Any:
    """The value for the number of bytes that a character's first one announces."""
    return op.select(
        _below(first, 0x80), one, op.select(_below(first, 0xE0), two, op.select(_below(first, 0xF0), three, four))
    )
