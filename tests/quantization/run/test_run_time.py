"""What dynamic-range kernels do at run time is written out as they do it, held against LiteRT's."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.base import CompileOptions, load_backend
from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.quantization.planning.plan import make_plan
from edgec.quantization.run.apply import apply_plan
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.run_time import round_at_run_time
from edgec.runners.base import run_artifact
from edgec.targets.load import load_target
from tests.support.graphs import random_feeds
from tests.support.plans import kernel, typed

TARGET = load_target("raspberrypi4")

NETS = {
    "rows": ("(float[1,12,64] x) => (float[1,12,48] y) { y = MatMul(x, w) }", (64, 48)),
    "samples": ("(float[1,16,9,9] x) => (float[1,32,9,9] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", (32, 16, 3, 3)),
}


def net(name: str) -> Model:
    text, shape = NETS[name]
    return typed(text, {"w": kernel(*shape, seed=3)})


@pytest.mark.parametrize("name", list(NETS))
def test_it_is_closer_to_the_runtime_than_the_plain_graph(name: str) -> None:
    model = net(name)
    quantized = apply_plan(model, make_plan(model, None, TARGET, "tflite", "dynamic"))
    artifact = load_backend("tflite").compile(quantized, TARGET, CompileOptions(precision="dynamic"))
    feed = random_feeds(model, 1)
    feed["x"] = feed["x"] * np.linspace(0.1, 5, feed["x"].shape[1], dtype=np.float32).reshape(
        -1, *[1] * (feed["x"].ndim - 2)
    )
    raw = run_artifact(artifact, [{b.artifact.name: b.to_artifact(feed[b.source.name]) for b in artifact.inputs}])[0]
    ran = artifact.outputs[0].to_source(raw[artifact.outputs[0].artifact.name])
    plain = Executor(quantized).run(feed)["y"]
    written = Executor(round_at_run_time(quantized.clone())).run(feed)["y"]
    # LiteRT rounds what it reads to 8 bits: about 40 dB away from the plain graph, and with the same rounding the same.
    assert sqnr_db(plain, ran) < 50
    assert sqnr_db(written, ran) > sqnr_db(plain, ran) + 15


def test_rows_of_zeros_and_other_schemes_stay() -> None:
    model = net("rows")
    quantized = apply_plan(model, make_plan(model, None, TARGET, "tflite", "dynamic"))
    feed = {"x": np.zeros((1, 12, 64), np.float32)}
    assert not Executor(round_at_run_time(quantized)).run(feed)["y"].any()
    plain = model.clone()
    count = sum(1 for _ in plain.nodes())
    assert sum(1 for _ in round_at_run_time(plain).nodes()) == count
