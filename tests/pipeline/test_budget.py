"""A budget on labelled data: met with the fewest nodes in float, or refused; resumed where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import BuildResult, forms, mixing, run_build
from edgec.pipeline.budget import Budget, BudgetOptions, open_budget, parse_drop
from edgec.pipeline.forms import Build
from edgec.pipeline.speed import Speeds
from edgec.quantization.data.recipe import Recipe
from edgec.quantization.mix.memo import Memo
from edgec.report.render import render_build
from tests.support.graphs import run_ort
from tests.support.plans import kernel, typed

#: The second layer's outputs share a scale with one that is a thousand times as large.
NET = """(float[1,16] x) => (float[1,8] y)
{ a = Gemm(x, w1) ar = Relu(a) b = Gemm(ar, w2) c = Mul(b, unevenly) d = Gemm(c, w3) dr = Relu(d)
  y = Gemm(dr, w4) }"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def _write(folder: Path, *, reads_first: bool = True) -> tuple[Path, Path]:
    """The net, and samples labelled with what it says itself: float is right every time."""
    uneven, last = np.ones((1, 16), np.float32), kernel(16, 16, seed=4)
    uneven[0, 0], last[0] = 1000, last[0] / 1000 if reads_first else 0
    constants = {"w1": kernel(16, 16), "w2": kernel(16, 16, seed=2), "unevenly": uneven, "w3": last}
    model = typed(NET, {**constants, "w4": kernel(16, 8, seed=6)})
    (folder / "net.onnx").write_bytes(model.to_bytes())
    data = np.random.default_rng(1).standard_normal((200, 16)).astype(np.float32)
    labels = [int(run_ort(model, {"x": row[None]})["y"].argmax()) for row in data]
    np.savez(folder / "data.npz", x=data, labels=np.asarray(labels))
    return folder / "net.onnx", folder / "data.npz"


def _built(folder: Path, **options: Any) -> BuildResult:
    model, data = _write(folder)
    options = {"precision": "int8", "stop_after": "bundle", "effort": "fast", "max_drop": "1%", **options}
    return run_build(model, target="raspberrypi4", calibration=data, output=folder / "dist", **options)


def test_a_metric_is_kept_with_a_few_nodes_in_float(tmp_path: Path) -> None:
    summary = _built(tmp_path).summary
    task = summary["fidelity"]["task"]
    assert task["name"] == "top1" and task["float"] == 1.0 and 0 <= task["drop"] <= 0.01
    assert 0 < len(summary["mixed"]["reverted"]) < 7
    met = [point["met"] for point in summary["frontier"]]
    assert met == sorted(met) and met[-1]  # fewer nodes in float miss the budget, more keep it
    assert "top1" in summary["frontier"][0]["judged"] and "nodes reverted for accuracy" in summary["why"]


def test_no_drop_allowed_and_none_possible(tmp_path: Path) -> None:
    function = tmp_path / "strict.py"
    function.write_text(
        "import numpy as np\nfirst = []\ndef exact(outputs, labels):\n"
        "    rows = np.stack([o['y'] for o in outputs])\n    first.append(rows)\n"
        "    return float(np.mean(rows == first[0]))\n"
    )
    asked = {"metric": f"{function}:exact", "max_drop": "0"}
    with pytest.raises(EdgecError) as error:
        _built(tmp_path, **asked)
    assert error.value.code == "quant/budget-missed" and not list((tmp_path / "dist").glob("*.edgec"))
    assert "--ship-anyway" in error.value.finding.hint
    shipped = _built(tmp_path, **asked, ship_anyway=True)
    (told,) = [f for f in shipped.findings if f.code == "quant/budget-missed"]
    assert "--ship-anyway" not in told.hint and shipped.bundle is not None
    assert not any(point["met"] for point in shipped.summary["frontier"])


def test_auto_goes_on_to_what_keeps_the_budget(tmp_path: Path) -> None:
    summary = _built(tmp_path, precision="auto").summary
    assert summary["fidelity"].get("task", {"drop": 0})["drop"] <= 0.01


def test_auto_mixes_as_many_nodes_as_it_takes_where_that_is_no_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "measured", lambda racers, _: Speeds(kind="measured", ms=dict.fromkeys(racers, 1.0)))
    # Two channels before a SiLU are a thousand times as large, which the next layer undoes.
    first, second = kernel(16, 32), kernel(32, 32, seed=2)
    first[:, :2] *= 1000
    second[:2] /= 1000
    text = """(float[1,16] x) => (float[1,8] y)
    { a = Gemm(x, w1) sa = Sigmoid(a) b = Mul(a, sa) c = Gemm(b, w2) cr = Relu(c) d = Gemm(cr, w3) dr = Relu(d)
      y = Gemm(dr, w4) }"""
    model = typed(text, {"w1": first, "w2": second, "w3": kernel(32, 32, seed=3), "w4": kernel(32, 8, seed=4)})
    (tmp_path / "net.onnx").write_bytes(model.to_bytes())
    np.save(tmp_path / "data.npy", np.random.default_rng(1).standard_normal((60, 16)).astype(np.float32))
    options: dict[str, Any] = {"target": "raspberrypi4", "calibration": tmp_path / "data.npy", "output": tmp_path}
    summary = run_build(tmp_path / "net.onnx", stop_after="bundle", **options).summary
    assert summary["precision"] == "int8" and "nodes reverted for accuracy" in summary["why"]
    assert summary["fidelity"]["sqnr_db"] > 20 and summary["nodes"].get("dynamic", 0) + summary["nodes"].get("int8", 0)


def test_a_search_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Memo] = []

    class Watched(Memo):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            used.append(self)

    monkeypatch.setattr(mixing, "Memo", Watched)
    first, again = _built(tmp_path), _built(tmp_path)
    assert used[1].reused >= used[0].reused + 5
    assert first.summary["frontier"] == again.summary["frontier"]
    assert "taken_up" not in first.summary and again.summary["taken_up"] == used[1].taken_up > 5
    assert "measurements of an earlier search" in render_build(again.summary)
    assert first.path.read_bytes() == again.path.read_bytes()
    path = next((tmp_path / "cache" / "searches").iterdir())
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:3]) + whole[3][:10])  # cut off in the middle of a line
    assert _built(tmp_path).summary["frontier"] == first.summary["frontier"] and used[2].reused == used[0].reused + 3


#: Counts its calls in a file; kills the process at one of them, as a power cut would.
_MORTAL = """
import os, pathlib, signal
import numpy as np
def right(outputs, labels):
    calls = pathlib.Path(os.environ["CALLS"])
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if len(calls.read_text()) == int(os.environ.get("LAST", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(np.mean([int(o["y"].argmax()) == int(label) for o, label in zip(outputs, labels)]))
"""


def test_a_killed_search_gives_the_same_answer_with_less_work(tmp_path: Path) -> None:
    model, data = _write(tmp_path)
    function = tmp_path / "mortal.py"
    function.write_text(_MORTAL)
    build = (
        "import json, sys; from edgec.pipeline import run_build; print(json.dumps(run_build(sys.argv[1], "
        "target='raspberrypi4', calibration=sys.argv[2], precision='int8', effort='fast', max_drop='1%', "
        "metric=sys.argv[3], stop_after='quantize', output=sys.argv[4]).summary))"
    )

    def run(name: str, cache: str, last: int = 0) -> tuple[int, str, int]:
        calls, out = tmp_path / f"calls-{name}", tmp_path / f"out-{name}"
        done = subprocess.run(
            [sys.executable, "-c", build, str(model), str(data), f"{function}:right", str(out)],
            env={**os.environ, "EDGEC_CACHE": str(tmp_path / cache), "CALLS": str(calls), "LAST": str(last)},
            capture_output=True,
            text=True,
            check=False,
        )
        plan = out / "net.plan.json"
        return done.returncode, plan.read_text() if plan.exists() else "", len(calls.read_text())

    whole = run("whole", "one")
    killed = run("killed", "two", last=whole[2] - 1)
    assert killed[0] == -signal.SIGKILL and killed[1] == "" and whole[0] == 0
    again = run("again", "two")
    assert again[0] == 0 and again[1] == whole[1] and '"reverted for the accuracy budget' in again[1]
    assert again[2] < whole[2] - 1  # what was judged before the end is not judged again


def test_what_may_be_lost_is_no_part_of_what_was_measured(tmp_path: Path) -> None:
    loose = _built(tmp_path, max_drop="50%").summary
    tight = _built(tmp_path, max_drop="0.5%").summary
    assert loose["fidelity"]["task"]["drop"] <= 0.5 and tight["fidelity"]["task"]["drop"] <= 0.005
    assert len(tight["mixed"]["reverted"]) >= len(loose["mixed"]["reverted"])


def test_a_microcontroller_s_budget_is_met_with_16_bits(tmp_path: Path) -> None:
    """No float anywhere, integers at the border: the only repair there is."""
    pytest.importorskip("ethosu.vela", reason="Vela compiles for the Ethos-U: pip install 'edgec[vela]'")
    model, data = _write(tmp_path, reads_first=False)
    options: dict[str, Any] = {"target": "ethos-u55-128", "precision": "int8", "effort": "fast", "stop_after": "bundle"}
    with pytest.raises(EdgecError) as missed:
        run_build(model, calibration=data, output=tmp_path, max_drop="0", min_sqnr=90, **options)
    assert missed.value.code == "quant/budget-missed" and "mixes" in missed.value.finding.message
    summary = run_build(model, calibration=data, output=tmp_path, min_sqnr=20, **options).summary
    assert set(summary["mixed"]["reverted"].values()) == {"int16x8"}
    assert set(summary["nodes"]) == {"int8", "int16x8"} and summary["fidelity"]["sqnr_db"] >= 20
    assert all(point["estimated_ms"] > 0 for point in summary["frontier"])
    chosen = [point for point in summary["frontier"] if point["chosen"]]
    assert len(chosen) == 1 and chosen[0]["nodes"] == summary["nodes"]


def test_the_artifact_has_to_keep_the_budget_in_its_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def worse(self: Build, precision: str, model: Model) -> dict[str, Any]:
        floats = sum(n.metadata_props.get("edgec.scheme") == "float32" for n in model.nodes())
        seen.append(floats)
        return {"sqnr_db": 40.0 if floats > 3 else -5.0, "top1_agreement": None}

    monkeypatch.setattr(Build, "there", worse)
    asked = {"max_drop": None, "min_sqnr": 0.2}  # three nodes in float would keep it, by the quantized model
    summary = _built(tmp_path, **asked).summary
    assert 3 in seen and summary["nodes"]["float32"] > 3
    doubted = [point for point in summary["frontier"] if "in its runtime" in point["judged"]]
    assert doubted and not any(point["met"] for point in doubted)


def test_auto_does_not_end_at_a_precision_that_misses_the_budget(tmp_path: Path) -> None:
    """Integers alone: there is no float to fall back to."""
    model, data = _write(tmp_path)
    options: dict[str, Any] = {"target": "ethos-u55-128", "effort": "fast", "stop_after": "compile", "output": tmp_path}
    with pytest.raises(EdgecError) as error:
        run_build(model, calibration=data, min_sqnr=90.0, **options)
    assert error.value.code == "quant/budget-missed"
    assert "int8 gives only" in error.value.finding.message and "int16x8 gives only" in error.value.finding.message
    assert "--precision auto" not in error.value.finding.hint
    built = run_build(model, calibration=data, min_sqnr=90.0, ship_anyway=True, **options)
    assert "quant/budget-missed" in {f.code for f in built.findings}


@pytest.mark.parametrize("calibrated", [True, False])
def test_int8_weights_alone_are_mixed_for_a_budget_as_well(tmp_path: Path, calibrated: bool) -> None:
    """What one layer's kernel rounds at run time does the harm: its input has one column that is far larger."""
    uneven = np.ones((1, 64), np.float32)
    uneven[0, 0] = 1000
    last = kernel(64, 64, seed=4)
    last[0] /= 1000
    constants = {"w1": kernel(64, 64), "w2": kernel(64, 64, seed=2), "unevenly": uneven, "w3": last}
    (tmp_path / "net.onnx").write_bytes(
        typed(NET.replace("16]", "64]").replace("8]", "32]"), {**constants, "w4": kernel(64, 32, seed=6)}).to_bytes()
    )
    np.save(tmp_path / "x.npy", np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32))
    options: dict[str, Any] = {"target": "raspberrypi4", "precision": "dynamic", "effort": "fast", "output": tmp_path}
    options["calibration"] = tmp_path / "x.npy" if calibrated else None
    plain = run_build(tmp_path / "net.onnx", stop_after="compile", **options).summary
    built = run_build(tmp_path / "net.onnx", stop_after="bundle", min_sqnr=30.0, **options).summary
    assert plain["fidelity"]["sqnr_db"] < 25 and built["fidelity"]["sqnr_db"] >= 30
    assert "Gemm_d" in built["mixed"]["reverted"] and len(built["mixed"]["reverted"]) < 4
    assert built["precision"] == "dynamic"


def test_a_device_of_8_bits_alone_says_that_nothing_can_be_reverted(tmp_path: Path) -> None:
    model, data = _write(tmp_path)
    options: dict[str, Any] = {"target": "coral-edgetpu", "effort": "fast", "min_sqnr": 25.0}
    with pytest.raises(EdgecError) as error:
        run_build(model, calibration=data, output=tmp_path, **options)
    assert error.value.code == "quant/budget-missed" and "no node can be reverted" in error.value.finding.message
    assert "--precision auto" not in error.value.finding.hint


def test_evaluation_data_of_its_own(tmp_path: Path) -> None:
    model, data = _write(tmp_path)
    plain = tmp_path / "plain.npy"
    np.save(plain, np.load(data)["x"][:20])
    options: dict[str, Any] = {"target": "raspberrypi4", "precision": "int8", "effort": "fast", "max_drop": "50%"}
    built = run_build(model, calibration=plain, evaluation=data, output=tmp_path, stop_after="bundle", **options)
    assert built.summary["fidelity"]["task"]["max_drop"] == 0.5
    with pytest.raises(EdgecError) as error:
        run_build(model, calibration=plain, output=tmp_path, **options)
    assert error.value.code == "calibration/no-labels"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_drop": None, "metric": "f1"}, "quant/max-drop"),
        ({"max_drop": "a lot"}, "quant/max-drop"),
        ({"max_drop": None, "min_sqnr": float("nan")}, "quant/min-sqnr"),
        ({"max_drop": None, "ship_anyway": True}, "cli/no-effect"),
        ({"metric": "f2"}, "quant/metric"),
    ],
)
def test_refusals(tmp_path: Path, options: dict[str, Any], code: str) -> None:
    with pytest.raises(EdgecError) as error:
        _built(tmp_path, **options)
    assert error.value.code == code


@pytest.mark.parametrize(("metric", "shuffled"), [("top1", True), ("auc", True), ("top1", False), ("f1", False)])
def test_labels_of_other_samples_are_noticed(metric: str, shuffled: bool, tmp_path: Path) -> None:
    model, data = _write(tmp_path)
    held = dict(np.load(data))
    labels = np.random.default_rng(5).permutation(held["labels"]) if shuffled else held["labels"]
    np.savez(data, x=held["x"], labels=labels)
    asked = BudgetOptions(max_drop="99%", metric=metric)
    found = open_budget(asked, canonicalize(load_source(model).model), data).findings
    assert [f.code for f in found] == (["quant/metric-chance"] if shuffled else [])


def test_a_metric_in_percent_or_at_random_is_noticed(tmp_path: Path) -> None:
    model, data = _write(tmp_path)
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "draw = np.random.default_rng(0)\n"
        "def share(o, l): return float(np.mean([next(iter(x.values())).argmax() == y for x, y in zip(o, l)]))\n"
        "def percent(o, l): return 100 * share(o, l)\n"
        "def random(o, l): return draw.random()\n"
    )
    loaded = canonicalize(load_source(model).model)

    def opened(name: str) -> Budget:
        return open_budget(BudgetOptions(max_drop="0.5%", metric=f"{tmp_path / 'own.py'}:{name}"), loaded, data)

    assert opened("share").findings == () and "0.5 points" in opened("share").words
    assert [f.code for f in opened("percent").findings] == ["quant/metric-units"]
    assert "at most 0.005 of" in opened("percent").words
    with pytest.raises(EdgecError, match="for the same outputs") as error:
        opened("random")
    assert error.value.code == "quant/metric"


def test_how_a_drop_is_written() -> None:
    assert parse_drop("0.5%") == parse_drop("0.005") == pytest.approx(0.005)
    assert parse_drop("0") == 0
    for text in ("150%", "-1%", "", "1 of 100", "1.0"):
        with pytest.raises(EdgecError):
            parse_drop(text)


def test_a_float_form_keeps_every_budget() -> None:
    assert Budget(min_sqnr=50).keeps({"sqnr_db": None, "top1_agreement": None})[0]


def test_labelled_data_is_read_as_the_source_says(tmp_path: Path) -> None:
    """A Transformers folder knows its preprocessing: calibration follows it, and so does the metric's data."""
    path, data = _write(tmp_path)
    model = canonicalize(load_source(path).model)
    usual = Recipe.model_validate({"reader": "array", "inputs": {"x": {"mean": [0.5], "std": [2.0]}}})
    budget = open_budget(BudgetOptions(max_drop="1%"), model, data, usual)
    assert budget.task is not None
    (read, *_), raw = list(budget.task.samples), np.load(data)["x"]
    assert any(np.allclose(read["x"][0], (row - 0.5) / 2, atol=1e-6) for row in raw)
