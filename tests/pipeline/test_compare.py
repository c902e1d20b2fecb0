"""`edgec compare`: from a bundle's own graphs, from the cache, or from a model file; and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgec.cli.app import main
from edgec.errors import EdgecError
from edgec.pipeline import kept_graphs, run_build, run_compare
from edgec.report.compare import compare_html
from tests.support.small_net import write_small_net


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))


def _bundle(folder: Path, **options: Any) -> tuple[Path, Path, Path]:
    model, data = write_small_net(folder)
    options = {"precision": "int8", "stop_after": "bundle", **options}
    built = run_build(model, target="raspberrypi4", calibration=data, output=folder / "dist", **options)
    return built.path, model, data


def test_a_bundle_finds_its_graphs_in_the_cache(tmp_path: Path) -> None:
    bundle, _, data = _bundle(tmp_path)
    answer = run_compare(bundle, data=data)
    ranked = [layer["sqnr_db"] for layer in answer["layers"]]
    assert ranked == sorted(ranked) and answer["samples"] == 16
    assert {"scores", "image"} <= set(answer["order"])
    # The compiled model computes what the QDQ model does: 2 dB for kernels that round at other places.
    assert answer["artifact"]["fidelity"]["sqnr_db"] == pytest.approx(answer["fidelity"]["sqnr_db"], abs=2)
    assert answer["artifact"]["agreement"]["scores"]["within_2"] >= 0.99
    assert answer["ladder"][0]["rung"] == "ranges: auto"
    page = compare_html(answer).decode()
    assert page.count("<svg") == len(answer["layers"]) + 1 and "http" not in page.replace("http://www.w3.org", "")


def test_a_bundle_can_carry_its_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _, data = _bundle(tmp_path, keep_graphs=True)
    kept = run_compare(bundle, data=data)
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "empty"))
    assert run_compare(bundle, data=data)["layers"] == kept["layers"]


def test_without_its_graphs_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, _, data = _bundle(tmp_path)
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "empty"))
    with pytest.raises(EdgecError) as error:
        run_compare(bundle, data=data)
    assert error.value.code == "quant/no-graphs" and "--keep-graphs" in error.value.finding.hint


def test_a_float_bundle_has_nothing_to_compare(tmp_path: Path) -> None:
    bundle, _, data = _bundle(tmp_path, precision="float32")
    with pytest.raises(EdgecError) as error:
        run_compare(bundle, data=data)
    assert error.value.code == "quant/not-quantized"


def test_a_model_file_is_built_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, data = write_small_net(tmp_path)
    page = tmp_path / "page.html"
    words = ["compare", str(model), "--data", str(data), "--samples", "4", "--target", "raspberrypi4"]
    assert main([*words, "--precision", "int8", "--effort", "fast", "--json", "--page", str(page)]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["precision"] == "int8" and answer["samples"] == 4 and len(answer["layers"]) > 5
    assert page.read_bytes() == compare_html(answer)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["{model}"], "cli/compare-target"),
        (["{bundle}", "--target", "raspberrypi4"], "cli/compare-options"),
        (["{bundle}", "--page", "{missing}/page.html"], "io/write"),
        (["{bundle}", "--limit-db", "nan"], "cli/compare-options"),
        (["{model}", "--target", "raspberrypi4", "--precision", "float32"], "quant/not-quantized"),
        (["{ready}", "--target", "raspberrypi4"], "quant/no-graphs"),
    ],
)
def test_refusals(tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], code: str) -> None:
    bundle, model, data = _bundle(tmp_path, effort="fast")
    ready = tmp_path / "ready.tflite"
    ready.write_bytes(b"\x1c\0\0\0TFL3")
    given = [word.format(model=model, bundle=bundle, ready=ready, missing=tmp_path / "missing") for word in words]
    assert main(["compare", *given, "--data", str(data), "--samples", "2", "--json"]) != 0
    found = json.loads(capfd.readouterr().out)["error"]
    assert found["code"] == code and found.get("where", given[0]) in (given[0], str(tmp_path / "missing" / "page.html"))


def test_the_cache_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_graphs, "MAX_KEPT", 2)
    graphs = {kept_graphs.FLOAT: b"a", kept_graphs.QUANTIZED: b"b"}
    for number, key in enumerate("abc"):
        kept_graphs.keep(key, graphs)
        os.utime(tmp_path / "cache" / "graphs" / key, (number, number))
    kept_graphs.keep("d", graphs)
    assert kept_graphs.find("d") == graphs and kept_graphs.find("c") == graphs
    assert kept_graphs.find("a") is None and kept_graphs.find("b") is None


@pytest.mark.parametrize("there", ["in the cache", "in the manifest"])
def test_other_data_is_read_as_the_calibration_data_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    """Data without a recipe of its own: the bundle knows how its model is fed, and would be judged on nonsense else."""
    model, data = write_small_net(tmp_path)
    recipe = tmp_path / "halves.toml"
    recipe.write_text('reader = "array"\n[inputs.image]\nmean = [0.25]\nstd = [2.0]\n')
    options: dict[str, Any] = {"target": "raspberrypi4", "output": tmp_path / "dist", "stop_after": "bundle"}
    built = run_build(
        model, calibration=f"{recipe}:{data}", precision="int8", effort="fast", keep_graphs=True, **options
    )
    if there == "in the manifest":
        monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "empty"))
    told = run_compare(built.path, data=f"{recipe}:{data}")
    assert run_compare(built.path, data=data)["layers"] == told["layers"]
    np.save(tmp_path / "ready.npy", ((np.load(data) - 0.25) / 2).astype(np.float32))  # and that is what it does
    plain = tmp_path / "plain.toml"
    plain.write_text('reader = "array"\n[inputs.image]\nmean = [0.0]\nstd = [1.0]\n')
    ready = run_compare(built.path, data=f"{plain}:{tmp_path / 'ready.npy'}")
    assert ready["fidelity"]["sqnr_db"] == pytest.approx(told["fidelity"]["sqnr_db"], abs=0.01)


def test_a_graph_that_is_not_the_artifact_s_is_said(tmp_path: Path) -> None:
    """A fault planted in the kept graph: compare names the layer, and that the compiled model does not have it."""
    bundle, _, data = _bundle(tmp_path, effort="fast")
    assert run_compare(bundle, data=data)["findings"] == []
    (kept,) = (tmp_path / "cache" / "graphs").glob("*/quantized.onnx")
    model = onnx.load(kept)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    node = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0].startswith("w3"))
    weights = onnx.numpy_helper.to_array(stored[node.input[0]])
    stored[node.input[0]].CopyFrom(onnx.numpy_helper.from_array(-weights, node.input[0]))
    kept.write_bytes(model.SerializeToString())
    answer = run_compare(bundle, data=data)
    assert answer["first_diverging"]["layer"] == "Conv_a"
    assert [finding["code"] for finding in answer["findings"]] == ["validate/disagreement"]
