"""Equalisation computes the same, evens channels out, and stays away from what does not commute with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from edgec.graph.channels import channel_axis
from edgec.graph.model import Model
from edgec.quantization.calibration.observers import observe
from edgec.quantization.calibration.range_choice import RangeChoice
from edgec.quantization.measures.judge import Judge
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.repair.equalize import equalize, find_migrations
from edgec.quantization.repair.even import evener
from edgec.quantization.repair.factors import factors_of, gain
from edgec.quantization.repair.ladder import climb
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.graphs import assert_same, operators, random_feeds, run_ort
from tests.support.plans import kernel, typed

TARGET = load_target("raspberrypi4")

#: One channel in four is thirty times as large as the others.
UNEVEN = np.where(np.arange(16) % 4 == 0, 30.0, 1.0).astype(np.float32)

CONV = """(float[1,3,10,10] x) => (float[1,8,10,10] y)
{{ a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w1, b1) r = {activation}
  y = Conv<kernel_shape={kernel}, group={group}, pads={pads}>(r, w2) }}"""


class Data:
    """Samples as calibration takes them."""

    findings = ()
    digest = "none"

    def __init__(self, feeds: list[dict[str, Array]]) -> None:
        self.feeds, self.count = feeds, len(feeds)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self.feeds)


def _conv_net(activation: str = "Relu(a)", *, depthwise: bool = False, scale: float = 1.0) -> Model:
    constants = {
        "w1": kernel(16, 3, 3, 3, scale=0.3) * UNEVEN[:, None, None, None] * np.float32(scale),
        "b1": kernel(16, seed=1) * UNEVEN * np.float32(scale),
        "w2": kernel(16, 1, 3, 3, seed=2) if depthwise else kernel(8, 16, 1, 1, seed=2) / UNEVEN[None, :, None, None],
        "lo": np.asarray(0, np.float32), "hi": np.asarray(6, np.float32), "slope": np.full((16, 1, 1), 0.2, np.float32),
    }  # fmt: skip
    shape = (
        {"kernel": [3, 3], "group": 16, "pads": [1] * 4}
        if depthwise
        else {"kernel": [1, 1], "group": 1, "pads": [0] * 4}
    )
    text = CONV.format(activation=activation, **shape).replace("1,8,10", "1,16,10" if depthwise else "1,8,10")
    return typed(text, {k: v for k, v in constants.items() if f"{k}," in text or f"{k})" in text})


def _attention_net() -> Model:
    uneven = np.where(np.arange(16) % 8 == 0, 20.0, 1.0).astype(np.float32)
    constants = {"g": uneven, "b": kernel(16) * uneven, "q": kernel(16, 12, seed=1), "k": kernel(16, 12, seed=2)}
    constants["p"] = np.eye(16, dtype=np.float32)
    text = """(float[1,6,16] x) => (float[1,6,12] y)
    { s = MatMul(x, p) n = LayerNormalization<axis=-1>(s, g, b) a = MatMul(n, q) c = MatMul(n, k) y = Add(a, c) }"""
    return typed(text, constants)


def _observed(model: Model, feeds: Data) -> Statistics:
    """Statistics of every value, channel by channel."""
    probe = model.clone()
    names = {v.name for v in probe.graph.outputs}
    probe.graph.outputs.extend(v for n in probe.nodes() for v in n.outputs if v.name not in names)
    runs = [{**run_ort(probe, feed), **feed} for feed in feeds]
    stacked = {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
    values = {v.name: v for v in (*model.graph.inputs, *(v for n in model.nodes() for v in n.outputs))}
    tensors = {k: observe(v, channel_axis=channel_axis(values[k])) for k, v in stacked.items()}
    return Statistics(tensors=tensors, samples=len(feeds), digest="made-up")


def _residual_net() -> Model:
    """A normalisation that a sum reads beside the products: nobody can take the factors but a multiplication."""
    uneven = np.where(np.arange(64) % 8 == 0, 20.0, 1.0).astype(np.float32)
    constants = {"g": uneven, "b": kernel(64) * uneven, "q": kernel(64, 256, seed=1), "k": kernel(64, 256, seed=2)}
    constants |= {"p": np.eye(64, dtype=np.float32), "o": kernel(256, 64, seed=3)}
    text = """(float[1,6,64] x) => (float[1,6,64] y)
    { s = MatMul(x, p) n = LayerNormalization<axis=-1>(s, g, b) a = MatMul(n, q) c = MatMul(n, k) d = Sub(a, c)
      e = MatMul(d, o) y = Add(e, n) }"""
    return typed(text, constants)


def _setting(model: Model) -> tuple[Data, Statistics, QuantPlan]:
    feeds = Data([random_feeds(model, seed) for seed in range(16)])
    stats = _observed(model, feeds)
    return feeds, stats, _plan(model, stats, "minmax")


def _plan(model: Model, stats: Statistics | None, method: RangeChoice) -> QuantPlan:
    return make_plan(model, stats, TARGET, "tflite", "int8", range_method=method)


def _joined_net() -> Model:
    """Two branches of which one is a hundred times as wide, joined for a convolution."""
    constants = {"w1": kernel(8, 3, 1, 1) * 100, "w2": kernel(8, 3, 1, 1, seed=1), "w3": kernel(8, 16, 1, 1, seed=2)}
    constants["w3"][:, :8] /= 100
    text = """(float[1,3,10,10] x) => (float[1,8,10,10] y)
    { a = Conv(x, w1) ar = Relu(a) b = Conv(x, w2) br = Relu(b) c = Concat<axis=1>(ar, br) y = Conv(c, w3) }"""
    return typed(text, constants)


def _gated_net() -> Model:
    """What a gate lets through is uneven; it is the factor that no sigmoid gives."""
    constants = {"u": kernel(8, 16) * UNEVEN, "v": kernel(8, 16, seed=1), "w": kernel(16, 8, seed=2) / UNEVEN[:, None]}
    text = """(float[1,6,8] x) => (float[1,6,8] y)
    { a = MatMul(x, u) b = MatMul(x, v) g = Sigmoid(b) m = Mul(g, a) y = MatMul(m, w) }"""
    return typed(text, constants)


def _split_net() -> Model:
    """A gated linear unit along one axis, as speech models have it: one convolution gives both factors."""
    both = np.concatenate([UNEVEN, np.ones(16, np.float32)])
    constants = {"w1": kernel(32, 3, 3, scale=0.3) * both[:, None, None], "b1": kernel(32, seed=1) * both}
    constants |= {"w2": kernel(8, 16, 1, seed=2) / UNEVEN[None, :, None]}
    text = """(float[1,3,20] x) => (float[1,8,20] y)
    { c = Conv<kernel_shape=[3], pads=[1,1]>(x, w1, b1) a, b = Split<axis=1, num_outputs=2>(c) g = Sigmoid(b)
      m = Mul(a, g) y = Conv(m, w2) }"""
    return typed(text, constants)


def _sound_net(last: str) -> Model:
    """Convolutions along one axis: their channels are not the last axis."""
    constants: dict[str, Array] = {"w1": kernel(16, 3, 3, scale=0.3) * UNEVEN[:, None, None]}
    constants |= {"b1": kernel(16, seed=1) * UNEVEN}
    weight: Array = kernel(8, 16, 1, seed=2) / UNEVEN[None, :, None]
    constants |= {"w2": weight if last == "Conv" else np.ascontiguousarray(weight.transpose(1, 0, 2))}
    text = f"""(float[1,3,20] x) => (float[1,8,20] y)
    {{ a = Conv<kernel_shape=[3], pads=[1,1]>(x, w1, b1) r = Relu(a) y = {last}(r, w2) }}"""
    return typed(text, constants)


def _scaled_net() -> Model:
    """A normalisation written out, in float: its constant takes the factors, and no multiplication is added."""
    constants: dict[str, Array] = {"g": UNEVEN, "q": kernel(16, 12, seed=1) / UNEVEN[:, None]}
    constants |= {"k": kernel(16, 12, seed=2) / UNEVEN[:, None]}
    text = """(float[1,6,16] x) => (float[1,6,12] y)
    { s = Sin(x) n = Mul(s, g) a = MatMul(n, q) c = MatMul(n, k) y = Add(a, c) }"""
    return typed(text, constants)


NETS = {
    "concat": _joined_net(),
    "gate": _gated_net(),
    "gate of a split": _split_net(),
    "one axis": _sound_net("Conv"),
    "transposed": _sound_net("ConvTranspose"),
    "scale": _scaled_net(),
    "relu": _conv_net(),
    "prelu": _conv_net("PRelu(a, slope)"),
    "leaky relu": _conv_net("LeakyRelu<alpha=0.1>(a)"),
    "pool": _conv_net("MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)"),
    "relu6": _conv_net("Clip(a, lo, hi)", scale=0.05),
    "depthwise": _conv_net(depthwise=True),
    "layer norm": _attention_net(),
    "residual": _residual_net(),
}


@pytest.mark.parametrize("name", list(NETS))
def test_it_computes_the_same_and_measures_better(name: str) -> None:
    model = NETS[name]
    feeds, stats, plan = _setting(model)
    found = evener(model, stats, feeds.feeds)(plan)
    assert found is not None
    evened, fresh = found
    for feed in feeds:
        assert_same(model, evened, feed, relative=1e-5)
    judge = Judge(model, feeds.feeds)
    before = judge(apply_plan(model, plan))
    after = judge(apply_plan(evened, _plan(evened, fresh, "minmax")))
    # 3 dB: most of what one scale for channels of 1 and 30 costs. A LayerNorm's net has its input's noise as well, and
    # behind a depthwise convolution the large channels, which were good before, are all that is heard.
    assert after > before + {"layer norm": 1, "depthwise": 0.3, "residual": 1}.get(name, 3)


def test_what_float_writes_is_multiplied_for_int8_products_alone() -> None:
    model = _residual_net()
    _, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    assert found is not None and found[1].keys() == {"n/evened"}
    by_name = {node.outputs[0].name: node for node in found[0].nodes()}
    assert [by_name[v].inputs[0].name for v in "ac"] == ["n/evened", "n/evened"]  # type: ignore[union-attr]
    assert by_name["y"].inputs[1].name == "n"  # type: ignore[union-attr]
    # the multiplication itself stays in float: its reader rounds what it gives
    evened = evener(model, stats, [random_feeds(model, 0)])(plan)
    assert evened is not None
    again = _plan(*evened, "minmax")
    assert again.nodes[by_name["n/evened"].name or ""].scheme == "float32" and "n/evened" in again.activations


def test_both_halves_of_a_split_may_move() -> None:
    """Factors of one writer from two places are multiplied."""
    both = np.concatenate([UNEVEN, UNEVEN])
    constants = {"w1": kernel(32, 3, 1, 1) * both[:, None, None, None], "w2": kernel(8, 16, 1, 1, seed=2)}
    model = typed(
        """(float[1,3,6,6] x) => (float[1,8,6,6] y)
        { c = Conv(x, w1) a, b = Split<axis=1, num_outputs=2>(c) r = Relu(a) s = Relu(b)
          d = Conv(r, w2) e = Conv(s, w3) y = Add(d, e) }""",
        {**constants, "w3": kernel(8, 16, 1, 1, seed=3)},
    )
    feeds, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    assert found is not None
    assert found[1]["c"].factors == pytest.approx(np.concatenate([found[1]["r"].factors, found[1]["s"].factors]))
    assert_same(model, found[0], feeds.feeds[0], relative=1e-5)


def test_a_scale_of_float_needs_no_multiplication_of_its_own() -> None:
    model = NETS["scale"]
    _, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    assert found is not None and found[1].keys() == {"n"}
    assert operators(found[0]) == operators(model)


def test_the_exponent_is_the_one_that_leaves_the_least() -> None:
    """Channels of very different width whose weights are alike: more than half of the difference moves."""
    weight = kernel(64, 256, seed=1)
    model = typed("(float[1,6,64] x) => (float[1,6,256] y) { y = MatMul(x, w) }", {"w": weight})
    reader = next(model.nodes())
    ranges = np.where(np.arange(64) == 5, 50.0, 1.0)
    values = np.random.default_rng(0).uniform(-1, 1, (1, 600, 64)).astype(np.float32) * ranges.astype(np.float32)
    seen = observe(values, channel_axis=2)
    chosen, half = factors_of(ranges, [reader], seen), factors_of(ranges, [reader])
    assert chosen is not None and half is not None
    assert gain(chosen, seen, [reader]) >= gain(half, seen, [reader]) > 1.3
    flat = observe(values / ranges.astype(np.float32), channel_axis=2)
    even = factors_of(np.ones(64), [reader], flat)
    assert even is not None and gain(even, flat, [reader]) < 1.3


def test_the_ladder_keeps_it_where_it_helps() -> None:
    model = NETS["relu"]
    feeds, stats, _ = _setting(model)
    found = climb(model, _plan, stats, feeds.feeds, even=evener(model, stats, feeds.feeds))
    rung = next(rung for rung in found.rungs if rung.name == "equalisation")
    assert rung.kept and rung.before_db is not None and rung.after_db > rung.before_db
    assert found.evened is not None and Judge(model, feeds.feeds)(found.model) > rung.before_db
    without = climb(model, _plan, stats, feeds.feeds)
    assert without.evened is None and "equalisation" not in {rung.name for rung in without.rungs}


@pytest.mark.parametrize(
    ("activation", "why"),
    [
        ("Sigmoid(a)", "a sigmoid of a scaled value is another"),
        ("HardSwish(a)", "so is a hard swish"),
        ("Clip(a, lo, hi)", "and what reaches the ceiling already"),
        ("Add(a, a)", "a sum is not followed"),
    ],
)
def test_what_does_not_commute_is_left_alone(activation: str, why: str) -> None:
    model = _conv_net(activation)
    feeds, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    if found is None:
        return
    assert activation.startswith("Clip"), why  # channels that stay below the ceiling may move
    for feed in feeds:
        assert_same(model, found[0], feed, relative=1e-5)


def test_inputs_beyond_what_calibration_saw_do_not_reach_a_ceiling_that_they_did_not() -> None:
    """ReLU6: a channel that grew to 6 where it was seen would be cut off a little beyond, and float with it."""
    model = NETS["relu6"]
    feeds, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    assert found is not None
    for feed in feeds:
        assert_same(model, found[0], {name: value * np.float32(1.8) for name, value in feed.items()}, relative=1e-5)


def test_even_channels_and_other_readers_are_left_alone() -> None:
    even = typed(
        "(float[1,3,6,6] x) => (float[1,4,6,6] y) { a = Conv(x, w1) r = Relu(a) y = Conv(r, w2) }",
        {"w1": np.ones((4, 3, 1, 1), np.float32), "w2": np.ones((4, 4, 1, 1), np.float32)},
    )
    _, stats, plan = _setting(even)
    assert find_migrations(even, plan, stats.tensors) == ()
    read_twice = typed(
        """(float[1,3,10,10] x) => (float[1,8,10,10] y, float[1,16,10,10] r)
        { a = Conv<pads=[1,1,1,1]>(x, w1) r = Relu(a) y = Conv(r, w2) }""",
        {"w1": kernel(16, 3, 3, 3) * UNEVEN[:, None, None, None], "w2": kernel(8, 16, 1, 1)},
    )
    _, stats, plan = _setting(read_twice)
    assert find_migrations(read_twice, plan, stats.tensors) == ()  # the user reads r as well


def test_a_constant_that_others_read_stays_as_it_is() -> None:
    shared = kernel(16, 16, 1, 1) * UNEVEN[:, None, None, None]
    model = typed(
        """(float[1,16,6,6] x) => (float[1,16,6,6] y, float[1,16,6,6] z)
        { a = Conv(x, w) r = Relu(a) y = Conv(r, v) z = Conv(x, w) }""",
        {"w": shared, "v": kernel(16, 16, 1, 1, seed=1)},
    )
    feeds, stats, plan = _setting(model)
    found = equalize(model, plan, stats)
    assert found is not None
    assert_same(model, found[0], feeds.feeds[0], relative=1e-5)
