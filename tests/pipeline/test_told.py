"""What a build says of the precision that it took: a mix is a note, a fall a warning, plain int8 nothing."""

from __future__ import annotations

from edgec.errors import Severity
from edgec.pipeline.choose import told
from edgec.pipeline.forms import Form
from edgec.quantization.mix.mixed import Mixed
from edgec.quantization.types import NodePlan, NodeScheme, QuantPlan
from tests.support.plans import typed

PLAN = QuantPlan(nodes={name: NodePlan(scheme="int8", reason="") for name in "abcd"})


def form(*reverted: str, met: bool = True) -> Form:
    model = typed("(float[1,4] x) => (float[1,4] y) { y = Relu(x) }")
    floats: dict[str, NodeScheme] = dict.fromkeys(reverted, "float32")
    mixed = Mixed(plan=PLAN, model=model, reverted=floats, met=met, frontier=()) if reverted else None
    return Form("int8", model, PLAN, model, {}, mixed=mixed)


def test_plain_int8_says_nothing() -> None:
    assert told(form(), [], "40 dB") == []
    assert told(form("a", met=False), [], "40 dB") == []


def test_a_mix_is_a_note_with_its_figures() -> None:
    (finding,) = told(form("a"), [], "30 dB with 1 of 4 nodes left in float; everywhere it would keep only 15 dB")
    assert finding.code == "quant/mixed" and finding.severity == Severity.INFO
    assert "int8" in finding.message and "30 dB" in finding.message and "only 15 dB" in finding.message


def test_a_precision_that_was_left_is_a_warning_that_names_what_was_built() -> None:
    (finding,) = told(form("a"), ["dynamic gives only 12 dB"], "30 dB")
    assert finding.code == "quant/fell-back" and finding.severity == Severity.WARNING
    assert finding.message == "int8 in part was built, because dynamic gives only 12 dB"


def test_a_fall_for_first_classes_alone_names_the_way_to_do_without() -> None:
    for classes in (False, True):
        (finding,) = told(form(), ["int8 gives only 36.1 dB, top-1 agreement 90.0 %"], "exact", classes=classes)
        assert ("--min-sqnr 20" in finding.hint) == classes
