"""Text as OpenVINO's kernels can work with it: all bytes in one list, and where each string begins and ends.

As a matrix, a row is a string's UTF-8 bytes and then NOTHING, a byte that UTF-8 never has: rows compare as strings do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino.opset15 as op

#: Behind a string's last byte.
NOTHING = 255


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A tensor of strings: int32 positions of the tensor's shape, and the uint8 bytes of all."""

    begins: Any
    ends: Any
    data: Any


def unpack(value: Any) -> Text:
    """The parts of a string tensor."""
    begins, ends, data = op.string_tensor_unpack(value).outputs()
    return Text(begins=begins, ends=ends, data=data)


def pack(text: Text) -> Any:
    """The string tensor of its parts."""
    return op.string_tensor_pack(text.begins, text.ends, text.data).output(0)


def ints(*values: int) -> Any:
    """A constant list of int32."""
    return op.constant(np.asarray(values, np.int32))


def number(value: int) -> Any:
    """A constant int32."""
    return op.constant(np.asarray(value, np.int32))


def lengths(text: Text) -> Any:
    """Bytes in each string, int32."""
    return op.subtract(text.ends, text.begins)


def longest(*texts: Text) -> Any:
    """Bytes of the longest string of all, at least 1: a scalar."""
    found = number(1)
    for text in texts:
        found = op.maximum(found, op.reduce_max(op.reshape(lengths(text), ints(-1), False), ints(0)))
    return found


def matrix(text: Text, width: Any) -> tuple[Any, Any]:
    """The first `width` bytes of each string along a new last axis, int32; and which of them are there."""
    steps = op.range(number(0), width, number(1), "i32")
    there = op.less(steps, op.unsqueeze(lengths(text), ints(-1)))
    data = op.concat([op.convert(text.data, "i32"), ints(NOTHING)], 0)
    last = op.subtract(op.squeeze(op.shape_of(data, "i32"), ints(0)), number(1))
    index = op.select(there, op.add(op.unsqueeze(text.begins, ints(-1)), steps), last)
    return op.gather(data, index, number(0)), there


def of_matrix(rows: Any, there: Any) -> Text:
    """The strings of those bytes of each row that are there."""
    flat = op.reshape(there, ints(-1), False)
    index = op.squeeze(op.non_zero(flat, "i32"), ints(0))
    data = op.gather(op.reshape(rows, ints(-1), False), index, number(0))
    counts = op.reduce_sum(op.convert(there, "i32"), ints(-1))
    ends = op.cum_sum(op.reshape(counts, ints(-1), False), number(0))
    ends = op.reshape(ends, op.shape_of(counts, "i32"), False)
    return Text(begins=op.subtract(ends, counts), ends=ends, data=op.convert(data, "u8"))


def constant_rows(strings: Sequence[str]) -> Any:
    """Known strings as a matrix, at least one NOTHING behind each: int32."""
    parts = [s.encode() for s in strings]
    rows = np.full((len(parts), max(map(len, parts), default=0) + 1), NOTHING, np.int32)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = list(part)
    return op.constant(rows)


def matches(text: Text, strings: Sequence[str]) -> Any:
    """Which of the known strings each one is: bool, with the known ones along a new last axis."""
    known = constant_rows(strings)
    rows, _ = matrix(text, number(int(known.shape[1])))
    return op.reduce_logical_and(op.equal(op.unsqueeze(rows, ints(-2)), known), ints(-1))
