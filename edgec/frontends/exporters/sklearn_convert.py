"""A fitted estimator as ONNX by skl2onnx: columns by number, exact thresholds, outputs named for what they are.

1. Columns that are chosen by name, mask or slice are chosen by number: the model has one input of all features.
2. A threshold that float32 cannot hold becomes the next smaller number that it can: x ≤ t is decided as before for
   every float32 x.
3. Outputs: `label` with `probabilities` or `scores`; `prediction`; `transformed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import skl2onnx
import sklearn
from refusal import SourceError, essence
from skl2onnx.common import _container, _topology, tree_ensemble
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from sklearn.base import BaseEstimator, is_classifier, is_clusterer, is_outlier_detector, is_regressor

OPSETS = {"": 21, "ai.onnx.ml": 3}
_INPUT_TYPES = {"float32": FloatTensorType, "int64": Int64TensorType}


def convert(estimator: Any, inputs: dict[str, list[int]], dtypes: dict[str, str]) -> dict[str, Any]:
    """`model`, `input`, `features` (names, or none), `versions`. Raises `SourceError`."""
    if not isinstance(estimator, BaseEstimator):
        raise SourceError(
            "source/no-estimator",
            f"the file holds {_kind(estimator)}, no scikit-learn estimator",
            "save the fitted estimator or pipeline itself, not what it stands in",
        )
    width = _width(estimator, inputs)
    for part in parts(estimator):
        _numbers_only(part)
        _columns_by_number(part)
    (name, type_) = _input(inputs, dtypes)
    _patch_skl2onnx()
    model = _converted(estimator, name, type_([None, width]))
    _tidy_outputs(model, estimator)
    names = [str(n) for n in getattr(estimator, "feature_names_in_", ())]
    versions = {"scikit-learn": sklearn.__version__, "skl2onnx": skl2onnx.__version__}
    return {"model": model, "input": name, "features": names, "versions": versions}


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


def _input(inputs: dict[str, list[int]], dtypes: dict[str, str]) -> tuple[str, Any]:
    name = next(iter(inputs), None) or next(iter(dtypes), None) or "input"
    dtype = dtypes.get(name, "float32")
    if dtype not in _INPUT_TYPES:
        raise SourceError(
            "source/input-type", f"a scikit-learn model cannot take {dtype}", f"take {' or '.join(_INPUT_TYPES)}"
        )
    return name, _INPUT_TYPES[dtype]


def _numbers_only(part: Any) -> None:
    for categories in getattr(part, "categories_", None) or ():
        if np.asarray(categories).dtype.kind in "OUS":
            raise SourceError(
                "source/input-type",
                f"the {type(part).__name__} takes text ({', '.join(map(repr, list(categories)[:3]))} …), "
                "and edge runtimes take numbers only",
                "number the categories before the pipeline (pandas: .cat.codes), and fit it on the numbers",
            )


def _columns_by_number(part: Any) -> None:
    """Rule 1."""
    if type(part).__name__ == "VotingClassifier":
        part.flatten_transform = False  # matters to `transform` alone, and skl2onnx takes no other
    if type(part).__name__ != "ColumnTransformer" or not hasattr(part, "transformers_"):
        return
    names = {name: i for i, name in enumerate(getattr(part, "feature_names_in_", ()))}
    numbered = np.arange(part.n_features_in_)

    def number(columns: Any) -> list[int]:
        if isinstance(columns, slice) and not isinstance(columns.start or columns.stop, str):
            return [int(i) for i in numbered[columns]]
        if isinstance(columns, slice):
            first = 0 if columns.start is None else names[columns.start]
            last = len(numbered) - 1 if columns.stop is None else names[columns.stop]
            return list(range(first, last + 1, columns.step or 1))
        listed = [columns] if isinstance(columns, (str, int, np.integer)) else list(columns)
        if listed and all(isinstance(c, (bool, np.bool_)) for c in listed):
            return [int(i) for i in numbered[np.asarray(listed)]]
        return [names[c] if isinstance(c, str) else int(numbered[c]) for c in listed]

    part.transformers_ = [(name, inner, number(columns)) for name, inner, columns in part.transformers_]


def _converted(estimator: Any, name: str, type_: Any) -> onnx.ModelProto:
    asked: dict[str, Any] = {"initial_types": [(name, type_)], "target_opset": OPSETS}
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
    """Rule 2, and attributes that onnx takes: booleans among numbers it refuses."""
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
