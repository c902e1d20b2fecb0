"""ai.onnx.ml's support vector machines: a kernel against all support vectors, then one product.

With K = kernel(x, vectors), the decision between classes i and j is K · c_ij + ρ_ij, all pairs in one Gemm.
Votes count the pairs that a class wins. Probabilities r_ij = 1 / (1 + exp(A·s + B)) of the pairs become those
of the classes by libsvm's own iteration (Wu, Lin, Weng: second method), stopped where it stops.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from edgec.graph.build import Builder
from edgec.graph.edit import Editor
from edgec.graph.model import attr
from edgec.passes.decompose.coupling import coupled
from edgec.passes.decompose.ml_common import f32, features, label_of, labels_of, post_transform, text
from edgec.tensors import Array

#: libsvm keeps the probabilities of pairs this far from 0 and 1.
_LEAST = 1e-7


def _kernel(b: Builder, node: ir.Node, x: ir.Value, vectors: Array) -> ir.Value | None:
    """[rows, vectors]"""
    gamma, coef0, degree = (float(v) for v in (*(attr(node, "kernel_params") or ()), 0.0, 0.0, 0.0)[:3])
    kind = text(node, "kernel_type", "LINEAR")
    if kind == "RBF":
        # The distance from differences: |x|² − 2xv + |v|² would lose what matters for near neighbours.
        apart = b("Sub", b("Unsqueeze", x, b.ints(1)), f32(vectors)[None])
        square = b("ReduceSum", b("Mul", apart, apart), b.ints(2), keepdims=0)
        return b("Exp", b("Mul", square, f32(-gamma)))
    product = b("MatMul", x, f32(vectors.T))
    if kind == "LINEAR":
        return product
    inner = b("Add", b("Mul", product, f32(gamma)), f32(coef0))
    if kind == "SIGMOID":
        return b("Tanh", inner)
    return _power(b, inner, degree) if kind == "POLY" else None


def _power(b: Builder, value: ir.Value, degree: float) -> ir.Value:
    """Whole powers by multiplying: runtimes' Pow takes no negative base, or rounds."""
    if degree != int(degree) or not 1 <= degree <= 16:
        return b("Pow", value, f32(degree))
    result = value
    for _ in range(int(degree) - 1):
        result = b("Mul", result, value)
    return result


def svm_regressor(node: ir.Node, editor: Editor) -> bool:
    """K · c + ρ; of one class: its sign."""
    b = Builder(editor, node)
    found, coefficients = features(b, node.inputs[0]), f32(attr(node, "coefficients") or ())
    rho, supports = f32(attr(node, "rho") or (0.0,)), int(attr(node, "n_supports", 0))
    if found is None or not coefficients.size:
        return False
    x, _, width = found
    if supports:
        vectors = np.asarray(attr(node, "support_vectors"), np.float32)
        if vectors.size != supports * width or coefficients.size != supports:
            return False
        kernel = _kernel(b, node, x, vectors.reshape(supports, width))
        score = None if kernel is None else b("Gemm", kernel, coefficients.reshape(-1, 1), rho[:1])
    else:
        score = b("Gemm", x, coefficients.reshape(-1, 1), rho[:1]) if coefficients.size == width else None
    if score is None:
        return False
    if attr(node, "one_class", 0):
        score = b("Where", b("Greater", score, f32(0.0)), f32(1.0), f32(-1.0))
    done = post_transform(b, score, text(node, "post_transform", "NONE"))
    if done is None:
        return False
    b.done(done)
    return True


def svm_classifier(node: ir.Node, editor: Editor) -> bool:
    """Labels by votes, or by probabilities; scores of pairs, or probabilities of classes."""
    names, counts = labels_of(node), attr(node, "vectors_per_class")
    b = Builder(editor, node)
    found = features(b, node.inputs[0])
    if names is None or found is None:
        return False
    if not counts:
        return _linear(b, node, names, found[0], found[2])
    return _pairwise(b, node, names, [int(c) for c in counts], found)


def _linear(b: Builder, node: ir.Node, names: Array, x: ir.Value, width: int) -> bool:
    """Without vectors: one row of coefficients a class."""
    coefficients, rho = f32(attr(node, "coefficients") or ()), f32(attr(node, "rho") or (0.0,))
    if coefficients.size != len(names) * width or len(names) < 2:
        return False
    kind = text(node, "kernel_type", "LINEAR")
    scores = b("MatMul", x, coefficients.reshape(len(names), width).T)
    if kind != "LINEAR":
        return False
    scores = b("Add", scores, rho[:1])
    done = post_transform(b, scores, text(node, "post_transform", "NONE"))
    if done is None:
        return False
    b.done(label_of(b, scores, names), done)
    return True


def _pairwise(b: Builder, node: ir.Node, names: Array, counts: list[int], found: tuple[ir.Value, int, int]) -> bool:
    x, rows, width = found
    classes, total = len(names), sum(counts)
    vectors = np.asarray(attr(node, "support_vectors"), np.float32)
    coefficients = np.asarray(attr(node, "coefficients"), np.float32)
    rho = f32(attr(node, "rho") or ())
    pairs = list(itertools.combinations(range(classes), 2))
    fits = vectors.size == total * width and coefficients.size == (classes - 1) * total
    if classes < 2 or len(counts) != classes or not fits or len(rho) != len(pairs):
        return False
    kernel = _kernel(b, node, x, vectors.reshape(total, width))
    if kernel is None:
        return False
    scores = b("Gemm", kernel, _pair_weights(coefficients.reshape(classes - 1, total), counts), rho)
    first = b("Cast", b("Greater", scores, f32(0.0)), to=int(ir.DataType.FLOAT))
    wins, losses = np.zeros((2, len(pairs), classes), np.float32)
    for p, (i, j) in enumerate(pairs):
        wins[p, i], losses[p, j] = 1, 1
    votes = b("Add", b("MatMul", first, wins - losses), losses.sum(axis=0))
    prob_a, prob_b = attr(node, "prob_a"), attr(node, "prob_b")
    if prob_a:
        return _probable(b, node, names, scores, f32(prob_a), f32(prob_b), votes, rows)
    return _decided(b, node, names, scores, votes)


def _pair_weights(coefficients: Array, counts: list[int]) -> Array:
    """[vectors, pairs]: libsvm keeps, for a vector of class i, its weight against j in row j − 1 (j > i) or j."""
    starts = np.concatenate([[0], np.cumsum(counts)])
    pairs = list(itertools.combinations(range(len(counts)), 2))
    weights = np.zeros((int(starts[-1]), len(pairs)), np.float32)
    for p, (i, j) in enumerate(pairs):
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        weights[of_i, p] = coefficients[j - 1, of_i]
        weights[of_j, p] = coefficients[i, of_j]
    return weights


def _probable(
    b: Builder, node: ir.Node, names: Array, scores: ir.Value, prob_a: Array, prob_b: Array, votes: ir.Value, rows: int
) -> bool:
    classes = len(names)
    if len(prob_a) != classes * (classes - 1) // 2 or len(prob_b) != len(prob_a):
        return False
    falling = b("Add", b("Mul", scores, prob_a), prob_b)
    pairs = b("Clip", b("Sigmoid", b("Neg", falling)), f32(_LEAST), f32(1 - _LEAST))
    chances = coupled(b, pairs, rows, classes)
    done = post_transform(b, chances, text(node, "post_transform", "NONE"))
    if done is None:
        return False
    b.done(label_of(b, votes, names), done)
    return True


def _decided(b: Builder, node: ir.Node, names: Array, scores: ir.Value, votes: ir.Value) -> bool:
    transform = text(node, "post_transform", "NONE")
    shown = scores if len(names) > 2 else b("Concat", b("Neg", scores), scores, axis=1)
    done = post_transform(b, shown, transform)
    if done is None:
        return False
    b.done(label_of(b, votes, names), done)
    return True
