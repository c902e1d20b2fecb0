"""A fitted estimator as ONNX by skl2onnx: columns by number, exact thresholds, outputs named for what they are.

1. The model has one input of all features, or one of numbers and one of texts (see sklearn_columns).
2. A threshold that float32 cannot hold becomes the next smaller number that it can: x ≤ t is decided as before for
   every float32 x.
3. Outputs: `label` with `probabilities` or `scores`; `prediction`; `transformed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import skl2onnx
import sklearn
from refusal import SourceError, essence
from skl2onnx import _parse
from skl2onnx.common import _container, _topology, tree_ensemble
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.base import BaseEstimator, is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn_columns import answer_always, number_columns, order_columns
from sklearn_groups import register as register_groups

OPSETS = {"": 21, "ai.onnx.ml": 3}
_INPUT_TYPES = {"float32": FloatTensorType, "int64": Int64TensorType}
#: The input of texts beside one of numbers.
_TEXT = "text"

#: Name, type and columns of an input.
Column = tuple[str, Any, list[int]]


def convert(estimator: Any, inputs: dict[str, list[int]], dtypes: dict[str, str]) -> dict[str, Any]:
    """`model`, `inputs` (name → columns), `features` (their names, or none), `findings`, `versions`.

    The estimator is changed: it takes its columns as the model's inputs have them, one after the other.
    Raises `SourceError`.
    """
    if not isinstance(estimator, BaseEstimator):
        raise SourceError(
            "source/no-estimator",
            f"the file holds {_kind(estimator)}, no scikit-learn estimator",
            "save the fitted estimator or pipeline itself, not what it stands in",
        )
    inside = list(parts(estimator))
    for part in inside:
        _tidy(part)
    width = _width(estimator, inputs)
    numbers, texts = order_columns(estimator, width)
    findings = answer_always(inside)
    columns = _inputs(numbers, texts, inputs, dtypes)
    _patch_skl2onnx()
    with _halved(inside):
        model = _converted(estimator, [(name, type_([None, len(where)])) for name, type_, where in columns])
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "rows"  # as many of each
    _tidy_outputs(model, estimator)
    return {
        "model": model,
        "inputs": {name: where for name, _, where in columns},
        "features": _features(estimator, columns),
        "findings": findings,
        "versions": {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__},
    }


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and all fitted estimators inside of it, each once."""
    seen: set[int] = set()
    stack = [estimator]
    while stack:
        item = stack.pop()
        if id(item) in seen or isinstance(item, (str, bytes, np.ndarray, np.random.RandomState)):
            continue
        seen.add(id(item))
        if isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, (list, tuple)):
            stack += item
        elif isinstance(item, np.ndarray) and item.dtype == object:
            stack += item.ravel().tolist()
        elif isinstance(item, BaseEstimator):
            yield item
            stack += vars(item).values()


def _kind(thing: Any) -> str:
    name = type(thing).__name__
    return f"a {name} of {len(thing)}" if isinstance(thing, (dict, list, tuple)) else f"a {name}"


def _width(estimator: Any, inputs: dict[str, list[int]]) -> int:
    known = getattr(estimator, "n_features_in_", None)
    given = next(iter(inputs.values()), None)
    if known is None and given:
        known = given[-1]
    if known is not None:
        return int(known)
    fitted = any(name.endswith("_") and not name.startswith("_") for name in vars(estimator))
    raise SourceError(
        "source/not-fitted" if not fitted else "source/free-dimension",
        f"the {type(estimator).__name__} is not fitted"
        if not fitted
        else f"the {type(estimator).__name__} does not say how many features it takes",
        "call fit before saving it" if not fitted else "say it with --input input:1x8",
    )


def _inputs(numbers: list[int], texts: list[int], inputs: dict[str, list[int]], dtypes: dict[str, str]) -> list[Column]:
    """Name, type and columns of each input: the user's name, else `input`; `text` for texts beside numbers."""
    if not numbers:
        return [(next(iter(inputs), "input"), StringTensorType, texts)]
    name = next((n for n in (*inputs, *dtypes) if n != _TEXT), "input")
    dtype = dtypes.get(name, "float32")
    if dtype not in _INPUT_TYPES:
        raise SourceError(
            "source/input-type", f"a scikit-learn model cannot take {dtype}", f"take {' or '.join(_INPUT_TYPES)}"
        )
    first = (name, _INPUT_TYPES[dtype], numbers)
    return [first, (_TEXT, StringTensorType, texts)] if texts else [first]


def _features(estimator: Any, columns: list[Column]) -> list[str] | dict[str, list[str]]:
    """The features' names; by input where there are two, and then their old numbers where they have no names."""
    names = [str(n) for n in getattr(estimator, "feature_names_in_", ())]
    if len(columns) == 1:
        return names
    return {name: [names[c] if names else str(c) for c in where] for name, _, where in columns}


def _tidy(part: Any) -> None:
    if hasattr(part, "vocabulary_"):
        raise SourceError(
            "source/input-type",
            f"the {type(part).__name__} makes numbers of words, which no edge runtime does",
            "do it in the application, and save the pipeline without that step",
        )
    if type(part).__name__ == "VotingClassifier":
        part.flatten_transform = False  # matters to `transform` alone, and skl2onnx takes no other
    if type(part).__name__ == "ColumnTransformer" and hasattr(part, "transformers_"):
        number_columns(part)


@contextmanager
def _halved(inside: list[Any]) -> Iterator[None]:
    """Linear discriminants of two classes with half their coefficients, for as long as they are converted.

    skl2onnx takes e^d / (e^d + e^−d), which is 1 / (1 + e^−2d), for the probability; it is 1 / (1 + e^−d).
    """
    found = [part for part in inside if type(part).__name__ == "LinearDiscriminantAnalysis"]
    kept = [(part, part.coef_, part.intercept_) for part in found if len(getattr(part, "classes_", ())) == 2]
    for part, weights, bias in kept:
        part.coef_, part.intercept_ = weights / 2, bias / 2
    try:
        yield
    finally:
        for part, weights, bias in kept:
            part.coef_, part.intercept_ = weights, bias


def _converted(estimator: Any, inputs: list[tuple[str, Any]]) -> onnx.ModelProto:
    asked: dict[str, Any] = {"initial_types": inputs, "target_opset": OPSETS}
    try:
        if is_classifier(estimator):
            asked["options"] = {id(estimator): {"zipmap": False}}
        model: onnx.ModelProto = skl2onnx.to_onnx(estimator, **asked)
        return model
    except Exception as error:
        missing = type(error).__name__.startswith("Missing")
        raise SourceError(
            "source/unsupported",
            f"skl2onnx has no conversion for {_blamed(estimator, error)}"
            if missing
            else f"skl2onnx cannot convert this {type(estimator).__name__}: {essence(error)}",
            "replace that step by one that skl2onnx knows (docs/sources.md lists what is tested)",
        ) from error


def _blamed(estimator: Any, error: Exception) -> str:
    text = str(error)
    named = [type(p).__name__ for p in parts(estimator) if f"{type(p).__name__}'" in text]
    return named[0] if named else type(estimator).__name__


def _patch_skl2onnx() -> None:
    """Rule 2, attributes that onnx takes (booleans among numbers it refuses), and all columns in another order."""
    if getattr(tree_ensemble.add_node, "edgec", False):
        return
    add_node = tree_ensemble.add_node

    def exact(attr_pairs: Any, is_classifier: Any, *args: Any, **more: Any) -> Any:
        more["adjust_threshold_for_sklearn"] = False
        before = len(attr_pairs["nodes_values"])
        result = add_node(attr_pairs, is_classifier, *args, **more)
        for i in range(before, len(attr_pairs["nodes_values"])):
            attr_pairs["nodes_values"][i] = _below(attr_pairs["nodes_values"][i])
        return result

    exact.edgec = True  # type: ignore[attr-defined]  # marks that it is done
    register_groups()
    tree_ensemble.add_node = exact
    container = _container.ModelComponentContainer
    plain = container.add_node

    def add(self: Any, op_type: Any, inputs: Any, outputs: Any, *args: Any, **attrs: Any) -> Any:
        for key, value in attrs.items():
            if isinstance(value, (list, tuple)) and any(isinstance(v, (bool, np.bool_)) for v in value):
                attrs[key] = [int(v) for v in value]
            elif isinstance(value, np.ndarray) and value.dtype == bool and value.ndim == 1:
                attrs[key] = value.astype(np.int64).tolist()
        return plain(self, op_type, inputs, outputs, *args, **attrs)

    container.add_node = add
    build_options = _topology._build_options

    def known_options(model: Any, defined: Any, default: Any, allowed: Any, fail: Any) -> Any:
        # A pipeline hands `zipmap` on to its last step, also to one that has no such option.
        if defined and allowed not in (None, "passthrough") and "zipmap" not in allowed:
            defined = {key: {k: v for k, v in given.items() if k != "zipmap"} for key, given in defined.items()}
        return build_options(model, defined, default, allowed, fail)

    _topology._build_options = _container._build_options = known_options
    fetch = _parse._fetch_input_slice

    def in_order(scope: Any, inputs: Any, chosen: Any) -> Any:
        # As many columns as there are, it takes for all of them as they stand.
        kind, known = inputs[0].type, inputs[0].type.shape
        if list(chosen) == list(range(len(chosen))):
            return fetch(scope, inputs, chosen)
        kind.shape = [*known[:1], None]
        try:
            return fetch(scope, inputs, chosen)
        finally:
            kind.shape = known

    _parse._fetch_input_slice = in_order


def _below(value: Any) -> Any:
    """The largest float32 that is not above the value."""
    near = np.float32(value)
    return np.nextafter(near, np.float32(-np.inf)) if float(near) > float(value) else near


def _tidy_outputs(model: onnx.ModelProto, estimator: Any) -> None:
    """Rule 3; lists of outputs become outputs."""
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    wanted = _names(estimator)
    plain: list[tuple[str, str]] = []
    for i, value in enumerate(graph.output):
        name = wanted[i] if i < len(wanted) else value.name
        maker = makers.get(value.name)
        if maker is not None and maker.op_type == "SequenceConstruct":
            plain += [(inner, f"{name}_{k}") for k, inner in enumerate(maker.input)]
            graph.node.remove(maker)
        else:
            plain.append((value.name, name))
    if _is_plain_svc(estimator) and len(plain) == 2:
        # libsvm's decision is for the first of two classes, scikit-learn's for the second
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([1, 0]), "edgec_swap"))
        graph.node.append(onnx.helper.make_node("Gather", [plain[1][0], "edgec_swap"], ["edgec_scores"], axis=1))
        plain[1] = ("edgec_scores", plain[1][1])
    types = {v.name: v for v in (*graph.output, *graph.value_info)}
    made = []
    for old, new in plain:
        known = types.get(old)
        value = onnx.ValueInfoProto()
        if known is not None and known.type.HasField("tensor_type"):
            value.CopyFrom(known)
        else:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        value.name = new
        made.append(value)
    _rename(graph, dict(plain))
    del graph.output[:]
    graph.output.extend(made)


def _is_plain_svc(estimator: Any) -> bool:
    """Whether the last word has a support vector machine for two classes without probabilities."""
    last = estimator
    while hasattr(last, "steps") or hasattr(last, "best_estimator_"):
        last = last.steps[-1][1] if hasattr(last, "steps") else last.best_estimator_
    name = type(last).__name__
    return name in ("SVC", "NuSVC") and len(last.classes_) == 2 and not hasattr(last, "predict_proba")


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Every use of a value under its new name; a value that has that name already steps aside."""
    taken = set(names.values()) - set(names)
    full = {**{name: f"{name}__inner" for name in taken}, **names}
    for node in graph.node:
        for field in (node.input, node.output):
            for i, name in enumerate(field):
                field[i] = full.get(name, name)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)
    for value in (*graph.initializer, *graph.value_info):
        value.name = full.get(value.name, value.name)


def _names(estimator: Any) -> list[str]:
    if is_classifier(estimator):
        return ["label", "probabilities" if hasattr(estimator, "predict_proba") else "scores"]
    if is_outlier_detector(estimator):
        return ["label", "scores"]
    if is_regressor(estimator):
        return ["prediction"]
    return ["label", "scores"] if is_clusterer(estimator) else ["transformed"]
