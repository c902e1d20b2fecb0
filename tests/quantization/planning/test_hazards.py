"""Structures that ruin int8: what they cost before (ONNX Runtime's static quantizer, min-max) and after (ours).

Every net is small; dB are of the worst output, on samples that nobody has calibrated with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.backends.base import load_backend
from edgec.graph.model import Model, SourceInfo
from edgec.passes.pipelines import canonicalize
from edgec.quantization.calibration.calibrate import calibrate
from edgec.quantization.calibration.range_choice import RangeChoice
from edgec.quantization.measures.judge import Judge
from edgec.quantization.planning.plan import make_plan, tensors_to_observe
from edgec.quantization.repair.even import evener
from edgec.quantization.repair.ladder import climb
from edgec.quantization.types import QuantPlan, Statistics
from edgec.targets.load import load_target
from edgec.tensors import Array
from tests.support.plans import kernel, typed

TARGET = load_target("raspberrypi4")
SCHEME = TARGET.backends["tflite"].scheme


class Data:
    """Samples as calibration takes them."""

    findings = ()

    def __init__(self, feeds: list[dict[str, Array]]) -> None:
        self.feeds, self.count, self.digest = feeds, len(feeds), "hazards"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self.feeds)


def _image(rng: np.random.Generator) -> dict[str, Array]:
    return {"x": (rng.standard_normal((1, 3, 12, 12)) * rng.uniform(0.5, 1.5)).astype(np.float32)}


def _sequence(rng: np.random.Generator) -> dict[str, Array]:
    keep = (np.arange(8) < rng.integers(3, 9)).astype(np.float32)
    return {"x": rng.standard_normal((1, 8, 16)).astype(np.float32), "keep": keep.reshape(1, 1, 8)}


def _spiky(rng: np.random.Generator) -> dict[str, Array]:
    """Now and then a value six times as large as it should be."""
    values = rng.standard_normal((1, 3, 12, 12))
    values[rng.random(values.shape) < 0.0005] *= 6
    return {"x": values.astype(np.float32)}


def boxes_and_scores() -> Model:
    """A detector's output: boxes in pixels and scores from 0 to 1 in one tensor."""
    constants = {"w": kernel(16, 3, 3, 3), "b": kernel(4, 16, 1, 1) * 60, "s": kernel(4, 16, 1, 1, seed=1)}
    return typed(
        """(float[1,3,12,12] x) => (float[1,8,10,10] y)
        { a = Conv(x, w) r = Relu(a) c = Conv(r, b) d = Conv(r, s) e = Sigmoid(d) y = Concat<axis=1>(c, e) }""",
        constants,
    )


def wide_and_narrow_branches() -> Model:
    """The same inside a net, where a convolution reads the joined branches."""
    last = kernel(8, 16, 1, 1, seed=2)
    last[:, :8] /= 200
    constants = {"a": kernel(8, 3, 1, 1) * 200, "b": kernel(8, 3, 1, 1, seed=1), "l": last}
    return typed(
        """(float[1,3,12,12] x) => (float[1,8,12,12] y)
        { c = Conv(x, a) cr = Relu(c) d = Conv(x, b) dr = Relu(d) j = Concat<axis=1>(cr, dr) y = Conv(j, l) }""",
        constants,
    )


def masked_attention() -> Model:
    """Scores of positions that do not count become −1e9 before the softmax."""
    constants = {name: kernel(16, 16, seed=i) * np.float32(0.5) for i, name in enumerate("qkvo")}
    constants |= {"one": np.asarray(1, np.float32), "far": np.asarray(-1e9, np.float32)}
    return typed(
        """(float[1,8,16] x, float[1,1,8] keep) => (float[1,8,16] y)
        { a = MatMul(x, q) b = MatMul(x, k) c = MatMul(x, v) bt = Transpose<perm=[0,2,1]>(b) s = MatMul(a, bt)
          m = Sub(one, keep) f = Mul(m, far) t = Add(s, f) p = Softmax<axis=-1>(t) e = MatMul(p, c)
          y = MatMul(e, o) }""",
        constants,
    )


def infinite_pad() -> Model:
    """A Pad with the lowest float before a MaxPool."""
    constants = {"w": kernel(8, 3, 3, 3), "v": kernel(4, 8, 1, 1, seed=1)}
    constants |= {"low": np.asarray(-3.4e38, np.float32), "pads": np.asarray([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,5,5] y)
        { a = Conv(x, w) b = Pad(a, pads, low) p = MaxPool<kernel_shape=[3,3], strides=[2,2]>(b) y = Conv(p, v) }""",
        constants,
    )


def long_tail() -> Model:
    """SiLU, which a few values stretch far beyond the others."""
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,10,10] y)
        { a = Conv(x, w) g = Sigmoid(a) m = Mul(a, g) y = Conv(m, v) }""",
        {"w": kernel(16, 3, 3, 3, scale=0.2), "v": kernel(4, 16, 1, 1, seed=1)},
    )


def dead_channels() -> Model:
    """Channels whose weights are all but zero, and whose bias is not."""
    weight = kernel(8, 3, 3, 3)
    weight[::2] *= 1e-9
    bias = kernel(8, seed=3) + 3
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,10,10] y) { a = Conv(x, w, b) r = Relu(a) y = Conv(r, v) }""",
        {"w": weight, "b": bias, "v": kernel(4, 8, 1, 1, seed=1)},
    )


def uneven_product() -> Model:
    """A gate that scales a wide tensor down to almost nothing: the ratio of scales leaves what kernels take."""
    constants = {
        "w": kernel(8, 3, 1, 1) * 1000,
        "g": np.asarray(1e-6, np.float32),
        "v": kernel(4, 8, 1, 1, seed=1) * 1000,
    }
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,12,12] y) { a = Conv(x, w) m = Mul(a, g) r = Relu(m) y = Conv(r, v) }""",
        constants,
    )


def overflowing_bias() -> Model:
    """Channels of next to no weights and a large bias: in steps of the accumulator it needs more than 32 bits."""
    weight = kernel(8, 3, 3, 3)
    weight[::2] *= 1e-7
    bias = kernel(8, seed=3)
    bias[::2] = 3 + np.arange(4)
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,10,10] y) { a = Conv(x, w, b) h = HardSwish(a) y = Conv(h, v) }""",
        {"w": weight, "b": bias, "v": kernel(4, 8, 1, 1, seed=1)},
    )


def wide_softmax() -> Model:
    """Attention scores with a bias by position that is large in one row: steps that hold it are too wide for others."""
    bias = np.zeros((1, 8, 8), np.float32)
    bias[0, 0] = np.linspace(-300, 300, 8)
    constants: dict[str, Array] = {name: kernel(16, 16, seed=i) * np.float32(0.4) for i, name in enumerate("qkvo")}
    return typed(
        """(float[1,8,16] x, float[1,1,8] keep) => (float[1,8,16] y)
        { a = MatMul(x, q) b = MatMul(x, k) c = MatMul(x, v) bt = Transpose<perm=[0,2,1]>(b) s = MatMul(a, bt)
          m = Mul(s, keep) t = Add(m, bias) p = Softmax<axis=-1>(t) e = MatMul(p, c) y = MatMul(e, o) }""",
        {**constants, "bias": bias},
    )


def uneven_sum() -> Model:
    """A residual branch ten thousand times smaller than what it is added to: ADD kernels take a thousandth at least."""
    constants = {"w": kernel(8, 3, 1, 1) * 100, "t": kernel(8, 3, 1, 1, seed=1) / 100, "l": kernel(4, 8, 1, 1, seed=2)}
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,12,12] y)
        { a = Conv(x, w) b = Conv(x, t) s = Add(a, b) r = Relu(s) y = Conv(r, l) }""",
        constants,
    )


def cancelling_sum() -> Model:
    """Two branches that cancel but for a thousandth: the sum is finer than a step of either."""
    weight = kernel(8, 3, 1, 1)
    constants = {"w": weight, "t": -weight + kernel(8, 3, 1, 1, seed=1) / 1000, "l": kernel(4, 8, 1, 1, seed=2) * 1000}
    return typed(
        """(float[1,3,12,12] x) => (float[1,4,12,12] y)
        { a = Conv(x, w) b = Conv(x, t) s = Add(a, b) r = Relu(s) y = Conv(r, l) }""",
        constants,
    )


def _before(model: Model, feeds: list[dict[str, Array]], folder: Path) -> Model:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]  # a class found at run time
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._left, None)

    source, result = folder / "float.onnx", folder / "quantized.onnx"
    source.write_bytes(model.to_bytes())
    form, kind = quantization.QuantFormat.QDQ, quantization.QuantType.QInt8
    quantization.quantize_static(
        str(source), str(result), Reader(), quant_format=form, per_channel=True, activation_type=kind, weight_type=kind
    )
    return Model(ir=ir.load(result), source=SourceInfo(kind="onnx", name="q", digest=""), name="q")


def _after(model: Model, data: Data) -> tuple[Model, QuantPlan]:
    legal = load_backend("tflite").legalize(canonicalize(model), TARGET, "int8")
    stats = calibrate(legal, data, tensors=tensors_to_observe(legal, SCHEME))

    def make(of: Model, seen: Statistics | None, method: RangeChoice) -> QuantPlan:
        return make_plan(of, seen, TARGET, "tflite", "int8", range_method=method)

    found = climb(legal, make, stats, data.feeds, even=evener(legal, stats, data.feeds))
    return found.model, found.plan


#: Net, its samples, the least that ours keeps, and how much more that is than before (dB; -1 is the noise of a draw).
HAZARDS: dict[str, tuple[Callable[[], Model], Callable[[np.random.Generator], dict[str, Array]], float, float]] = {
    "boxes and scores": (boxes_and_scores, _image, 30, -1),
    "wide and narrow branches": (wide_and_narrow_branches, _image, 25, 20),
    "masked attention": (masked_attention, _sequence, 20, 15),
    "infinite pad": (infinite_pad, _image, 30, 20),
    "long tail": (long_tail, _spiky, 20, -1),
    "dead channels": (dead_channels, _image, 30, -1),
    "overflowing bias": (overflowing_bias, _image, 25, 0),
    "wide softmax": (wide_softmax, _sequence, 20, 8),
    "uneven sum": (uneven_sum, _image, 25, -1),
    "uneven product": (uneven_product, _image, 28, 0),
}


@pytest.mark.parametrize("name", list(HAZARDS))
def test_before_and_after(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    make, sample, least, gain = HAZARDS[name]
    rng = np.random.default_rng(0)
    model = make()
    feeds = [sample(rng) for _ in range(24)]
    fresh = [sample(rng) for _ in range(12)]
    judge = Judge(model, fresh)
    before = judge(_before(model, feeds, tmp_path))
    after = judge(_after(model, Data(feeds))[0])
    print(f"{name}: {before:.1f} dB before, {after:.1f} dB after")
    assert after >= least and after >= before + gain


def test_scores_keep_their_own_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined with boxes in pixels, scores would have a handful of values left: the join is float."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    model, feeds = boxes_and_scores(), [_image(rng) for _ in range(24)]
    quantized, plan = _after(model, Data(feeds))
    assert plan.nodes["Concat_y"].scheme == "float32"
    assert plan.nodes["Conv_c"].scheme == plan.nodes["Conv_d"].scheme == "int8"
    scores = typed_outputs(model, quantized, feeds[:4])
    before = typed_outputs(model, _before(model, feeds, tmp_path), feeds[:4])
    assert scores > 30 and scores > before + 20


def _planned(model: Model) -> QuantPlan:
    rng = np.random.default_rng(0)
    return _after(model, Data([_image(rng) for _ in range(8)]))[1]


def test_the_small_term_of_a_sum_gets_a_scale_that_the_kernel_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    plan = _planned(uneven_sum())
    small, total = plan.activations["b"], plan.activations["r"]
    assert plan.nodes["Add_s"].scheme == "int8"
    assert SCHEME.add_scale_ratio is not None
    assert SCHEME.add_scale_ratio[0] <= small.qparams.scale[0] / total.qparams.scale[0] < 0.002
    assert "raised to the kernel's limit" in small.reason


def test_terms_that_cancel_keep_the_sum_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their scales are more than 256 times the sum's, which no kernel takes and no scale could mend."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    plan = _planned(cancelling_sum())
    assert plan.nodes["Add_s"].scheme == "float32"
    assert "outside the kernel's limits" in plan.nodes["Add_s"].reason


def test_a_bias_that_overflows_raises_the_scale_of_its_channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    plan = _planned(overflowing_bias())
    bias = plan.biases["b"].qparams.scale
    wanted = [float(v) for v in np.asarray(overflowing_bias().ir.graph.initializers["b"].const_value)]
    assert max(abs(v) / s for v, s in zip(wanted, bias, strict=True)) < 2**31 - 1
    assert "raised for 4 of 8" in plan.weights["w"].reason


def typed_outputs(model: Model, quantized: Model, feeds: list[dict[str, Array]]) -> float:
    """dB of the scores alone: the last four channels."""
    from edgec.metrics import sqnr_db
    from edgec.quantization.run.executor import Executor

    expected, actual = (np.stack([Executor(m).run(feed)["y"][:, 4:] for feed in feeds]) for m in (model, quantized))
    return sqnr_db(expected, actual)
