"""ai.onnx.ml: scalers, encoders and linear models, as tensor operators. Labels are numbers: TFLite has no strings.

Where ONNX's text leaves something open, ONNX Runtime's answer is the one that is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.backends.tflite.context import Context, Lowering, Refusal
from edgec.backends.tflite.ops.activation import softmax
from edgec.backends.tflite.ops.dtypes import FLOATS, convert
from edgec.backends.tflite.ops.elementwise import arithmetic, compare, select
from edgec.backends.tflite.ops.linear import fully_connected
from edgec.backends.tflite.ops.reduce import reduce
from edgec.backends.tflite.tir import Tensor, constant
from edgec.graph.model import attr
from edgec.tensors import Array, DType

DOMAIN = "ai.onnx.ml"


def floats(ctx: Context, t: Tensor) -> Tensor:
    """A numeric input as float32. int64 features are rounded to it, as ONNX's own results are floats."""
    if t.dtype == DType.STRING:
        raise Refusal("dtype", "strings have no TFLite kernels")
    return convert(ctx, t, DType.FLOAT32)


def matrix(ctx: Context, t: Tensor) -> Tensor:
    """[rows, features]; a vector is one row."""
    return ctx.reshape(t, (1, *t.shape)) if t.rank == 1 else t


def row(ctx: Context, values: Sequence[float] | Array) -> Tensor:
    """A constant float32 vector."""
    return ctx.constant(np.asarray(values, np.float32), DType.FLOAT32)


def post_transform(ctx: Context, scores: Tensor, name: str) -> Tensor:
    """What happens to scores at last."""
    if name == "NONE":
        return scores
    if name == "SOFTMAX":
        return softmax(ctx, scores, scores.rank - 1)
    if name == "LOGISTIC":
        return ctx.unary("LOGISTIC", scores)
    raise Refusal("post-transform", f"post_transform {name} has no TFLite form")


def text(node: ir.Node, name: str, default: str) -> str:
    """A string attribute."""
    value = attr(node, name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def labels(node: ir.Node, name: str) -> list[int]:
    """Numeric class labels. Raises Refusal where they are strings."""
    if attr(node, "classlabels_strings"):
        raise Refusal("dtype", "class labels are strings, which TFLite lacks", "export with integer labels")
    return [int(v) for v in attr(node, name) or ()]


def label_of(ctx: Context, scores: Tensor, names: Sequence[int]) -> Tensor:
    """The label of the largest score in each row."""
    place = ctx.emit("ARG_MAX", [scores, ctx.int32(1)], scores.shape[:1], DType.INT32, outputType=DType.INT32)
    table = ctx.constant(np.asarray(names, np.int64), DType.INT64)
    return ctx.emit("GATHER", [table, place], scores.shape[:1], DType.INT64, axis=0, batchDims=0)


# --- features -----------------------------------------------------------------------------------------


def _scaler(ctx: Context, node: ir.Node) -> Tensor:
    """(x − offset) · scale"""
    x = floats(ctx, ctx.tensor(node.inputs[0]))
    offset, scale = attr(node, "offset") or (0.0,), attr(node, "scale") or (1.0,)
    return arithmetic(ctx, "MUL", arithmetic(ctx, "SUB", x, row(ctx, offset)), row(ctx, scale))


def _normalizer(ctx: Context, node: ir.Node) -> Tensor:
    """Each row by its largest magnitude, sum of magnitudes, or length; rows of zeros stay."""
    x = floats(ctx, ctx.tensor(node.inputs[0]))
    norm, axis = text(node, "norm", "MAX"), [x.rank - 1]
    if norm == "MAX":
        size = reduce(ctx, "REDUCE_MAX", x, axis, keep=True)
    elif norm == "L1":
        size = reduce(ctx, "SUM", ctx.unary("ABS", x), axis, keep=True)
    else:
        size = ctx.unary("SQRT", reduce(ctx, "SUM", ctx.unary("SQUARE", x), axis, keep=True))
    empty = compare(ctx, "EQUAL", size, ctx.scalar(0.0, size))
    return arithmetic(ctx, "DIV", x, select(ctx, empty, ctx.scalar(1.0, size), size))


def _binarizer(ctx: Context, node: ir.Node) -> Tensor:
    """1 above the threshold, else 0."""
    x = ctx.tensor(node.inputs[0])
    threshold = ctx.scalar(attr(node, "threshold", 0.0), floats(ctx, x))
    return convert(ctx, compare(ctx, "GREATER", floats(ctx, x), threshold), x.dtype)


def _imputer(ctx: Context, node: ir.Node) -> Tensor:
    """Missing values replaced, each column's by its own value."""
    x = ctx.tensor(node.inputs[0])
    whole = x.dtype not in FLOATS
    if whole:
        values = ctx.constant(np.asarray(attr(node, "imputed_value_int64s"), np.int64), DType.INT64)
        missing = compare(ctx, "EQUAL", x, ctx.scalar(attr(node, "replaced_value_int64", 0), x))
        return select(ctx, missing, convert(ctx, values, x.dtype), x)
    mark = attr(node, "replaced_value_float", 0.0)
    value = floats(ctx, x)
    other = value if np.isnan(mark) else ctx.scalar(mark, value)
    kind = "NOT_EQUAL" if np.isnan(mark) else "EQUAL"
    missing = ctx.emit(kind, [value, other], value.shape, DType.BOOL)
    return convert(ctx, select(ctx, missing, row(ctx, attr(node, "imputed_value_floats")), value), x.dtype)


def _feature_vectorizer(ctx: Context, node: ir.Node) -> Tensor:
    """Inputs side by side."""
    parts = [matrix(ctx, floats(ctx, ctx.tensor(v))) for v in node.inputs]
    widths = attr(node, "inputdimensions")
    if widths is not None and any(p.shape[1] != w for p, w in zip(parts, widths, strict=False)):
        raise Refusal("shape", "FeatureVectorizer whose inputdimensions differ from its inputs")
    shape = (parts[0].shape[0], sum(p.shape[1] for p in parts))
    return ctx.emit("CONCATENATION", parts, shape, DType.FLOAT32, axis=1, fusedActivationFunction="NONE")


def _array_feature_extractor(ctx: Context, node: ir.Node) -> Tensor:
    """Columns by number."""
    x, index = (ctx.tensor(v) for v in node.inputs)
    if x.dtype == DType.STRING:
        raise Refusal("dtype", "strings have no TFLite kernels")
    index = ctx.cast(ctx.reshape(index, (index.size,)), DType.INT32)
    x = matrix(ctx, x)
    return ctx.emit("GATHER", [x, index], (*x.shape[:-1], index.size), x.dtype, axis=x.rank - 1, batchDims=0)


def _label_encoder(ctx: Context, node: ir.Node) -> Tensor:
    """Each value by its partner in the table: compared with every key."""
    x = ctx.tensor(node.inputs[0])
    keys, values, default = _mapping(node)
    if x.dtype == DType.STRING or keys.dtype.kind in "OUS" or values.dtype.kind in "OUS":
        raise Refusal("dtype", "LabelEncoder with strings has no TFLite form")
    dtype = DType.of(values)
    result = ctx.constant(np.full(x.shape, default, values.dtype), dtype)
    for key, value in zip(keys, values, strict=True):
        same = "NOT_EQUAL" if keys.dtype.kind == "f" and np.isnan(key) else "EQUAL"
        other = x if same == "NOT_EQUAL" else ctx.scalar(key, x)
        hit = compare(ctx, same, x, other)
        result = select(ctx, hit, ctx.constant(np.asarray(value), dtype), result)
    return result


def _mapping(node: ir.Node) -> tuple[Array, Array, Array]:
    kinds = {"int64s": np.int64, "floats": np.float32, "strings": object}
    sides: list[Array] = []
    for side in ("keys", "values"):
        tensor = attr(node, f"{side}_tensor")
        if tensor is not None:
            sides.append(np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor).reshape(-1))
            continue
        name = next((k for k in kinds if attr(node, f"{side}_{k}") is not None), None)
        if name is None:
            raise Refusal("attributes", "LabelEncoder of opset 1 maps strings, which TFLite lacks")
        sides.append(np.asarray(attr(node, f"{side}_{name}"), kinds[name]))
    tensor = attr(node, "default_tensor")
    if tensor is not None:
        return sides[0], sides[1], np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor).reshape(())
    default = attr(node, "default_float", -0.0) if sides[1].dtype.kind == "f" else attr(node, "default_int64", -1)
    return sides[0], sides[1], np.asarray(default)


def _one_hot(ctx: Context, node: ir.Node) -> Tensor:
    """1 at the category's place; unknown categories are all 0 where the node allows them."""
    x, categories = ctx.tensor(node.inputs[0]), attr(node, "cats_int64s")
    if not categories or x.dtype == DType.STRING:
        raise Refusal("dtype", "OneHotEncoder of strings has no TFLite form")
    if not attr(node, "zeros", 1):
        raise Refusal("zeros", "OneHotEncoder that fails on unknown categories cannot be kept", "set zeros to 1")
    wide = ctx.reshape(x, (*x.shape, 1))
    keys = convert(ctx, ctx.constant(np.asarray(categories, np.int64), DType.INT64), x.dtype)
    return ctx.cast(compare(ctx, "EQUAL", wide, keys), DType.FLOAT32)


# --- linear models ------------------------------------------------------------------------------------


def _scores(ctx: Context, node: ir.Node, count: int) -> Tensor:
    x = matrix(ctx, floats(ctx, ctx.tensor(node.inputs[0])))
    weights = np.asarray(attr(node, "coefficients"), np.float32).reshape(count, -1)
    offsets = np.asarray(attr(node, "intercepts") or np.zeros(count), np.float32)
    if weights.shape[1] != x.shape[1]:
        raise Refusal("shape", f"{node.op_type} has {weights.shape[1]} coefficients for {x.shape[1]} features")
    w, b = constant(ctx.name("coefficients"), weights), constant(ctx.name("intercepts"), offsets)
    return fully_connected(ctx, x, w, b)


def _linear_regressor(ctx: Context, node: ir.Node) -> Tensor:
    """x · wᵀ + b"""
    scores = _scores(ctx, node, attr(node, "targets", 1))
    return post_transform(ctx, scores, text(node, "post_transform", "NONE"))


def _linear_classifier(ctx: Context, node: ir.Node) -> list[Tensor]:
    """The label of the largest score, and the scores. One score for two classes is the second one's."""
    names = labels(node, "classlabels_ints")
    intercepts = attr(node, "intercepts")
    count = len(intercepts) if intercepts else len(names)
    scores = _scores(ctx, node, count)
    transform = text(node, "post_transform", "NONE")
    if count == 1 and len(names) == 2:
        negative = ctx.unary("NEG", scores)
        shape = (scores.shape[0], 2)
        pair = [negative, scores]
        scores = ctx.emit("CONCATENATION", pair, shape, DType.FLOAT32, axis=1, fusedActivationFunction="NONE")
    return [label_of(ctx, scores, names), post_transform(ctx, scores, transform)]


_OPERATORS: dict[str, Lowering] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot,
    "Scaler": _scaler,
}
LOWERINGS: dict[str, Lowering] = {f"{DOMAIN}.{name}": lowering for name, lowering in _OPERATORS.items()}
