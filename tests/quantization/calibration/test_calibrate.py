"""Statistics measured inside the graph equal those of the activations; kept on disk, they are not measured again."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgec.errors import EdgecError, Severity
from edgec.graph.model import Model
from edgec.quantization.calibration import calibrate as calibrate_module
from edgec.quantization.calibration.cache import cache_folder, model_digest
from edgec.quantization.calibration.calibrate import calibrate
from edgec.quantization.calibration.collect import collect
from edgec.quantization.calibration.observers import observe
from edgec.quantization.calibration.probes import (
    SAMPLED_VALUES,
    float_activations,
    insert_probes,
    sample_array,
    stride_of,
)
from edgec.quantization.calibration.summary import summarize
from edgec.quantization.data.samples import open_samples
from edgec.quantization.run.executor import Executor
from edgec.tensors import Array
from tests.support.calibration import InMemory, inferred
from tests.support.graphs import graph
from tests.support.plans import typed

CONV = """(float[1,3,40,48] x) => (float[1,8] y) {
    c = Conv<pads = [1,1,1,1]>(x, w, b)
    r = Relu(c)
    p = GlobalAveragePool(r)
    y = Flatten(p)
}"""

TEXTS = '(string[1,2] x) => (bool[1,2] y) <string[2] words = {"a", "b"}> { y = Equal(x, words) }'


def _model(scale: float = 1.0) -> Model:
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal((8, 3, 3, 3)) * scale).astype(np.float32)
    return inferred(CONV, constants={"w": weight, "b": rng.standard_normal(8).astype(np.float32)})


def _samples(count: int = 7, seed: int = 0) -> InMemory:
    rng = np.random.default_rng(seed)
    return InMemory([{"x": rng.standard_normal((1, 3, 40, 48)).astype(np.float32)} for _ in range(count)])


def test_probes_see_what_the_activations_are(tmp_path: Path) -> None:
    model, samples = _model(), _samples()
    names = float_activations(model)
    assert names == ("x", "c", "r", "p", "y")
    stats = calibrate(model, samples, cache_dir=tmp_path)
    assert stats.samples == 7
    executor = Executor(model, fetch=names, any_layout=True)  # as calibration does
    runs = [executor.run(feed) for feed in samples]
    for name in names:
        whole = np.stack([run[name] for run in runs])
        sampled = np.concatenate([sample_array(run[name]) for run in runs])
        wanted = observe(whole, sampled=sampled)
        got = stats.tensors[name]
        assert (got.minimum, got.maximum) == (whole.min(), whole.max()), name
        assert (got.bin_width, got.first_bin) == (wanted.bin_width, wanted.first_bin), name
        assert np.array_equal(got.counts, wanted.counts), name
    channels = np.concatenate([run["c"] for run in runs])
    assert stats.tensors["c"].channel_min is not None
    assert np.array_equal(stats.tensors["c"].channel_min, channels.min(axis=(0, 2, 3)))


SEQUENCE = """(float[2,9,6] x) => (float[1,12] y) {
    m = MatMul(x, w)
    a = Relu(m)
    r = ReduceMean<keepdims = 0>(a, axes)
    y = Reshape(r, flat)
}"""


def test_channels_stand_last_in_sequences_and_a_single_row_is_its_own_range(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    constants: dict[str, Array] = {
        "w": rng.standard_normal((6, 12)).astype(np.float32),
        "axes": np.array([0, 1]),
        "flat": np.array([1, 12]),
    }
    model = inferred(SEQUENCE, constants=constants)
    samples = InMemory([{"x": rng.standard_normal((2, 9, 6)).astype(np.float32)} for _ in range(5)])
    stats = calibrate(model, samples, cache_dir=tmp_path)
    executor = Executor(model, fetch=("x", "m", "y"))
    for name in ("x", "m", "y"):
        rows = np.concatenate([run[name].reshape(-1, run[name].shape[-1]) for run in executor.run_all(samples)])
        low, high = stats.tensors[name].channel_min, stats.tensors[name].channel_max
        assert low is not None
        assert high is not None
        assert np.array_equal(low, rows.min(axis=0)), name
        assert np.array_equal(high, rows.max(axis=0)), name


def test_each_tensor_is_measured_before_the_next_layer_computes() -> None:
    """So that it is freed as early as without probes: memory does not add up over the layers of a deep model."""
    model = _model()
    probed = insert_probes(model, float_activations(model)).model
    order = [node.outputs[0].name for node in probed.graph]
    own = [order.index(node.outputs[0].name) for node in model.graph]
    readers = [(place, value.producer()) for place, node in enumerate(probed.graph) for value in node.inputs if value]
    checked = 0
    for place, producer in readers:
        if producer is not None and place not in own and order.index(producer.outputs[0].name) in own:
            later = [other for other in own if other > order.index(producer.outputs[0].name)]
            assert place < min(later, default=len(order))
            checked += 1
    assert checked >= 2 * len(own)  # ranges and the values of each


def test_order_changes_nothing(tmp_path: Path) -> None:
    model, feeds = _model(), list(_samples(9))
    a = calibrate(model, InMemory(feeds), cache_dir=tmp_path)
    b = calibrate(model, InMemory(feeds[::-1]), cache_dir=tmp_path)
    assert a.digest != b.digest  # really measured twice
    for name, stats in a.tensors.items():
        assert np.array_equal(stats.counts, b.tensors[name].counts)
        assert (stats.minimum, stats.maximum) == (b.tensors[name].minimum, b.tensors[name].maximum)
        assert np.array_equal(stats.lows, b.tensors[name].lows)


def test_the_number_of_cores_changes_nothing(tmp_path: Path) -> None:
    model, samples = _model(), _samples(21)
    found = [calibrate(model, samples, cache_dir=tmp_path / str(cores), threads=cores) for cores in (1, 2, 5)]
    assert samples.read >= 3 * 21  # measured each time
    for other in found[1:]:
        assert other.findings == found[0].findings
        for name, stats in found[0].tensors.items():
            assert np.array_equal(stats.counts, other.tensors[name].counts), name
            assert (stats.minimum, stats.maximum) == (other.tensors[name].minimum, other.tensors[name].maximum), name


@pytest.mark.parametrize("shape", [(1, 96, 112, 112), (1, 3, 640, 640), (1, 197, 192), (1, 1000), (5,)])
def test_the_stride_visits_every_channel_and_column(shape: tuple[int, ...]) -> None:
    stride = stride_of(shape)
    assert all(math.gcd(stride, dim) == 1 for dim in shape[1:])
    taken = len(range(0, math.prod(shape), stride))
    assert min(SAMPLED_VALUES, math.prod(shape)) / 2 <= taken <= 2 * SAMPLED_VALUES


def test_a_second_run_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = _model(), _samples()
    first = calibrate(model, samples, cache_dir=tmp_path)
    read = samples.read
    monkeypatch.setattr(calibrate_module, "collect", None)
    second = calibrate(model.clone(), samples, cache_dir=tmp_path)
    assert samples.read == read
    assert second.digest == first.digest
    assert second.findings == first.findings
    for name, stats in first.tensors.items():
        kept = second.tensors[name]
        assert (kept.minimum, kept.maximum, kept.bin_width) == (stats.minimum, stats.maximum, stats.bin_width)
        assert np.array_equal(kept.counts, stats.counts)
        assert kept.channel_max is not None
        assert stats.channel_max is not None
        assert np.array_equal(kept.channel_max, stats.channel_max)
        assert len(stats.lows) == stats.runs == kept.runs == 7
        assert np.array_equal(kept.lows, stats.lows)
        assert np.array_equal(kept.highs, stats.highs)


def test_the_cache_knows_model_data_and_tensors_apart(tmp_path: Path) -> None:
    digests = {
        calibrate(_model(), _samples(), cache_dir=tmp_path).digest,
        calibrate(_model(scale=2.0), _samples(), cache_dir=tmp_path).digest,
        calibrate(_model(), _samples(seed=5), cache_dir=tmp_path).digest,
        calibrate(_model(), _samples(count=3), cache_dir=tmp_path).digest,
        calibrate(_model(), _samples(), tensors=["c"], cache_dir=tmp_path).digest,
    }
    assert len(digests) == 5
    assert model_digest(_model()) == model_digest(_model())


def test_the_digest_knows_texts_apart() -> None:
    first, other, again = (graph(TEXTS).clone() for _ in range(3))
    for model, words in ((first, ["rot", "grün"]), (other, ["rot", "blau"]), (again, ["rot", "grün"])):
        model.graph.initializers["words"].const_value = ir.StringTensor(np.asarray([w.encode() for w in words], object))
    assert model_digest(first) == model_digest(again) != model_digest(other)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_a_damaged_cache_is_ignored(tmp_path: Path, damage: bytes | None) -> None:
    first = calibrate(_model(), _samples(), cache_dir=tmp_path)
    (file,) = (tmp_path / "statistics").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    again = calibrate(_model(), _samples(), cache_dir=tmp_path)
    assert np.array_equal(again.tensors["c"].counts, first.tensors["c"].counts)
    assert file.read_bytes() == content  # written anew, byte for byte
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    assert calibrate(_model(), _samples(), cache_dir=blocked).samples == 7


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "edgec"
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_only_the_tensors_asked_for(tmp_path: Path) -> None:
    stats = calibrate(_model(), _samples(), tensors=["r", "c"], cache_dir=tmp_path)
    assert set(stats.tensors) == {"r", "c"}
    with pytest.raises(EdgecError) as caught:
        calibrate(_model(), _samples(), tensors=["rr"], cache_dir=tmp_path)
    assert caught.value.code == "graph/unknown-tensor"
    assert "'r'" in caught.value.finding.hint


def test_nan_that_makes_a_reduction_forget_its_extremes() -> None:
    """Exp of Exp overflows, and infinity less infinity is NaN: the runtime's maximum then lacks what came before it."""
    model = typed(
        "(float[1,8,16] x) => (float[1,8,16] y) { b = Exp(x) c = Exp(b) e = Mul(c, k) y = Sub(e, c) }",
        {"k": np.asarray(3, np.float32)},
    )
    rng = np.random.default_rng(1)
    samples = [{"x": (rng.normal(size=(1, 8, 16)) * 4).astype(np.float32)} for _ in range(8)]
    halves = collect(model, InMemory(samples), float_activations(model))
    given = np.concatenate([sample["x"].ravel() for sample in samples])
    with np.errstate(over="ignore", invalid="ignore"):
        c = np.exp(np.exp(given))
        y = c * np.float32(3) - c
    assert halves.merged()["y"].maximum >= y[np.isfinite(y)].max() * (1 - 1e-3)


def test_nan_and_infinities_are_found_and_left_out(tmp_path: Path) -> None:
    model = inferred("(float[1,64] x) => (float[1,64] y) { a = Log(x)  y = Sqrt(x) }")
    feeds = [{"x": np.linspace(0.5, 2, 64, dtype=np.float32).reshape(1, 64)} for _ in range(4)]
    feeds[1]["x"] = feeds[1]["x"].copy()
    feeds[1]["x"][0, 0] = -1.0  # NaN from both
    feeds[2]["x"] = feeds[2]["x"].copy()
    feeds[2]["x"][0, 3] = 0.0  # -inf from Log
    stats = calibrate(model, InMemory(feeds), cache_dir=tmp_path, tensors=["a", "y"])
    found = {f.severity: f for f in stats.findings if f.code == "calibration/not-finite"}
    assert found[Severity.WARNING].where == "a"
    assert "2 tensors" in found[Severity.WARNING].message
    assert "1 of 4 runs" in found[Severity.INFO].message
    assert np.isfinite([stats.tensors["a"].minimum, stats.tensors["a"].maximum]).all()
    assert stats.tensors["a"].maximum == pytest.approx(math.log(2.0), abs=1e-6)


def test_float16_scalars_and_shapes_known_only_at_run_time(tmp_path: Path) -> None:
    model = inferred(
        """(float[1,8] x) => (float[n] y) {
            h = Cast<to = 10>(x)
            s = ReduceSum<keepdims = 0>(x)
            m = Greater(x, zero)
            y = Compress(x, flat)
        }""",
        constants={"zero": np.zeros((), np.float32), "flat": np.array([True, False, True])},
    )
    feeds = [{"x": np.full((1, 8), i, np.float32)} for i in (1, 2, 3)]
    stats = calibrate(model, InMemory(feeds), cache_dir=tmp_path)
    assert set(stats.tensors) == {"x", "h", "s", "y"}
    assert (stats.tensors["s"].minimum, stats.tensors["s"].maximum) == (8.0, 24.0)
    assert (stats.tensors["y"].minimum, stats.tensors["y"].maximum) == (1.0, 3.0)
    assert (stats.tensors["h"].minimum, stats.tensors["h"].maximum) == (1.0, 3.0)


def test_progress_counts_the_runs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    calibrate(_model(), _samples(5), cache_dir=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]


def test_samples_of_the_wrong_shape_are_an_error(tmp_path: Path) -> None:
    wrong = InMemory([{"x": np.zeros((1, 3, 8, 8), np.float32)}])
    with pytest.raises(EdgecError) as caught:
        calibrate(_model(), wrong, cache_dir=tmp_path)
    assert caught.value.code == "graph/run-failed"


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    model = _model()
    peaks = []
    for count in (10, 1000):
        path = tmp_path / f"{count}.npy"
        np.save(path, np.random.default_rng(0).standard_normal((count, 3, 40, 48), dtype=np.float32))
        samples = open_samples(path, model.inputs(), count=count)
        tracemalloc.start()
        stats = calibrate(model, samples, cache_dir=tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert stats.samples == count
    assert path.stat().st_size > 20e6
    assert peaks[1] < 1.25 * peaks[0] + 1e6


DEEP = """
import resource, sys
from pathlib import Path
import numpy as np
from edgec.quantization.calibration.calibrate import calibrate
from tests.support.calibration import InMemory, inferred

def peak(layers):
    body = " ".join(f"c{i + 1} = {('Neg', 'Relu')[i % 2]}(c{i})" for i in range(layers))
    model = inferred(f"(float[1,4,512,512] c0) => (float[1,4,512,512] c{layers}) {{ {body} }}")
    feeds = [{"c0": np.full((1, 4, 512, 512), i, np.float32)} for i in range(4)]
    stats = calibrate(model, InMemory(feeds), cache_dir=Path(sys.argv[1]), threads=2)
    assert len(stats.tensors) == layers + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

print(peak(5), peak(85))
"""


def test_memory_does_not_grow_with_the_depth_of_the_model(tmp_path: Path) -> None:
    """80 more activations of 4 MB take no more room than a few of them: each is measured and freed."""
    command = [sys.executable, "-c", DEEP, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    shallow, deep = map(int, done.stdout.split())
    assert deep - shallow < 100 << 20  # both runs' activations would be 640 MB, one run's 320 MB


def test_the_summary_names_what_is_cut_most(tmp_path: Path) -> None:
    stats = calibrate(_model(), _samples(30), cache_dir=tmp_path)
    summary = summarize(stats, method="percentile", percentile=99.0)
    by_name = {tensor.name: tensor for tensor in summary.tensors}
    assert by_name["x"].saturation == pytest.approx(0.02, abs=0.003)
    assert 0.5 < by_name["x"].coverage < 0.8
    assert summary.worst(1)[0].coverage == min(t.coverage for t in summary.tensors)
    whole = summarize(stats, method="minmax")
    assert all(t.coverage == 1.0 and t.saturation == 0.0 for t in whole.tensors)
    assert set(whole.as_dict()) == {"samples", "method", "tensors", "findings"}
