"""The work of a graph: multiplications and bytes as they can be counted by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from edgec.backends.tflite.tir import Graph, Op, Tensor, constant
from edgec.backends.tflite.work import peak_bytes, work_of
from edgec.frontends.base import load_source
from edgec.tensors import DType
from tests.support.micro_nets import write_micro_net
from tests.support.tflite import emit


def _value(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, shape=shape, dtype=DType.FLOAT32)


def _ones(*shape: int) -> Tensor:
    return constant("w", np.ones(shape, np.float32))


def test_a_convolution() -> None:
    x, y = _value("x", 1, 8, 8, 3), _value("y", 1, 8, 8, 16)
    (work,) = work_of(Graph("g", [x], [y], [Op("CONV_2D", [x, _ones(16, 3, 3, 3), _ones(16)], [y])]))
    assert (work.macs, work.window, work.channels) == (8 * 8 * 16 * 27, 27, 16)
    assert (work.input_bytes, work.weight_bytes, work.output_bytes) == (768, 4 * (16 * 27 + 16), 4096)


def test_a_depthwise_one() -> None:
    x, y = _value("x", 1, 8, 8, 16), _value("y", 1, 8, 8, 16)
    (work,) = work_of(Graph("g", [x], [y], [Op("DEPTHWISE_CONV_2D", [x, _ones(1, 3, 3, 16), _ones(16)], [y])]))
    assert (work.macs, work.window) == (8 * 8 * 16 * 9, 9)


def test_a_transposed_one() -> None:
    x, y = _value("x", 1, 4, 4, 8), _value("y", 1, 8, 8, 3)
    shape = constant("s", np.array([1, 8, 8, 3], np.int32))
    (work,) = work_of(Graph("g", [x], [y], [Op("TRANSPOSE_CONV", [shape, _ones(3, 2, 2, 8), x], [y])]))
    assert work.macs == 4 * 4 * 8 * 2 * 2 * 3


def test_products() -> None:
    x, y = _value("x", 4, 32), _value("y", 4, 10)
    (dense,) = work_of(Graph("g", [x], [y], [Op("FULLY_CONNECTED", [x, _ones(10, 32), _ones(10)], [y])]))
    assert dense.macs == 4 * 32 * 10
    a, b, c = _value("a", 2, 4, 32), _value("b", 2, 32, 8), _value("c", 2, 4, 8)
    (product,) = work_of(Graph("g", [a, b], [c], [Op("BATCH_MATMUL", [a, b], [c])]))
    assert product.macs == 2 * 4 * 8 * 32


def test_an_operator_without_multiplications() -> None:
    x, y = _value("x", 1, 8), _value("y", 1, 8)
    (work,) = work_of(Graph("g", [x], [y], [Op("RELU", [x], [y])]))
    assert (work.macs, work.window, work.weight_bytes) == (0, 0, 0)


def test_the_peak_is_what_lives_at_the_same_time() -> None:
    """x (32) → a (64) → b (32), and x is read again at the end: 32 + 64 + 32 at the second operator."""
    x, a, b, y = _value("x", 8), _value("a", 16), _value("b", 8), _value("y", 8)
    ops = [Op("PAD", [x], [a]), Op("SLICE", [a], [b]), Op("ADD", [x, b], [y])]
    assert peak_bytes(Graph("g", [x], [y], ops)) == 4 * (8 + 16 + 8)
    chain = [Op("PAD", [x], [a]), Op("SLICE", [a], [b])]
    assert peak_bytes(Graph("g", [x], [b], chain)) == 4 * (8 + 16)


def test_a_whole_network_has_the_known_number(tmp_path: Path) -> None:
    """MLPerf Tiny counts 2.7 million for its keyword spotting network."""
    path, _ = write_micro_net(tmp_path, "kws")
    artifact = emit(load_source(path).model)
    assert 2.6e6 < sum(op.macs for op in artifact.work) < 2.8e6
    assert artifact.peak_bytes == 2 * 4 * 25 * 5 * 64
    assert len(artifact.work) == sum(artifact.operators.values())


def test_a_shared_subgraph_is_written_once_and_counts_at_each_call() -> None:
    x, y = Tensor("x", (1, 4), DType.FLOAT32), Tensor("y", (1, 4), DType.FLOAT32)
    body = Graph("body", [x], [y], [Op("TANH", [x], [y])])
    values = [Tensor(f"v{i}", (1, 4), DType.FLOAT32) for i in range(4)]
    always = constant("always", np.asarray([True]))
    calls = [Op("IF", [always, a], [b], subgraphs=[body, body]) for a, b in pairwise(values)]
    graph = Graph("main", values[:1], values[-1:], calls)
    assert [op.kind for op in graph.every_op()] == ["IF"] * 3 + ["TANH"]
    assert [work.kind for work in work_of(graph)] == ["IF", "TANH"] * 3
    assert peak_bytes(graph) == 2 * 16 + 2 * 16
