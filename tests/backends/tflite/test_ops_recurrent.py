"""RNN, GRU and LSTM in LiteRT against ONNX Runtime: unrolled and as a loop, all their options."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.tflite.ops import recurrent_steps
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.tensors import Array
from tests.support.graphs import graph, random_feeds
from tests.support.tflite import assert_equal_to_ort, emit, run

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
BATCH, INPUT, HIDDEN = 2, 5, 3
SHORT, LONG = 4, 19  # written out; three rounds or more, and a rest


@pytest.fixture(autouse=True)
def nothing_long_is_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers here are small enough to be written out; their loops are what is tested."""
    monkeypatch.setattr(recurrent_steps, "UNROLL_BYTES", 0)


def layer(
    kind: str,
    steps: int,
    *,
    attributes: str = "",
    directions: int = 1,
    bias: bool = True,
    lengths: list[int] | None = None,
    initial: bool = False,
    peepholes: bool = False,
    outputs: str = "y, h",
    fixed: bool = True,
) -> Model:
    """A graph with one recurrent layer."""
    rng = np.random.default_rng(7)
    rows = GATES[kind] * HIDDEN

    def draw(*shape: int) -> Array:
        return rng.uniform(-0.6, 0.6, shape).astype(np.float32)

    constants: dict[str, Array] = {"w": draw(directions, rows, INPUT), "r": draw(directions, rows, HIDDEN)}
    names = ["x", "w", "r", "b" if bias else "", "lengths" if lengths else "", "h0" if initial else ""]
    if bias:
        constants["b"] = draw(directions, 2 * rows)
    if lengths:
        constants["lengths"] = np.asarray(lengths, np.int32)
    declared = f"float[{steps},{BATCH},{INPUT}] x"
    if initial:
        declared += f", float[{directions},{BATCH},{HIDDEN}] h0"
    if kind == "LSTM":
        names += ["c0" if initial else "", "p" if peepholes else ""]
        if initial:
            declared += f", float[{directions},{BATCH},{HIDDEN}] c0"
        if peepholes:
            constants["p"] = draw(directions, 3 * HIDDEN)
    if not fixed:
        for name in ("w", "r"):
            declared += f", float[{','.join(map(str, constants.pop(name).shape))}] {name}"
    shapes = {
        "y": f"float[{steps},{directions},{BATCH},{HIDDEN}] y",
        "h": f"float[{directions},{BATCH},{HIDDEN}] h",
        "c": f"float[{directions},{BATCH},{HIDDEN}] c",
    }
    given = ", ".join(shapes[name] for name in outputs.split(", ") if name in shapes)
    listed = ", ".join(outputs.split(", "))
    text = f"({declared}) => ({given}) {{ {listed} = {kind} <hidden_size={HIDDEN} {attributes}> ({', '.join(names)}) }}"
    return graph(text, opset=22, constants=constants)


@pytest.mark.parametrize("steps", [SHORT, LONG])
@pytest.mark.parametrize(("direction", "directions"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_directions(kind: str, direction: str, directions: int, steps: int) -> None:
    outputs = "y, h, c" if kind == "LSTM" else "y, h"
    model = layer(kind, steps, attributes=f', direction="{direction}"', directions=directions, outputs=outputs)
    assert_equal_to_ort(model, emit(model), relative=2e-6)


@pytest.mark.parametrize("steps", [SHORT, LONG])
@pytest.mark.parametrize(("direction", "directions"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_sequence_lengths_and_initial_state(kind: str, direction: str, directions: int, steps: int) -> None:
    model = layer(
        kind,
        steps,
        attributes=f', direction="{direction}"',
        directions=directions,
        lengths=[steps, 2],
        initial=True,
        outputs="y, h, c" if kind == "LSTM" else "y, h",
    )
    assert_equal_to_ort(model, emit(model), relative=2e-6)


OPTIONS = {
    "clip": ("LSTM", {"attributes": ", clip=0.3"}),
    "peepholes": ("LSTM", {"peepholes": True}),
    "coupled": ("LSTM", {"attributes": ", input_forget=1"}),
    "no-bias": ("LSTM", {"bias": False}),
    "no-bias-gru": ("GRU", {"bias": False, "attributes": ", linear_before_reset=1"}),
    "reset-after": ("GRU", {"attributes": ", linear_before_reset=1"}),
    "reset-after-clip": ("GRU", {"attributes": ", linear_before_reset=1, clip=0.2"}),
    "relu": ("RNN", {"attributes": ', activations=["Relu"]'}),
    "parameters": ("RNN", {"attributes": ', activations=["LeakyRelu"], activation_alpha=[0.2]'}),
    "hard-sigmoid": ("GRU", {"attributes": ', activations=["HardSigmoid", "Softsign"], activation_alpha=[0.3]'}),
    "elu": ("LSTM", {"attributes": ', activations=["Sigmoid", "Elu", "ScaledTanh"], activation_alpha=[0.5, 0.7],'
                                    " activation_beta=[0.9]"}),
    "weights-at-run-time": ("GRU", {"fixed": False}),
    "weights-at-run-time-lstm": ("LSTM", {"fixed": False}),
    "last-state-only": ("LSTM", {"outputs": ", h"}),
}  # fmt: skip


@pytest.mark.parametrize("steps", [SHORT, LONG])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, steps: int) -> None:
    kind, options = OPTIONS[name]
    model = layer(kind, steps, **options)  # type: ignore[arg-type]  # a table of keyword arguments
    assert_equal_to_ort(model, emit(model), relative=2e-6)


@pytest.mark.parametrize("lengths", [None, [60, 31]])
@pytest.mark.parametrize(("direction", "directions"), [("forward", 1), ("reverse", 1), ("bidirectional", 2)])
def test_one_loop_after_the_other(
    direction: str, directions: int, lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrent_steps, "CARRIED_BYTES", 600)
    monkeypatch.setattr(recurrent_steps, "ROUND_MOST", 4)
    model = layer("LSTM", 61, attributes=f', direction="{direction}"', directions=directions, lengths=lengths)
    artifact = emit(model)
    assert artifact.operators["WHILE"] > 2
    assert_equal_to_ort(model, artifact, relative=2e-6)


def test_no_state_survives_a_call() -> None:
    model = layer("LSTM", LONG)
    artifact, feeds = emit(model), random_feeds(layer("LSTM", LONG))
    np.testing.assert_array_equal(run(artifact, feeds)["y"], run(artifact, feeds)["y"])
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" not in artifact.operators


def test_long_sequences_are_one_loop() -> None:
    assert emit(layer("GRU", LONG)).operators["WHILE"] == 1
    assert "WHILE" not in emit(layer("GRU", SHORT)).operators


def test_what_stays_cached_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = layer("GRU", LONG, attributes=", linear_before_reset=1")
    monkeypatch.setattr(recurrent_steps, "UNROLL_BYTES", 1 << 20)
    artifact = emit(model)
    assert "WHILE" not in artifact.operators
    assert_equal_to_ort(model, artifact, relative=2e-6)
    monkeypatch.setattr(recurrent_steps, "UNROLL_MOST", LONG - 1)
    assert emit(model).operators["WHILE"] == 1


def test_two_directions_are_one_layer() -> None:
    together = emit(layer("LSTM", SHORT, attributes=', direction="bidirectional"', directions=2))
    apart = ', direction="bidirectional", activations=["Sigmoid","Tanh","Tanh","Sigmoid","Tanh","Softsign"]'
    model = layer("LSTM", SHORT, attributes=apart, directions=2)
    alone = emit(layer("LSTM", SHORT))
    assert together.operators["TANH"] == alone.operators["TANH"] == 2 * SHORT
    assert together.operators["BATCH_MATMUL"] == 2 * SHORT
    assert_equal_to_ort(model, emit(model), relative=2e-6)
    assert "BATCH_MATMUL" not in emit(model).operators


@pytest.mark.parametrize("steps", [17, 23, 31, 64])
def test_hardly_a_step_is_left_over_by_the_loops(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent_steps, "CARRIED_BYTES", 600)
    monkeypatch.setattr(recurrent_steps, "ROUND_MOST", 2)
    artifact = emit(layer("RNN", steps, bias=False))
    # a body holds two steps, the rest is written out: one TANH each
    assert artifact.operators["TANH"] <= 2 + 3


def test_unknown_activation_is_refused() -> None:
    model = layer("RNN", SHORT, attributes=', activations=["Magic"]')
    with pytest.raises(EdgecError) as raised:
        emit(model)
    assert raised.value.findings[0].rule == "tflite/activation"
