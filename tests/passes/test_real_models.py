"""Every real model canonicalises to static shapes and computes what it computed before."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tests.support.graphs import has_static_shapes, operators, run_ort
from tests.support.models import REAL_MODELS, model_inputs, model_path

#: Nodes that canonicalising must leave none of.
GONE = frozenset({"BatchNormalization", "Constant", "Dropout", "Erf", "Identity", "Shape"})

#: Its sigmoid turns rounding into 1.3e-5 between ONNX Runtime's own optimisation levels already.
RELATIVE = {"ppocr_det_v4": 4e-5}


def feeds_like_data(model: Model, seed: int) -> dict[str, Array]:
    """Smooth images with black writing on white for the text detectors, noise for the rest."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for spec in model.inputs():
        if len(spec.shape) == 4:
            page = np.ones(spec.shape, np.float32)
            for row in range(8, spec.shape[2] - 8, 24):
                strokes = rng.random((spec.shape[0], 1, 12, spec.shape[3])) < 0.4
                page[:, :, row : row + 12] -= 2 * strokes * (np.arange(spec.shape[3]) % 64 < 48)
            feeds[spec.name] = page + 0.1 * rng.standard_normal(spec.shape).astype(np.float32)
        else:
            feeds[spec.name] = rng.uniform(-1, 1, spec.shape).astype(np.float32)
    return feeds


@pytest.mark.parametrize("name", REAL_MODELS)
def test_canonical_model_computes_the_same(name: str) -> None:
    path = model_path(name)
    loaded = load_source(path, inputs=model_inputs(name))
    model = canonicalize(loaded.model)
    assert has_static_shapes(model)
    assert not GONE & operators(model).keys()
    feeds = feeds_like_data(model, seed=1)
    before, after = run_ort(str(path), feeds), run_ort(model, feeds)
    assert before.keys() == after.keys()
    for output, wanted in before.items():
        scale = max(float(np.abs(wanted).max()), 1e-2)
        error = float(np.abs(after[output] - wanted).max())
        assert error <= RELATIVE.get(name, 1e-5) * scale, f"{output}: {error:g} of {scale:g}"


def test_source_is_left_as_it_is() -> None:
    loaded = load_source(model_path("ulfg_slim"))
    before = loaded.model.to_bytes()
    canonicalize(loaded.model)
    assert loaded.model.to_bytes() == before


def test_two_runs_give_the_same_bytes() -> None:
    path = model_path("ulfg_rfb")
    first, second = (canonicalize(load_source(path).model).to_bytes() for _ in range(2))
    assert first == second


EXPECTED = {
    "ppocr_cls": {"HardSwish": 18, "Gemm": 1, "Div": 0, "BatchNormalization": 0},
    "ppocr_det_v6": {"Gelu": 13, "Div": 0},
    "vit_tiny": {"Gelu": 12, "LayerNormalization": 25, "Div": 0},
    "ulfg_rfb": {"Conv": 52, "Softmax": 1, "Gather": 0, "Flatten": 0},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_patterns_come_back_as_one_operator(name: str) -> None:
    model = canonicalize(load_source(model_path(name), inputs=model_inputs(name)).model)
    counts = operators(model)
    assert {op: counts[op] for op in EXPECTED[name]} == EXPECTED[name]


@pytest.mark.parametrize("name", ["ppocr_cls", "ulfg_slim"])
def test_every_single_pass_keeps_the_numbers(name: str) -> None:
    source = load_source(model_path(name), inputs=model_inputs(name)).model
    feeds = feeds_like_data(source, seed=2)
    wanted = run_ort(source, feeds)
    steps: list[str] = []

    def compare(step: str, model: Model) -> None:
        steps.append(step)
        for output, got in run_ort(model, feeds).items():
            error = float(np.abs(got - wanted[output]).max())
            assert error <= 1e-5 * max(float(np.abs(wanted[output]).max()), 1e-2), f"{step}: {output} off by {error:g}"

    canonicalize(source, observer=compare)
    assert {"fold-constants", "fuse-affine"} <= set(steps)
