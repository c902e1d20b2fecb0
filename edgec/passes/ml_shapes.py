"""Types and shapes of what ai.onnx.ml's operators make, which ONNX's own inference leaves open."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.graph.model import attr, static_shape

Shape = tuple[int, ...]
Made = list[tuple[ir.DataType, Shape]]
_FLOAT, _INT64, _STRING = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.STRING


def infer_ml(node: ir.Node) -> None:
    """Complete the node's outputs where the input's shape tells."""
    rule, shape = _RULES.get(node.op_type), static_shape(node.inputs[0]) if node.inputs else None
    if rule is None or shape is None or not shape:
        return
    for output, (kind, dims) in zip(node.outputs, rule(node, shape), strict=False):
        if output.type is None:
            output.type = ir.TensorType(kind)
        if output.shape is None or not output.shape.is_static():
            output.shape = ir.Shape(dims)


def _rows(shape: Shape) -> int:
    return 1 if len(shape) == 1 else shape[0]


def _classes(node: ir.Node) -> tuple[ir.DataType, int]:
    texts = attr(node, "classlabels_strings")
    if texts:
        return _STRING, len(texts)
    return _INT64, len(attr(node, "classlabels_ints") or attr(node, "classlabels_int64s") or ())


def _classifier(node: ir.Node, shape: Shape) -> Made:
    kind, count = _classes(node)
    return [(kind, (_rows(shape),)), (_FLOAT, (_rows(shape), count))] if count else []


def _svm_classifier(node: ir.Node, shape: Shape) -> Made:
    """Scores are those of pairs, unless there are probabilities."""
    kind, count = _classes(node)
    if not count:
        return []
    of_pairs = count > 2 and not attr(node, "prob_a") and bool(attr(node, "vectors_per_class"))
    return [(kind, (_rows(shape),)), (_FLOAT, (_rows(shape), count * (count - 1) // 2 if of_pairs else count))]


def _regressor(name: str) -> Callable[[ir.Node, Shape], Made]:
    return lambda node, shape: [(_FLOAT, (_rows(shape), int(attr(node, name, 1))))]


def _kept(kind: ir.DataType | None) -> Callable[[ir.Node, Shape], Made]:
    """The input's shape, and its type unless there is another."""

    def rule(node: ir.Node, shape: Shape) -> Made:
        own = node.inputs[0].dtype if node.inputs[0] is not None else None
        found = kind or own
        return [(found, shape)] if found is not None else []

    return rule


def _encoded(node: ir.Node, shape: Shape) -> Made:
    for name, kind in (("values_int64s", _INT64), ("values_floats", _FLOAT), ("values_strings", _STRING)):
        if attr(node, name) is not None:
            return [(kind, shape)]
    return []


def _one_hot(node: ir.Node, shape: Shape) -> Made:
    count = len(attr(node, "cats_int64s") or attr(node, "cats_strings") or ())
    return [(_FLOAT, (*shape, count))] if count else []


def _joined(node: ir.Node, shape: Shape) -> Made:
    shapes = [static_shape(value) for value in node.inputs]
    known = [s for s in shapes if s]
    return [(_FLOAT, (_rows(shape), sum(s[-1] for s in known)))] if len(known) == len(shapes) else []


def _picked(node: ir.Node, shape: Shape) -> Made:
    index = static_shape(node.inputs[1])
    kind = node.inputs[0].dtype if node.inputs[0] is not None else None
    if index is None or kind is None:
        return []
    count = 1
    for size in index:
        count *= size
    return [(kind, (*(shape[:-1] or (1,)), count))]


_RULES: dict[str, Callable[[ir.Node, Shape], Made]] = {
    "ArrayFeatureExtractor": _picked,
    "Binarizer": _kept(None),
    "FeatureVectorizer": _joined,
    "Imputer": _kept(None),
    "LabelEncoder": _encoded,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor("targets"),
    "Normalizer": _kept(_FLOAT),
    "OneHotEncoder": _one_hot,
    "SVMClassifier": _svm_classifier,
    "SVMRegressor": lambda _, shape: [(_FLOAT, (_rows(shape), 1))],
    "Scaler": _kept(_FLOAT),
    "TreeEnsemble": _regressor("n_targets"),
    "TreeEnsembleClassifier": _classifier,
    "TreeEnsembleRegressor": _regressor("n_targets"),
}
