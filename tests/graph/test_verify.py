"""The verifier sees each kind of broken graph, and none in a sound one."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.graph.verify import verify
from edgec.passes.base import run_passes
from tests.support.graphs import graph


def sound() -> Model:
    return graph("(float[4] x) => (float[4] y) { a = Relu(x) b = Neg(a) y = Add(a, b) }")


def test_sound_graph_passes() -> None:
    verify(sound().ir)


def _same_node_names(model: ir.Model) -> None:
    for node in model.graph:
        node.name = "n"


def _same_value_names(model: ir.Model) -> None:
    model.graph[1].outputs[0].name = "a"


def _out_of_order(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.append(first)


def _no_producer(model: ir.Model) -> None:
    model.graph.outputs[0] = ir.Value(name="elsewhere")


def _twice(model: ir.Model) -> None:
    model.graph.outputs.append(model.graph.outputs[0])


def _foreign_value(model: ir.Model) -> None:
    model.graph[0].replace_input_with(0, ir.Value(name="foreign"))


BREAKS: dict[str, tuple[Callable[[ir.Model], None], str]] = {
    "node names": (_same_node_names, "used twice"),
    "value names": (_same_value_names, "two values are named 'a'"),
    "order": (_out_of_order, "not defined before it is used"),
    "output": (_no_producer, "no producer"),
    "output twice": (_twice, "appears twice"),
    "foreign": (_foreign_value, "not defined before it is used"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_graph_is_named(name: str) -> None:
    model = sound()
    damage, message = BREAKS[name]
    damage(model.ir)
    with pytest.raises(EdgecError, match=message) as raised:
        verify(model.ir)
    assert raised.value.code == "graph/invalid"


class _Breaks:
    name = "breaks-things"

    def run(self, model: Model) -> bool:
        _same_node_names(model.ir)
        return True


def test_a_pass_that_breaks_the_graph_is_named() -> None:
    with pytest.raises(EdgecError, match="breaks-things") as raised:
        run_passes(sound(), [_Breaks()])
    assert raised.value.code == "internal/pass"
