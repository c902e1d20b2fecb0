"""Measure the coefficients of estimates on this machine, and how far estimates made from them are off whole models.

    python -m tools.measure_speed                 the [estimate.speed] rows of a profile, as TOML
    python -m tools.measure_speed --check A.onnx  typical estimate over measured latency, in float32 and dynamic

Operators of small and middling size in the target's runtime, in a long row and in a short one: the difference is theirs
alone, without the call and what enters and leaves in float. One thread, the fastest of many runs. For a quiet machine,
where it takes a minute or two; the rows belong into the profile that `--target` names: linux-x86_64 (LiteRT), or
intel-cpu (OpenVINO) on a processor with VNNI.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.bundle.worker import Worker
from edgec.errors import EdgecError
from edgec.pipeline import run_build
from edgec.targets.load import load_target

PRECISIONS = ("float32", "int8", "dynamic")
_ROUNDS = 60
#: int8 all through: the last operator may be left in float for accuracy otherwise.
_TARGET = 'extends = "{target}"\n[backends.{backend}.scheme]\naccuracy_allowance = 0.0\n'
#: Operators in the short row and in the long one.
_SHORT, _LONG = 3, 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One operator: what it measures, its multiply-accumulates (or bytes moved in float32), its rows of models."""

    measures: str
    amount: int
    shape: tuple[int, ...]
    short: onnx.ModelProto
    long: onnx.ModelProto


def _row(node: str, shape: tuple[int, ...], *weights: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """Operators in a row, one for each of `weights`, a Relu behind each, as nets have them."""
    rng = np.random.default_rng(0)
    nodes, initializers, value = [], [], "x"
    for i, weight in enumerate(weights):
        spread = float(np.sqrt(2 / max(np.prod(weight) / weight[0 if node == "Conv" else -1], 1)))
        data = rng.standard_normal(weight) * (1.0 if node == "Add" else spread)
        initializers.append(numpy_helper.from_array(data.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node(node, [value, f"w{i}"], [f"a{i}"], name=f"op{i}", **attributes))
        nodes.append(helper.make_node("Relu", [f"a{i}"], [f"y{i}"], name=f"relu{i}"))
        value = f"y{i}"
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def probes() -> list[Probe]:
    """Convolutions as MobileNets and ResNets have them, depthwise ones, dense layers, additions for bandwidth."""
    found = []

    def add(
        measures: str, amount: int, node: str, shape: tuple[int, ...], *weights: tuple[int, ...], **how: Any
    ) -> None:
        short, long = (_row(node, shape, *(weights * n)[:n], **how) for n in (_SHORT, _LONG))
        found.append(Probe(measures=measures, amount=amount, shape=shape, short=short, long=long))

    pads = {"pads": [1, 1, 1, 1]}
    add("conv", 56 * 56 * 64 * 64 * 9, "Conv", (1, 64, 56, 56), (64, 64, 3, 3), **pads)
    add("conv", 28 * 28 * 192 * 64, "Conv", (1, 192, 28, 28), (64, 192, 1, 1), (192, 64, 1, 1))
    add("conv", 14 * 14 * 96 * 96, "Conv", (1, 96, 14, 14), (96, 96, 1, 1))
    add("depthwise", 56 * 56 * 144 * 9, "Conv", (1, 144, 56, 56), (144, 1, 3, 3), group=144, **pads)
    add("depthwise", 14 * 14 * 96 * 9, "Conv", (1, 96, 14, 14), (96, 1, 3, 3), group=96, **pads)
    add("dense", 64 * 512 * 512, "MatMul", (64, 512), (512, 512))
    add("bytes", 3 * 4 * 64 * 28 * 28, "Add", (1, 64, 28, 28), (1, 64, 28, 28))
    add("bytes", 3 * 4 * 512 * 56 * 56, "Add", (1, 512, 56, 56), (1, 512, 56, 56))
    return found


def measure(target: str) -> dict[str, dict[str, float]]:
    """Rates by precision and kind: the geometric mean of the probes that measure it."""
    rates: dict[str, dict[str, list[float]]] = {}
    backend = load_target(target).default_backend
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain.toml").write_text(_TARGET.format(target=target, backend=backend))
        for number, probe in enumerate(probes()):
            data = folder / f"p{number}.npy"
            samples = (8, *probe.shape[1:]) if probe.shape[0] == 1 else (1, *probe.shape)
            np.save(data, np.random.default_rng(1).standard_normal(samples).astype(np.float32))
            for precision in PRECISIONS:
                taken = [_fastest(row, data, precision, folder) for row in (probe.short, probe.long)]
                if math.isnan(sum(taken)):
                    continue  # has no such kernels, and runs in float
                shrink = 0.25 if precision == "int8" and probe.measures == "bytes" else 1.0
                rate = probe.amount * shrink * (_LONG - _SHORT) / (taken[1] - taken[0])
                rates.setdefault(precision, {}).setdefault(probe.measures, []).append(rate)
                print(f"{probe.measures} {probe.shape}, {precision}: {rate:.2g}", file=sys.stderr, flush=True)
    table = {
        precision: {key: float(np.exp(np.mean(np.log(found)))) for key, found in row.items()}
        for precision, row in rates.items()
    }
    table = {precision: {**table["float32"], **row} for precision, row in table.items()}
    table["float16"] = table["float32"]
    return table


def _fastest(model: onnx.ModelProto, data: Path, precision: str, folder: Path) -> float:
    """Seconds of one run; nan where nothing runs in that precision."""
    source = folder / "probe.onnx"
    onnx.save(model, source)
    try:
        result = run_build(
            source,
            target=str(folder / "plain.toml"),
            precision=precision,
            calibration=data if precision == "int8" else None,
            effort="fast",
            output=folder / "out",
            stop_after="bundle",
        )
    except EdgecError:
        return math.nan
    if precision != "float32" and precision not in result.summary.get("nodes", {}):
        return math.nan
    assert result.bundle is not None
    with result.bundle as bundle:
        feeds = dict(bundle.goldens()[0].raw_inputs)
        with Worker(bundle.model_path, bundle.manifest.runner) as worker:
            return min(worker.time(feeds) for _ in range(_ROUNDS))


def check(models: list[str], target: str) -> list[dict[str, object]]:
    """Estimate beside measurement for whole models."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for model in models:
            for precision in ("float32", "dynamic"):
                summary = run_build(model, target=target, precision=precision, output=name).summary
                typical = summary["estimate"]["latency_ms"]["typical"]
                measured = summary["latency"]["median_ms"]
                row = {
                    "model": Path(model).stem,
                    "precision": precision,
                    "typical_ms": typical,
                    "measured_ms": measured,
                }
                rows.append({**row, "ratio": round(typical / measured, 2)})
    return rows


def main() -> int:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", nargs="+", metavar="MODEL", default=[])
    parser.add_argument("--target", default="linux-x86_64", help="the profile whose default runtime is measured")
    args = parser.parse_args()
    if args.check:
        print(json.dumps(check(args.check, args.target), indent=1))
        return 0
    print("[estimate.speed]")
    for precision, row in measure(args.target).items():
        cells = ", ".join(f"{key} = {value:.2g}" for key, value in row.items())
        print(f"{precision} = {{ {cells} }}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
