"""ai.onnx.ml's feature operators as tensor operators: scalers, encoders, imputers, columns picked by number.

Text is compared with the texts that a table lists, where a backend can; rules say False to any other use of it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.passes.decompose.ml_common import FLOAT, INT64, f32, features, text
from edgec.tensors import Array

#: Comparisons of all elements with all keys, at once.
_MOST_COMPARED = 2**24


def _float(b: Builder, x: ir.Value) -> ir.Value:
    return x if x.dtype == ir.DataType.FLOAT else b("Cast", x, to=FLOAT)


def _numeric(x: ir.Value | None) -> bool:
    return x is not None and x.dtype is not None and x.dtype != ir.DataType.STRING


def scaler(node: ir.Node, editor: Editor) -> bool:
    """(x − offset) · scale"""
    x, b = node.inputs[0], Builder(editor, node)
    if x is None or not _numeric(x):
        return False
    offset, scale = f32(attr(node, "offset") or (0.0,)), f32(attr(node, "scale") or (1.0,))
    b.done(b("Mul", b("Sub", _float(b, x), offset), scale))
    return True


def normalizer(node: ir.Node, editor: Editor) -> bool:
    """Each row by its largest element, sum of magnitudes, or length; rows of zeros stay."""
    x, b = node.inputs[0], Builder(editor, node)
    if x is None or x.dtype == ir.DataType.STRING:
        return False
    value, norm, axes = _float(b, x), text(node, "norm", "MAX"), b.ints(-1)
    if norm == "MAX":
        size = b("ReduceMax", value, axes, keepdims=1)
    elif norm == "L1":
        size = b("ReduceSum", b("Abs", value), axes, keepdims=1)
    elif norm == "L2":
        size = b("Sqrt", b("ReduceSum", b("Mul", value, value), axes, keepdims=1))
    else:
        return False
    empty = b("Equal", size, f32(0.0))
    b.done(b("Div", value, b("Where", empty, f32(1.0), size)))
    return True


def binarizer(node: ir.Node, editor: Editor) -> bool:
    """1 above the threshold, else 0."""
    x, b = node.inputs[0], Builder(editor, node)
    if x is None or x.dtype is None or not _numeric(x):
        return False
    above = b("Greater", _float(b, x), f32(attr(node, "threshold", 0.0)))
    b.done(b("Cast", above, to=int(x.dtype)))
    return True


def imputer(node: ir.Node, editor: Editor) -> bool:
    """Missing values replaced, each column's by its own value."""
    x, b = node.inputs[0], Builder(editor, node)
    if x is None or x.dtype is None or not _numeric(x):
        return False
    if not x.dtype.is_floating_point():
        values = np.asarray(attr(node, "imputed_value_int64s"), x.dtype.numpy())
        missing = b("Equal", x, np.asarray(attr(node, "replaced_value_int64", 0), x.dtype.numpy()))
    else:
        mark, kind = attr(node, "replaced_value_float", 0.0), x.dtype.numpy()
        values = np.asarray(attr(node, "imputed_value_floats"), kind)
        missing = b("IsNaN", x) if np.isnan(mark) else b("Equal", x, np.asarray(mark, kind))
    b.done(b("Where", missing, values, x))
    return True


def feature_vectorizer(node: ir.Node, editor: Editor) -> bool:
    """Inputs side by side."""
    b = Builder(editor, node)
    parts = [features(b, value) for value in node.inputs]
    known = [part for part in parts if part is not None]
    widths = attr(node, "inputdimensions")
    if len(known) < len(parts) or (widths is not None and tuple(widths) != tuple(p[2] for p in known)):
        return False
    joined = known[0][0] if len(known) == 1 else b("Concat", *(p[0] for p in known), axis=1)
    b.done(joined if b.nodes else b("Identity", joined))
    return True


def array_feature_extractor(node: ir.Node, editor: Editor) -> bool:
    """Columns by number: along the last axis; of a vector as one row."""
    x, index, shape = node.inputs[0], node.inputs[1], static_shape(node.inputs[0])
    if x is None or index is None or not shape:
        return False
    b = Builder(editor, node)
    table = b("Reshape", x, b.ints(1, shape[0])) if len(shape) == 1 else x
    known = const_of(index)
    flat = known.reshape(-1).astype(np.int64) if known is not None else b("Reshape", index, b.ints(-1))
    b.done(b("Gather", table, flat, axis=max(1, len(shape) - 1)))
    return True


def label_encoder(node: ir.Node, editor: Editor) -> bool:
    """Each value by its partner in the table: by its place where keys are 0, 1, 2 …, else compared with all keys."""
    x, table = node.inputs[0], _mapping(node)
    if x is None or x.dtype is None or table is None or _numeric(x) == (table[0].dtype.kind == "O"):
        return False
    keys, values, default = table
    b = Builder(editor, node)
    if np.array_equal(keys, np.arange(len(keys))) and keys.dtype == np.int64 and len(keys) > 2:
        inside = b("And", b("GreaterOrEqual", x, keys[:1]), b("LessOrEqual", x, keys[-1:]))
        found = b("Gather", values, b("Where", inside, x, np.zeros(1, np.int64)))
        b.done(b("Where", inside, found, default.reshape(1)))
        return True
    shape = static_shape(x)
    if shape is None or not len(keys) or len(keys) * max(1, math.prod(shape)) > _MOST_COMPARED:
        return False
    wide = b("Reshape", x, b.ints(*shape, 1))
    hits = b("Equal", wide, keys)
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        hits = b("Or", hits, b("And", b("IsNaN", wide), np.isnan(keys)))
    marks = b("Cast", hits, to=FLOAT)
    place = b("ArgMax", marks, axis=-1, keepdims=0)  # the first of equal keys counts
    known = b("Greater", b("ReduceMax", marks, b.ints(-1), keepdims=0), f32(0.0))
    b.done(b("Where", known, b("Gather", values, place), default))
    return True


def _mapping(node: ir.Node) -> tuple[Array, Array, Array] | None:
    """Keys (objects where they are text), values and the default; None where the values are text."""
    kinds = {"int64s": np.int64, "floats": np.float32, "strings": object}
    sides: list[Array] = []
    for side in ("keys", "values"):
        tensor = attr(node, f"{side}_tensor")
        name = next((k for k in kinds if attr(node, f"{side}_{k}") is not None), None)
        if tensor is not None:
            sides.append(_plain(np.asarray(tensor).reshape(-1)))
        elif name is not None:
            sides.append(np.asarray(attr(node, f"{side}_{name}"), kinds[name]))
        else:
            return None
    keys, values = sides
    if values.dtype.kind == "O":
        return None
    default = attr(node, "default_tensor")
    if default is None:
        default = attr(node, "default_float", -0.0) if values.dtype.kind == "f" else attr(node, "default_int64", -1)
    return keys, values, np.asarray(default, values.dtype).reshape(())


def _plain(array: Array) -> Array:
    """Text as objects."""
    if array.dtype.kind not in "OUST":
        return array
    return np.asarray([t.decode() if isinstance(t, bytes) else str(t) for t in array], object)


def one_hot_encoder(node: ir.Node, editor: Editor) -> bool:
    """1 at the category's place; unknown categories are all 0, where the node allows them."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or x.dtype is None or shape is None or not attr(node, "zeros", 1):
        return False
    numbers, texts = attr(node, "cats_int64s"), attr(node, "cats_strings")
    categories = np.asarray(numbers, np.int64) if _numeric(x) else np.asarray(texts, object)
    if not (numbers if _numeric(x) else texts):
        return False
    b = Builder(editor, node)
    plain = not _numeric(x) or x.dtype == ir.DataType.INT64
    wide = b("Reshape", x if plain else b("Cast", x, to=INT64), b.ints(*shape, 1))  # categories are whole numbers
    b.done(b("Cast", b("Equal", wide, categories), to=FLOAT))
    return True
