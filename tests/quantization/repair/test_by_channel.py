"""A range a channel before depthwise convolutions: where channels differ much, on targets whose kernels take it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgec.bundle.bundle import Bundle
from edgec.graph.model import Model
from edgec.metrics import sqnr_db, step_differences
from edgec.pipeline import kept_graphs, run_build
from edgec.quantization.calibration.observers import observe
from edgec.quantization.calibration.range_choice import ByTensor, channel_ranges, channels_of, with_channels
from edgec.quantization.mix.alone import noise_alone
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.by_channel import worth_by_channel
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan, Statistics, TensorStats
from edgec.targets.load import load_target
from edgec.targets.profile import Target
from edgec.tensors import Array, DType
from tests.support.graphs import run_ort
from tests.support.plans import kernel, typed

TARGET = load_target("intel-cpu")
CHANNELS = 16
BOTH = 2 * CHANNELS

#: What one channel gives is so many times what another does; no factor moves through a HardSwish.
SIZES = np.geomspace(1.0, 64.0, CHANNELS).astype(np.float32)

NET = """(float[1,8,20,20] x) => (float[1,8,20,20] y)
{ a = Conv(x, w1) h = HardSwish(a) d = Conv<group = 16, pads = [1,1,1,1]>(h, w2, b2) y = Conv(d, w3) }"""


def net() -> Model:
    """Convolutions that make channels of many sizes, read each by itself, and join them with the same weight."""
    depthwise = kernel(BOTH, 1, 3, 3, seed=1) / np.repeat(SIZES, 2)[:, None, None, None]
    weights = {
        "w1": kernel(CHANNELS, 8, 1, 1) * 4 * SIZES[:, None, None, None],
        "w2": depthwise.astype(np.float32),
        "b2": np.linspace(-1, 1, BOTH, dtype=np.float32),
        "w3": kernel(8, BOTH, 1, 1, seed=2),
    }
    return typed(NET, weights)


def feeds_of(count: int, seed: int = 0) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(1, 8, 20, 20)).astype(np.float32)} for _ in range(count)]


def seen(model: Model, feeds: list[dict[str, Array]]) -> Statistics:
    """Statistics of the inputs of all convolutions, with their channels."""
    probe = model.clone()
    wanted = [n.inputs[0] for n in probe.nodes() if n.op_type == "Conv" and n.inputs[0] is not None]
    probe.graph.outputs.extend(v for v in wanted if v.producer() is not None)
    runs = [{**feed, **run_ort(probe, feed)} for feed in feeds]
    tensors = {}
    for name in runs[0]:
        value = np.concatenate([run[name] for run in runs])
        ends = (reduce(value, axis=(0, 2, 3)) for reduce in (np.min, np.max))
        tensors[name] = replace(observe(value.ravel()), **dict(zip(("channel_min", "channel_max"), ends, strict=True)))
    return Statistics(tensors=tensors, samples=len(feeds), digest="seen")


def plans(target: Target = TARGET, backend: str = "openvino") -> tuple[Model, QuantPlan, QuantPlan]:
    """The model, and its plans with one range a value and with a range a channel for all that may have it."""
    model = net()
    stats = seen(model, feeds_of(6))
    one = make_plan(model, stats, target, backend, "int8", range_method="auto")
    every = with_channels("auto", frozenset(one.activations))
    return model, one, make_plan(model, stats, target, backend, "int8", range_method=every)


def test_only_what_depthwise_convolutions_read_has_a_range_a_channel() -> None:
    model, one, apart = plans()
    assert {name: entry.qparams.axis for name, entry in apart.activations.items()} == {"x": None, "h": 1, "d": None}
    steps = np.asarray(apart.activations["h"].qparams.scale) / one.activations["h"].qparams.scale[0]
    assert (steps < 1.001).all() and steps[0] < 0.1 < 0.9 < steps[-1]
    assert "a range a channel" in apart.activations["h"].reason
    assert worth_by_channel(model, one, apart) == {"h"}


def test_a_bias_is_in_the_steps_of_its_own_channel() -> None:
    """Each channel has two outputs, so its step counts for two biases."""
    model, _, apart = plans()
    (bias,) = apart.biases.values()
    (weight,) = (entry for key, entry in apart.weights.items() if key.startswith("w2"))
    data = np.repeat(np.asarray(apart.activations["h"].qparams.scale, np.float32), 2)
    np.testing.assert_allclose(bias.qparams.scale, data * np.asarray(weight.qparams.scale, np.float32), rtol=1e-6)
    made = run_ort(apply_plan(model, apart), feeds_of(1)[0])["y"]
    assert sqnr_db(run_ort(model, feeds_of(1)[0])["y"], made) > 30


def test_most_of_the_rounding_goes_away() -> None:
    model, one, apart = plans()
    feeds = feeds_of(4, seed=1)  # which calibration did not see
    before, after = (noise_alone(model, plan, [["h"]], feeds)[0] for plan in (one, apart))
    assert after < 0.15 * before


def test_a_target_without_such_kernels_has_none() -> None:
    model, one, apart = plans(load_target("raspberrypi4"), "tflite")
    assert all(entry.qparams.axis is None for entry in apart.activations.values())
    assert worth_by_channel(model, one, apart) == frozenset()


def test_channels_that_hardly_differ_are_not_worth_a_trial() -> None:
    model, one, apart = plans()
    h = apart.activations["h"]
    scales = tuple(0.6 * one.activations["h"].qparams.scale[0] for _ in h.qparams.scale)
    alike = replace(h, qparams=replace(h.qparams, scale=scales))
    assert worth_by_channel(model, one, replace(apart, activations={**apart.activations, "h": alike})) == frozenset()


def channels(low: list[float], high: list[float]) -> TensorStats:
    ends = np.asarray([min(low), max(high)], np.float32)
    return replace(observe(ends), channel_min=np.asarray(low, np.float32), channel_max=np.asarray(high, np.float32))


def test_a_channel_has_room_within_the_tensors_range() -> None:
    found = channel_ranges(channels([-0.5, 0.0, -4.0], [1.0, 0.01, 8.0]), -4.0, 8.0)
    assert found == [(-1.0, 2.0), (-0.125, 0.25), (-4.0, 8.0)]  # twice what was seen, a 32nd, and no more than all
    assert channel_ranges(channels([0.0, 0.0], [1.0, 8.0]), 0.0, 6.0) == [(0.0, 2.0), (0.0, 6.0)]


@pytest.mark.parametrize("unknown", [None, np.asarray([np.nan, 1.0], np.float32)])
def test_channels_that_were_not_seen_have_no_ranges(unknown: Array | None) -> None:
    stats = replace(channels([0.0, 0.0], [1.0, 8.0]), channel_max=unknown)
    assert channel_ranges(stats, 0.0, 8.0) is None


def test_a_choice_keeps_its_ways() -> None:
    other = ByTensor(usual="auto", others={"a": "minmax"})
    assert with_channels(other, frozenset({"h"})) == ByTensor(
        usual="auto", others={"a": "minmax"}, channels=frozenset({"h"})
    )
    assert with_channels("auto", frozenset()) == "auto" and channels_of("auto") == frozenset()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("channels")
    (folder / "net.onnx").write_bytes(net().to_bytes())
    np.savez(folder / "data.npz", x=np.concatenate([feed["x"] for feed in feeds_of(40)]))
    result = run_build(
        folder / "net.onnx",
        target="intel-cpu",
        precision="int8",
        calibration=folder / "data.npz",
        output=folder / "out",
        keep_graphs=True,
        stop_after="bundle",
    )
    rung = next(r for r in result.summary["ladder"] if r["rung"] == "ranges: channel by channel")
    assert rung["kept"] and rung["after_db"] > rung["before_db"] + 3
    assert result.bundle is not None
    return result.bundle


def test_openvino_computes_what_the_quantized_model_does(built: Bundle) -> None:
    """99 % of the values within 2 steps; a step of a float output is a 255th of its range."""
    quantized = built.read(kept_graphs.QUANTIZED)
    for feed in feeds_of(3, seed=2):
        wanted = run_ort(quantized, feed)["y"]
        step = float(wanted.max() - wanted.min()) / DType.UINT8.limits[1]
        assert step_differences(wanted, built.run(feed)["y"], step=step).within_2 >= 0.99
        assert sqnr_db(run_ort(net(), feed)["y"], wanted) > 32
