"""Operators on strings, which OpenVINO's importer lacks or computes wrongly, in terms of their bytes.

1. A rule for Equal stands in for the importer's own, so rules are given to models that hold strings, and to no others.
2. StringNormalizer drops stop words first and changes case then; where nothing is left, an empty string is.
3. What a language writes in a way of its own (Turkish i) is refused, by `why_wrong`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import openvino.opset15 as op
from openvino.frontend.onnx import ConversionExtension

from edgec.backends.openvino.text import Text, ints, longest, matches, matrix, number, of_matrix, pack, unpack
from edgec.backends.openvino.text_case import change_case, mapped
from edgec.graph.edit import all_values
from edgec.graph.model import Model

_STRING = "string"


def _equal(node: Any) -> list[Any]:
    """Rows of bytes compared."""
    a, b = node.get_input(0), node.get_input(1)
    if a.get_element_type().get_type_name() != _STRING:
        return [op.equal(a, b).output(0)]
    left, right = unpack(a), unpack(b)
    width = longest(left, right)
    same = op.equal(matrix(left, width)[0], matrix(right, width)[0])
    return [op.reduce_logical_and(same, ints(-1)).output(0)]


def _concatenated(node: Any) -> list[Any]:
    """Rows of bytes side by side."""
    texts = [unpack(node.get_input(i)) for i in (0, 1)]
    sides = [matrix(text, longest(text)) for text in texts]
    nothing = op.add(*(op.multiply(op.unsqueeze(text.begins, ints(-1)), number(0)) for text in texts))
    rows = op.concat([op.add(bytes_, nothing) for bytes_, _ in sides], -1)
    there = op.concat([op.add(op.convert(there, "i32"), nothing) for _, there in sides], -1)
    return [pack(of_matrix(rows, op.greater(there, number(0))))]


def _normalized(node: Any) -> list[Any]:
    """Rule 2."""
    x = node.get_input(0)
    text = unpack(x)
    stops = list(node.get_attribute("stopwords", []))
    action = node.get_attribute("case_change_action", "NONE")
    if stops:
        text = _without(
            text, stops, exact=bool(node.get_attribute("is_case_sensitive", 0)), rank=x.get_partial_shape().rank
        )
    if action != "NONE":
        text = change_case(text, upper=action == "UPPER")
    return [pack(text)]


def _without(text: Text, stops: list[str], *, exact: bool, rank: Any) -> Text:
    """Only the strings that are no stop words, or one empty string."""
    flat = Text(
        begins=op.reshape(text.begins, ints(-1), False), ends=op.reshape(text.ends, ints(-1), False), data=text.data
    )
    if exact:
        found = matches(flat, stops)
    else:
        found = matches(change_case(flat, upper=False), ["".join(mapped(c, upper=False) for c in s) for s in stops])
    dropped = op.reduce_logical_or(found, ints(-1))
    nothing_left = op.reduce_logical_and(dropped, ints(0), True)
    kept = op.concat([op.logical_not(dropped), nothing_left], 0)
    index = op.squeeze(op.non_zero(kept, "i32"), ints(0))
    shape = ints(*[1] * (rank.get_length() - 1), -1)
    begins, ends = (
        op.reshape(op.gather(op.concat([part, ints(0)], 0), index, number(0)), shape, False)
        for part in (flat.begins, flat.ends)
    )
    return Text(begins=begins, ends=ends, data=text.data)


_RULES: dict[str, Callable[[Any], list[Any]]] = {
    "Equal": _equal,
    "StringConcat": _concatenated,
    "StringNormalizer": _normalized,
}


def extensions(model: Model) -> list[Any]:
    """What the importer has to be told to read a model: rule 1."""
    if not any(value.dtype == ir.DataType.STRING for value in all_values(model.ir)):
        return []
    return [ConversionExtension(name, rule) for name, rule in _RULES.items()]
