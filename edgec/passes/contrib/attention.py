"""ONNX Runtime's attention operators as products and a Softmax.

Definitions: onnxruntime's ContribOperators.md. A node with a cache of past keys and values stays as it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.model import attr, optional_input, static_shape
from edgec.tensors import Array

_INT32, _FLOAT = int(ir.DataType.INT32), int(ir.DataType.FLOAT)


def _heads(b: Builder, x: ir.Value | None, count: int) -> ir.Value:
    """[batch, length, heads · size] → [batch, heads, length, size]"""
    return b("Transpose", b("Reshape", x, b.ints(0, 0, count, -1)), perm=[0, 2, 1, 3])


def _padding(b: Builder, mask: ir.Value, length: int | None, filler: float) -> ir.Value | None:
    """What is added to the scores, [batch, 1, 1 or length, keys], of a mask with 1 where a key counts."""
    rank = len(mask.shape) if mask.shape is not None else 0
    if rank == 1:  # how many keys count
        batch = (static_shape(mask) or (0,))[0]
        if length is None or batch == 0:
            return None
        places = np.arange(length, dtype=np.int32)[None]
        kept = b("Cast", b("Less", places, b("Reshape", b("Cast", mask, to=_INT32), b.ints(-1, 1))), to=_FLOAT)
    elif rank in (2, 3):
        kept = b("Cast", mask, to=_FLOAT)
    else:
        return None
    axes = b.ints(1, 2) if rank < 3 else b.ints(1)
    masked = b("Sub", np.asarray(1, np.float32), b("Unsqueeze", kept, axes))
    return b("Mul", masked, np.asarray(filler, np.float32))


def _causal(queries: int | None, keys: int | None, filler: float) -> Array | None:
    if queries is None or keys is None:
        return None
    seen = np.tril(np.ones((queries, keys), bool), keys - queries)
    return np.where(seen, 0, filler).astype(np.float32)[None, None]


def _length(value: ir.Value | None, axis: int) -> int | None:
    shape = static_shape(value)
    return None if shape is None else shape[axis]


def _attend(
    b: Builder,
    node: ir.Node,
    parts: tuple[ir.Value, ir.Value, ir.Value],
    lengths: tuple[int | None, int | None],
    mask: ir.Value | None,
    bias: ir.Value | None,
    size: int | None,
) -> tuple[ir.Value, ...] | None:
    """Softmax(q · kᵀ · scale + masks) · v, with the heads side by side again."""
    query, key, value = parts
    scale = float(attr(node, "scale", 0.0) or 0.0)
    if scale == 0.0:
        if size is None:
            return None
        scale = 1 / float(np.sqrt(size))
    filler = float(attr(node, "mask_filter_value", -10000.0))
    scores = b("MatMul", b("Mul", query, scale), b("Transpose", key, perm=[0, 1, 3, 2]))
    if mask is not None:
        padding = _padding(b, mask, lengths[1], filler)
        if padding is None:
            return None
        scores = b("Add", scores, padding)
    if attr(node, "unidirectional", 0):
        causal = _causal(*lengths, float(np.finfo(np.float32).min))
        if causal is None:
            return None
        scores = b("Add", scores, causal)
    if bias is not None:
        scores = b("Add", scores, bias)
    mixed = b("MatMul", b("Softmax", scores, axis=-1), value)
    return (b("Reshape", b("Transpose", mixed, perm=[0, 2, 1, 3]), b.ints(0, 0, -1)),)


def attention(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """Self-attention with one product for queries, keys and values."""
    x, weights, bias, mask, past, extra = (optional_input(node, i) for i in range(6))
    if past is not None or attr(node, "do_rotary", 0) or attr(node, "past_present_share_buffer", 0):
        return None
    width = _length(weights, 1)
    if x is None or width is None:
        return None
    product = b("MatMul", x, weights)
    return _packed(node, b, product, bias, x, (mask, extra), width)


def _packed(
    node: ir.Node,
    b: Builder,
    product: ir.Value,
    bias: ir.Value | None,
    x: ir.Value,
    masks: tuple[ir.Value | None, ir.Value | None],
    width: int,
) -> tuple[ir.Value, ...] | None:
    heads = int(attr(node, "num_heads", 0))
    sizes = [int(s) for s in attr(node, "qkv_hidden_sizes", ())] or [width // 3] * 3
    if sum(sizes) != width or not heads:
        return None
    if bias is not None:
        product = b("Add", product, bias)
    ends = np.cumsum([0, *sizes])
    cut = [
        b("Slice", product, b.ints(int(ends[i])), b.ints(int(ends[i + 1])), b.ints(2)) for i in range(3)
    ]  # three Slices read better to the passes than a Split with three sizes
    parts = (_heads(b, cut[0], heads), _heads(b, cut[1], heads), _heads(b, cut[2], heads))
    length = _length(x, 1)
    return _attend(b, node, parts, (length, length), *masks, sizes[0] // heads)


def multi_head_attention(node: ir.Node, b: Builder) -> tuple[ir.Value, ...] | None:
    """Attention over separate queries, keys and values, [batch, length, heads · size]."""
    query, key, value, bias, mask, extra, past_key, past_value = (optional_input(node, i) for i in range(8))
    heads = int(attr(node, "num_heads", 0))
    width, inner = _length(query, -1), static_shape(key)
    if past_key is not None or past_value is not None or width is None or inner is None or value is None or not heads:
        return None
    if query is None or query.shape is None or len(query.shape) != 3:
        return None
    if bias is not None:
        deep = _length(value, -1) if len(inner) == 3 else None
        if deep is None:
            return None
        ends = np.cumsum([0, width, inner[-1], deep])
        pieces = [b("Slice", bias, b.ints(int(ends[i])), b.ints(int(ends[i + 1])), b.ints(0)) for i in range(3)]
        query, key, value = (b("Add", x, piece) for x, piece in zip((query, key, value), pieces, strict=True))
    ready = len(inner) == 4  # keys and values are by heads already
    parts = (
        _heads(b, query, heads),
        key if ready else _heads(b, key, heads),
        value if ready else _heads(b, value, heads),
    )
    assert parts[1] is not None and parts[2] is not None
    return _attend(b, node, parts, (_length(node.inputs[0], 1), inner[-2]), mask, extra, width // heads)  # type: ignore[arg-type]


ATTENTION = {"Attention": attention, "MultiHeadAttention": multi_head_attention}
