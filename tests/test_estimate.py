"""Estimates: formulas that can be checked by hand, bars that hold, two digits, nothing claimed without coefficients."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgec.artifact import OpWork
from edgec.estimate import Range, estimate, in_precision
from edgec.pipeline import run_build, run_check
from edgec.report.render import render_build, render_check
from edgec.targets.load import list_targets, load_target
from edgec.targets.profile import EstimateFacts, Speed, Target
from tests.support.micro_nets import write_micro_net


def _op(kind: str, *, macs: int = 0, moved: int = 0, weights: int = 0) -> OpWork:
    return OpWork(
        kind=kind,
        dtype="float32",
        macs=macs,
        window=1,
        channels=1,
        input_bytes=moved,
        weight_bytes=weights,
        output_bytes=0,
    )


def _target(**changes: object) -> Target:
    speed = Speed(conv=1e9, depthwise=1e8, dense=1e7, bytes=1e6)
    facts = {
        "basis": "derived",
        "source": "made up",
        "factor": 2.0,
        "operator_us": 1000.0,
        "operator_ram_bytes": 10,
        "runtime_ram_bytes": 1000,
        "runtime_flash_bytes": 5000,
        "speed": {"float32": speed},
        **changes,
    }
    return load_target("cortex-m4").model_copy(update={"estimate": EstimateFacts.model_validate(facts)})


def test_time_is_the_larger_of_work_and_traffic_and_a_fixed_cost() -> None:
    ops = [_op("CONV_2D", macs=10**9), _op("DEPTHWISE_CONV_2D", macs=10**8), _op("FULLY_CONNECTED", macs=10**7)]
    made = estimate(ops, _target())
    assert made is not None
    assert made.latency_ms == Range(low=1500.0, typical=3000.0, high=6000.0)
    slow = estimate([_op("ADD", moved=2 * 10**6)], _target())
    assert slow is not None and slow.latency_ms.typical == 2000.0
    both = estimate([_op("CONV_2D", macs=10**9, moved=3 * 10**6)], _target())
    assert both is not None and both.latency_ms.typical == 3000.0, "the traffic is the larger"


def test_memory() -> None:
    ops = [_op("CONV_2D", weights=2000), _op("ADD")]
    made = estimate(ops, _target(), peak_bytes=3000, model_bytes=4000)
    assert made is not None
    assert made.ram_bytes.typical == 4000.0, "3000 alive, 20 of records, 1000 of the runtime; two digits"
    assert made.flash_bytes.typical == 9000.0
    copied = estimate(ops, _target(copies_weights=True), peak_bytes=3000)
    assert copied is not None and copied.ram_bytes.typical == 6000.0


def test_what_is_float_in_a_quantized_model_works_at_the_speed_of_float() -> None:
    fast, slow = (Speed(conv=rate, depthwise=1e8, dense=1e7, bytes=1e12) for rate in (2e9, 1e9))
    target = _target(speed={"int8": fast, "float32": slow}, operator_us=0.0)
    both = [replace(_op("CONV_2D", macs=10**9), dtype=dtype) for dtype in ("int8", "float32")]
    made = estimate(both, target, precision="int8")
    assert made is not None and made.latency_ms.typical == 1500.0
    wide = estimate([replace(both[0], dtype="int16")], target, precision="int8")
    assert wide is not None and wide.latency_ms.typical == 500.0, "no coefficients of its own"


def test_two_digits_and_no_more() -> None:
    around = Range.around(123456.0, 3.0)
    assert (around.low, around.typical, around.high) == (41000.0, 120000.0, 370000.0)


def test_nothing_is_claimed_without_coefficients() -> None:
    assert estimate([_op("ADD")], _target(), precision="int8") is None
    assert estimate([_op("ADD")], load_target("intel-gpu"), precision="int8") is None


def test_other_precisions_move_fewer_bytes() -> None:
    ops = (_op("CONV_2D", moved=4000, weights=8000),)
    (int8,), peak = in_precision(ops, 1000, "int8")
    assert (int8.input_bytes, int8.weight_bytes, int8.dtype, peak) == (1000, 2000, "int8", 250)
    (wide,), peak = in_precision(ops, 1000, "int16x8")
    assert (wide.input_bytes, wide.weight_bytes, wide.dtype, peak) == (2000, 2000, "int16", 500)
    (dynamic,), peak = in_precision(ops, 1000, "dynamic")
    assert (dynamic.input_bytes, dynamic.weight_bytes, dynamic.dtype, peak) == (4000, 2000, "float32", 1000)


@pytest.mark.parametrize("name", [n for n in list_targets() if load_target(n).estimate])
def test_every_profile_says_what_its_coefficients_rest_on(name: str) -> None:
    target = load_target(name)
    facts = target.estimate
    assert facts is not None
    assert len(facts.source) > 20
    assert facts.factor >= (2.0 if facts.basis == "measured" else 2.5), "derived numbers have wide bars"
    offered = set(target.backends[target.default_backend].precisions)
    assert offered <= set(facts.speed), "a precision on offer without coefficients"


def test_the_bars_hold_on_the_board_whose_figures_are_published(tmp_path: Path) -> None:
    """MLPerf Tiny v0.5, reference submission, NUCLEO-L4R5ZI: latency in ms."""
    published = {"kws": 181.92, "resnet8": 704.23, "vww": 603.14, "autoencoder": 10.40}
    for name, measured in published.items():
        model, _ = write_micro_net(tmp_path, name)
        rows = {row["precision"]: row for row in run_check(model, target="cortex-m4")["estimates"]}
        latency = rows["int8"]["latency_ms"]
        assert latency["low"] <= measured <= latency["high"], name


def test_check_and_build_show_them_as_estimates(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    answer = run_check(model, target="raspberrypi4")
    assert [row["kind"] for row in answer["estimates"]] == ["estimate"] * 5
    assert json.loads(json.dumps(answer))["estimates"][0]["basis"] == "derived"
    text = render_check(answer)
    assert "estimates, not measurements" in text
    assert "Cortex-A72" in text
    summary = run_build(model, target="linux-x86_64", precision="float32", output=tmp_path).summary
    assert summary["estimate"]["precision"] == "float32"
    assert "an estimate, from measured coefficients" in " ".join(render_build(summary).split())
    assert "latency" in summary, "measured here, beside the estimate"


def test_a_model_that_cannot_be_lowered_has_no_estimate(tmp_path: Path) -> None:
    model, _ = write_micro_net(tmp_path, "kws")
    assert run_check(model, target="intel-gpu")["estimates"] == []
