"""What OpenVINO accepts and computes wrongly, or not at all: operator by operator, measured on ONNX's own node tests.

Each check says why a node of that kind would be computed wrongly; an empty answer means that it would not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgec.errors import Finding, Severity
from edgec.graph.model import Model, attr, const_of, label, origin, shape_of


def _antialias(node: ir.Node) -> str:
    return "antialiasing is ignored" if attr(node, "antialias", 0) else ""


def _exclude_outside(node: ir.Node) -> str:
    return "exclude_outside is ignored" if attr(node, "exclude_outside", 0) else ""


def _aspect_ratio(node: ir.Node) -> str:
    policy = attr(node, "keep_aspect_ratio_policy", "stretch")
    return "" if policy == "stretch" else f"keep_aspect_ratio_policy={policy} is ignored"


def _uneven_corners(node: ir.Node) -> str:
    """With align_corners ONNX spreads over input size × scale, OpenVINO over that rounded down."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if attr(node, "coordinate_transformation_mode", "half_pixel") != "align_corners" or given is None:
        return ""
    scales = const_of(given)
    if scales is None:
        return "align_corners with scales that are computed at run time"
    if not scales.size or node.inputs[0] is None or node.inputs[0].shape is None:
        return ""
    sizes = np.asarray(shape_of(node.inputs[0])) * scales.astype(np.float64)
    uneven = bool(np.any(np.abs(sizes - np.rint(sizes)) > 1e-6))
    return "align_corners with scales that do not divide the size" if uneven else ""


def _batchwise(node: ir.Node) -> str:
    return "layout=1 (batch first) is ignored" if attr(node, "layout", 0) else ""


def _peepholes(node: ir.Node) -> str:
    return "its peephole weights are ignored" if len(node.inputs) > 7 and node.inputs[7] is not None else ""


def _max_mode(node: ir.Node) -> str:
    return "mode=max takes the largest sample, not the largest weighted one" if attr(node, "mode") == "max" else ""


def _attention_window(node: ir.Node) -> str:
    sizes = [attr(node, key, -1) for key in ("left_window_size", "right_window_size", "local_window_size")]
    if any(size is not None and size >= 0 for size in sizes):
        return "the attention window is ignored"
    products = node.outputs[3] if len(node.outputs) > 3 else None
    read = products is not None and (products.is_graph_output() or bool(products.uses()))
    return "its fourth output lacks the causal mask" if read and attr(node, "is_causal", 0) else ""


def _repeats(node: ir.Node) -> str:
    return "" if const_of(node.inputs[1]) is not None else "repeats that are computed at run time"


def _sizes(node: ir.Node) -> str:
    known = all(const_of(v) is not None for v in node.inputs[1:3])
    return "" if known else "sizes that are computed at run time"


def _own_letters(node: ir.Node) -> str:
    language = str(attr(node, "locale", "") or "").replace("-", "_").partition("_")[0].lower()
    changes = attr(node, "case_change_action", "NONE") != "NONE" or not attr(node, "is_case_sensitive", 0)
    return f"letters of {language}" if changes and language in _OWN_LETTERS else ""


def _signed(node: ir.Node) -> str:
    kind = node.inputs[0].dtype if node.inputs[0] is not None else None
    if kind == ir.DataType.INT64 and attr(node, "direction") == "LEFT":
        return ""
    return "bits of signed numbers" if kind is not None and kind.is_signed() else ""


def _to_bfloat16(node: ir.Node) -> str:
    return "it keeps the digits that bfloat16 lacks" if attr(node, "to") == ir.DataType.BFLOAT16 else ""


def _among_products(node: ir.Node) -> str:
    """With one thread the plugin compiles products of matrices in a row, and what is between them, as one piece.

    It takes a Mish into it, for which it has no code, and refuses the whole model. Images and sequences are fine.
    """
    flat = node.inputs[0] is not None and node.inputs[0].shape is not None and len(node.inputs[0].shape) <= 2
    return "no code for it between products of matrices" if flat else ""


def _always(reason: str) -> Callable[[ir.Node], str]:
    return lambda _: reason


#: Languages in which the other case of a letter is not the one that Unicode gives to all the others.
_OWN_LETTERS = frozenset({"az", "lt", "tr"})
#: Operator and check.
WRONG: tuple[tuple[str, Callable[[ir.Node], str]], ...] = (
    ("BitShift", _signed),
    ("Cast", _to_bfloat16),
    ("Col2Im", _sizes),
    ("DFT", _always("its axis and onesided forms differ")),
    ("DynamicQuantizeLinear", _always("ties of its quotient are rounded the wrong way")),
    ("Resize", _antialias),
    ("Resize", _exclude_outside),
    ("Resize", _aspect_ratio),
    ("Resize", _uneven_corners),
    ("RNN", _batchwise),
    ("LSTM", _batchwise),
    ("GRU", _batchwise),
    ("LSTM", _peepholes),
    ("Mish", _among_products),
    ("RoiAlign", _max_mode),
    ("Attention", _attention_window),
    ("StringNormalizer", _own_letters),
    ("Tile", _repeats),
)


def wrong_nodes(model: Model) -> list[Finding]:
    """An error for each node that OpenVINO would compute wrongly."""
    return [
        Finding(
            code="backend/unsupported",
            message=f"OpenVINO would compute this {node.op_type} wrongly: {reason}",
            where=label(node),
            source=origin(node),
            hint="build with --backend tflite, or change the operator in the source model",
        )
        for node in model.nodes()
        for reason in why_wrong(node)
    ]


def why_wrong(node: ir.Node) -> list[str]:
    """What OpenVINO would do to the node; empty when it computes what ONNX says."""
    if node.domain not in ("", "ai.onnx"):
        return []
    return [reason for op, why in WRONG if node.op_type == op and (reason := why(node))]


#: Integers that the CPU plugin computes as int32, and operators that this matters to.
_NARROWED = {ir.DataType.INT64: "int64", ir.DataType.UINT64: "uint64", ir.DataType.UINT32: "uint32"}
_ARITHMETIC = frozenset({"Add", "CumSum", "Div", "Mod", "Mul", "Pow", "ReduceProd", "ReduceSum", "Sub", "Sum"})
#: Operators on int32 that it computes in float32.
_IN_FLOAT = frozenset({"Div", "Mod", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"})


def narrow_integers(model: Model) -> list[Finding]:
    """A note for each type whose arithmetic is right only for numbers that are not too large."""
    nodes: dict[tuple[str, str, int], list[ir.Node]] = {}
    for node in model.nodes():
        kind = node.outputs[0].dtype if node.outputs else None
        if kind in _NARROWED and node.op_type in _ARITHMETIC:
            nodes.setdefault((_NARROWED[kind], "int32", 2**31 - 1), []).append(node)
        elif kind == ir.DataType.INT32 and node.op_type in _IN_FLOAT:
            nodes.setdefault(("int32", "float32", 2**24), []).append(node)
    return [
        Finding(
            code="backend/narrow-integers",
            message=f"{len(found)} node(s) compute in {name}, which OpenVINO's CPU plugin computes in {carrier}",
            severity=Severity.INFO,
            where=label(found[0]),
            source=origin(found[0]),
            hint=f"numbers beyond {limit} would be wrong: scale them down, or build with --backend tflite",
        )
        for (name, carrier, limit), found in sorted(nodes.items())
    ]
