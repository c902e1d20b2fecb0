"""One-hot encoders that put rare categories in one column, which skl2onnx refuses: a column each, then a product.

With a 1 for each category, y = 1·M + b: a row of M is what the encoder itself says of that category less what it says
of one that it does not know, and b what it says where it knows none. So groups, dropped columns and the answer to
unknown categories come out as scikit-learn has them, whatever their rules.
"""

from __future__ import annotations

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
from skl2onnx.common._registration import (
    get_converter,
    get_shape_calculator,
    register_converter,
    register_shape_calculator,
)
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType
from skl2onnx.proto import onnx_proto

_NAME = "SklearnOneHotEncoder"


def groups(part: Any) -> bool:
    """Whether rare categories share a column."""
    return any(group is not None for group in getattr(part, "infrequent_categories_", ()))


def register() -> None:
    """Have skl2onnx convert encoders with groups as well; others as before."""
    plain, plain_shapes = get_converter(_NAME), get_shape_calculator(_NAME)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        encoder = operator.raw_operator
        if not groups(encoder):
            plain(scope, operator, container)
            return
        factors, constant = _product(encoder)
        ones, scaled, result = (scope.get_unique_variable_name(n) for n in ("ones", "scaled", "grouped"))
        # The converter reads no more of an operator than this.
        plain(
            scope,
            SimpleNamespace(raw_operator=_ungrouped(encoder), inputs=operator.inputs, output_full_names=[ones]),
            container,
        )
        named = {name: scope.get_unique_variable_name(name) for name in ("factors", "constant")}
        for name, values in (("factors", factors), ("constant", constant)):
            container.add_initializer(named[name], onnx_proto.TensorProto.FLOAT, values.shape, values.ravel().tolist())
        whole = np.issubdtype(encoder.dtype, np.signedinteger)
        container.add_node("MatMul", [ones, named["factors"]], scaled, name=scope.get_unique_operator_name("MatMul"))
        target = result if whole else operator.output_full_names[0]
        container.add_node("Add", [scaled, named["constant"]], target, name=scope.get_unique_operator_name("Add"))
        if whole:
            name = scope.get_unique_operator_name("Cast")
            container.add_node(
                "Cast", [result], operator.output_full_names[0], name=name, to=onnx_proto.TensorProto.INT64
            )

    def shapes(operator: Any) -> None:
        encoder = operator.raw_operator
        if not groups(encoder):
            plain_shapes(operator)
            return
        kind = Int64TensorType if np.issubdtype(encoder.dtype, np.signedinteger) else FloatTensorType
        width = len(encoder.get_feature_names_out())
        operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), width])

    register_converter(_NAME, convert, overwrite=True, options=None)
    register_shape_calculator(_NAME, shapes, overwrite=True)


def _ungrouped(encoder: Any) -> Any:
    """The same categories with a column each, and none for what is unknown."""
    found = copy.copy(encoder)
    found._infrequent_enabled, found.drop_idx_, found.handle_unknown = False, None, "ignore"
    found.dtype = np.float64
    return found


def _product(encoder: Any) -> tuple[np.ndarray, np.ndarray]:
    """M and b."""
    unknown = [_other(known) for known in encoder.categories_]
    rows = [list(unknown)]
    for i, known in enumerate(encoder.categories_):
        rows += [[*unknown[:i], category, *unknown[i + 1 :]] for category in known.tolist()]
    table = np.empty((len(rows), len(unknown)), object)
    table[:] = rows
    if all(known.dtype.kind in "biuf" for known in encoder.categories_):
        table = table.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an encoder may warn of what it does not know: that is asked for here
        found = encoder.transform(table)
    found = np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float32)
    return found[1:] - found[0], found[0]


def _other(known: np.ndarray) -> Any:
    """A value that is none of the known."""
    if known.dtype.kind in "biuf":
        return float(known.max()) + 1
    return max((str(item) for item in known.tolist()), key=len) + "?"
