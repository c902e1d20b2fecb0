"""One form for what ONNX can say in several ways, so that later stages know one.

1. `auto_pad` becomes explicit `pads` (shapes are static).
2. Gemm has α = β = 1, no transA, its constant weight as [out, in] (`transB` = 1), its bias as [out].
3. MatMul of a matrix with a constant matrix is a Gemm, with the Add of a constant vector as its bias;
   with data of rank 3 or more it stays MatMul, followed by an Add.
4. x / c and x − c with a constant c are x · (1/c) and x + (−c): int8 runtimes multiply, they do not divide.
5. x² is x · x, x^½ is √x; Sum, Max and Min of two are binary already, Sum of two is Add.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor
from edgec.graph.model import attr, const_of, static_shape
from edgec.passes.pattern import scalar_of
from edgec.passes.rewrite import Match, Refusal

#: Transposing a weight copies it; beyond this a MatMul stays as it is.
MAX_TRANSPOSED_BYTES = 1 << 29
_WINDOWED = frozenset({"AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"})


class ExplicitPads:
    """Rule 1."""

    name = "explicit-pads"
    roots = _WINDOWED

    def match(self, node: ir.Node) -> Match | None:
        """Windowed operators that leave their padding to be computed."""
        return Match(node) if attr(node, "auto_pad", "NOTSET") != "NOTSET" else None

    def check(self, match: Match) -> Refusal | None:
        """Static shapes."""
        node = match.root
        if static_shape(node.inputs[0]) is None or static_shape(node.outputs[0]) is None:
            return Refusal(reason="its shapes are not static", value=node.outputs[0].name or "")
        if node.op_type != "Conv" and node.op_type != "ConvTranspose" and not attr(node, "kernel_shape"):
            return Refusal(reason="it has no kernel shape")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:  # noqa: ARG002 - the protocol's signature
        """The same node with `pads`."""
        node = match.root
        mode = str(attr(node, "auto_pad"))
        before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        assert before is not None and after is not None
        spatial = len(before) - 2
        weight = static_shape(node.inputs[1]) if len(node.inputs) > 1 else None
        kernel = attr(node, "kernel_shape") or (weight or ())[2:]
        strides = attr(node, "strides") or (1,) * spatial
        dilations = attr(node, "dilations") or (1,) * spatial
        extra = attr(node, "output_padding") or (0,) * spatial
        totals = []
        for i in range(spatial):
            window = (kernel[i] - 1) * dilations[i] + 1
            if node.op_type == "ConvTranspose":
                total = strides[i] * (before[i + 2] - 1) + extra[i] + window - after[i + 2]
            else:
                total = (after[i + 2] - 1) * strides[i] + window - before[i + 2]
            totals.append(max(0, total) if mode != "VALID" else 0)
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = small + large if mode != "SAME_LOWER" else large + small
        node.attributes.pop("auto_pad")
        node.attributes["pads"] = ir.AttrInt64s("pads", pads)
        return []


class CanonicalGemm:
    """Rule 2."""

    name = "canonical-gemm"
    roots = frozenset({"Gemm"})

    def match(self, node: ir.Node) -> Match | None:
        """A Gemm in any other form."""
        weight = node.inputs[1]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        shape = static_shape(bias) if bias is not None else None
        output = static_shape(node.outputs[0])
        odd_bias = bias is not None and output is not None and shape != (output[1],)
        constant = const_of(weight) is not None
        plain = attr(node, "alpha", 1.0) == 1.0 and attr(node, "beta", 1.0) == 1.0
        done = plain and not attr(node, "transA", 0) and (not constant or attr(node, "transB", 0) == 1)
        return None if done and not odd_bias else Match(node)

    def check(self, match: Match) -> Refusal | None:
        """Constants where there is something to fold."""
        node = match.root
        if static_shape(node.outputs[0]) is None:
            return Refusal(reason="its shape is not static", value=node.outputs[0].name or "")
        dtype = node.outputs[0].dtype
        factors = (float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0)))
        if dtype is not None and dtype.is_integer() and not all(f.is_integer() for f in factors):
            return Refusal(reason="an integer cannot be scaled by a fraction", value=node.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Transpose, Mul and Add around a plain Gemm; constants are folded at once."""
        node = match.root
        name = node.name or "gemm"
        output = static_shape(node.outputs[0])
        assert output is not None
        data, weight_value = node.inputs[0], node.inputs[1]
        bias_value = node.inputs[2] if len(node.inputs) > 2 else None
        alpha, beta = float(attr(node, "alpha", 1.0)), float(attr(node, "beta", 1.0))
        transposed = int(attr(node, "transB", 0))
        weight, bias = const_of(weight_value), const_of(bias_value)
        before: list[ir.Node] = []
        after: list[ir.Node] = []
        dtype = node.outputs[0].dtype
        kind = np.dtype(np.float32) if dtype is None else dtype.numpy()
        if attr(node, "transA", 0):
            before.append(editor.node("Transpose", [data], {"perm": (1, 0)}, name=f"{name}/transpose"))
            data = before[-1].outputs[0]
        if weight is not None and weight.dtype.kind == "f":
            matrix = weight if transposed else weight.T
            scaled = (matrix.astype(np.float64) * alpha).astype(kind) if alpha != 1.0 else matrix
            if scaled is not weight:
                weight_value = editor.const(np.ascontiguousarray(scaled), f"{name}/weight")
            alpha, transposed = 1.0, 1
        keep_bias = False
        if bias is not None and bias.dtype.kind == "f" and (alpha == 1.0):
            row = (
                bias.reshape(-1) if bias.size in (1, output[1]) and bias.shape[-1:] in ((), (1,), output[1:]) else None
            )
            if row is not None and (bias.ndim < 2 or bias.shape[0] == 1):
                values = np.broadcast_to(row.astype(np.float64) * beta, (output[1],)).astype(kind)
                bias_value = editor.const(values, f"{name}/bias")
                keep_bias = True
        elif bias_value is not None and alpha == beta == 1.0 and static_shape(bias_value) == output[1:]:
            keep_bias = True
        product = editor.node(
            "Gemm",
            [data, weight_value, *([bias_value] if keep_bias else [])],
            {"transB": transposed},
            name=name,
        )
        result = product.outputs[0]
        if alpha != 1.0:
            factor = editor.const(np.asarray(alpha, kind), f"{name}/alpha")
            after.append(editor.node("Mul", [result, factor], name=f"{name}/scaled"))
            result = after[-1].outputs[0]
        if bias_value is not None and not keep_bias:
            if beta != 1.0:
                factor = editor.const(np.asarray(beta, kind), f"{name}/beta")
                before.append(editor.node("Mul", [bias_value, factor], name=f"{name}/bias_scaled"))
                bias_value = before[-1].outputs[0]
            after.append(editor.node("Add", [result, bias_value], name=f"{name}/biased"))
            result = after[-1].outputs[0]
        nodes = [*before, product, *after]
        editor.replace(node, nodes, [result])
        return nodes


class MatMulToGemm:
    """Rule 3."""

    name = "matmul-to-gemm"
    roots = frozenset({"MatMul"})

    def match(self, node: ir.Node) -> Match | None:
        """A product with a constant matrix."""
        weight = const_of(node.inputs[1])
        return Match(node) if weight is not None and weight.ndim == 2 and weight.dtype.kind == "f" else None

    def check(self, match: Match) -> Refusal | None:
        """Data of rank 2; a Gemm has no more."""
        shape = static_shape(match.root.inputs[0])
        if shape is None or len(shape) != 2:
            return Refusal(reason="the data is no matrix", value=match.root.outputs[0].name or "")
        weight = match.root.inputs[1].const_value if match.root.inputs[1] is not None else None
        if weight is None or weight.nbytes > MAX_TRANSPOSED_BYTES:
            return Refusal(reason="the weight is too big to hold twice", value=match.root.outputs[0].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Gemm(x, Wᵀ, transB = 1); a following Add is folded by the affine rules."""
        node = match.root
        weight = const_of(node.inputs[1])
        assert weight is not None
        constant = editor.const(np.ascontiguousarray(weight.T), f"{node.name}/weight")
        new = editor.node("Gemm", [node.inputs[0], constant], {"transB": 1}, name=node.name or "gemm")
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


class NoDivision:
    """Rule 4."""

    name = "no-division"
    roots = frozenset({"Div", "Sub"})

    def match(self, node: ir.Node) -> Match | None:
        """A float divided by, or reduced by, a constant."""
        constant = const_of(node.inputs[1])
        data = node.inputs[0]
        if constant is None or constant.dtype.kind != "f" or data is None or data.const_value is not None:
            return None
        return Match(node, values={"constant": node.inputs[1] or data})

    def check(self, match: Match) -> Refusal | None:
        """The reciprocal must be a normal number."""
        constant = const_of(match.values["constant"])
        assert constant is not None
        if match.root.op_type == "Sub":
            return None
        with np.errstate(all="ignore"):
            inverse = 1.0 / constant.astype(np.float64)
        if not np.all(np.abs(inverse) < 1e30) or not np.all(np.abs(inverse) > 1e-30):
            return Refusal(reason="the reciprocal is no normal number", value=match.values["constant"].name or "")
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Mul or Add."""
        node = match.root
        constant = const_of(match.values["constant"])
        assert constant is not None
        if node.op_type == "Div":
            kind, array = "Mul", (1.0 / constant.astype(np.float64)).astype(constant.dtype)
        else:
            kind, array = "Add", -constant
        value = editor.const(array, f"{node.name}/constant")
        new = editor.node(kind, [node.inputs[0], value], name=node.name or kind)
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


class SimplePowers:
    """Rule 5."""

    name = "simple-powers"
    roots = frozenset({"Pow", "Sum"})

    def match(self, node: ir.Node) -> Match | None:
        """x² and x^½ with a scalar exponent; sums of two."""
        if node.op_type == "Sum":
            return Match(node) if len(node.inputs) == 2 else None
        data = node.inputs[0]
        floating = data is not None and data.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
        exponent = node.inputs[1]
        single = exponent is not None and exponent.shape is not None and len(exponent.shape) == 0
        fits = floating and scalar_of(exponent) in (2.0, 0.5)
        same = data is not None and data.shape is not None and data.shape == node.outputs[0].shape
        return Match(node) if fits and (single or same) else None

    def check(self, match: Match) -> Refusal | None:  # noqa: ARG002 - the protocol's signature
        """Nothing more to ask."""
        return None

    def rewrite(self, match: Match, editor: Editor) -> Sequence[ir.Node]:
        """Mul, Sqrt or Add."""
        node = match.root
        data = node.inputs[0]
        if node.op_type == "Sum":
            new = editor.node("Add", list(node.inputs), name=node.name or "add")
        elif scalar_of(node.inputs[1]) == 2.0:
            new = editor.node("Mul", [data, data], name=node.name or "mul")
        else:
            new = editor.node("Sqrt", [data], name=node.name or "sqrt")
        editor.replace(node, [new], [new.outputs[0]])
        return [new]


FORM_RULES = (ExplicitPads(), CanonicalGemm(), MatMulToGemm())
ARITHMETIC_RULES = (NoDivision(), SimplePowers())
