"""Measure the coefficients of estimates on this machine, and how far estimates made from them are off whole models.

    python -m tools.measure_speed                 the [estimate.speed] rows of a profile, as TOML
    python -m tools.measure_speed --check A.onnx  typical estimate over measured latency, in float32 and dynamic

Single operators of small and middling size in LiteRT, one thread, the fastest of many runs. For a quiet machine, where
it takes less than a minute; the rows belong into `targets/linux-x86_64.toml`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.bundle.worker import Worker
from edgec.pipeline import run_build

PRECISIONS = ("float32", "int8", "dynamic")
_ROUNDS = 60
#: int8 all through: a lone operator is the model's last one, which accuracy may leave in float otherwise.
_TARGET = 'extends = "linux-x86_64"\n[backends.tflite.scheme]\naccuracy_allowance = 0.0\n'


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One operator: what it measures, its multiply-accumulates (or bytes moved in float32), its model."""

    measures: str
    amount: int
    shape: tuple[int, ...]
    model: onnx.ModelProto


def _model(
    node: str, shape: tuple[int, ...], out: tuple[int, ...], weight: tuple[int, ...], **attributes: Any
) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    initializers = [numpy_helper.from_array((rng.standard_normal(weight) * 0.05).astype(np.float32), "w")]
    graph = helper.make_graph(
        [helper.make_node(node, ["x", "w"], ["y"], name="op", **attributes)],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def probes() -> list[Probe]:
    """Convolutions as MobileNets and ResNets have them, a depthwise one, a dense layer, an addition for bandwidth."""
    pads = {"pads": [1, 1, 1, 1]}
    image = (1, 64, 56, 56)
    return [
        Probe(measures="conv", amount=56 * 56 * 64 * 64 * 9, shape=image,
              model=_model("Conv", image, image, (64, 64, 3, 3), **pads)),
        Probe(measures="conv", amount=28 * 28 * 192 * 64, shape=(1, 192, 28, 28),
              model=_model("Conv", (1, 192, 28, 28), (1, 64, 28, 28), (64, 192, 1, 1))),
        Probe(measures="depthwise", amount=56 * 56 * 144 * 9, shape=(1, 144, 56, 56),
              model=_model("Conv", (1, 144, 56, 56), (1, 144, 56, 56), (144, 1, 3, 3), group=144, **pads)),
        Probe(measures="depthwise", amount=14 * 14 * 96 * 9, shape=(1, 96, 14, 14),
              model=_model("Conv", (1, 96, 14, 14), (1, 96, 14, 14), (96, 1, 3, 3), group=96, **pads)),
        Probe(measures="conv", amount=14 * 14 * 96 * 96, shape=(1, 96, 14, 14),
              model=_model("Conv", (1, 96, 14, 14), (1, 96, 14, 14), (96, 96, 1, 1))),
        Probe(measures="bytes", amount=3 * 4 * 64 * 28 * 28, shape=(1, 64, 28, 28),
              model=_model("Add", (1, 64, 28, 28), (1, 64, 28, 28), (1, 64, 28, 28))),
        Probe(measures="dense", amount=64 * 512 * 512, shape=(64, 512),
              model=_model("MatMul", (64, 512), (64, 512), (512, 512))),
        Probe(measures="bytes", amount=3 * 4 * 512 * 56 * 56, shape=(1, 512, 56, 56),
              model=_model("Add", (1, 512, 56, 56), (1, 512, 56, 56), (1, 512, 56, 56))),
    ]  # fmt: skip


def measure() -> dict[str, dict[str, float]]:
    """Rates by precision and kind: the geometric mean of the probes that measure it."""
    rates: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plain.toml").write_text(_TARGET)
        for number, probe in enumerate(probes()):
            source, data = folder / f"p{number}.onnx", folder / f"p{number}.npy"
            onnx.save(probe.model, source)
            samples = (8, *probe.shape[1:]) if probe.shape[0] == 1 else (1, *probe.shape)
            np.save(data, np.random.default_rng(1).standard_normal(samples).astype(np.float32))
            for precision in PRECISIONS:
                if precision == "dynamic" and probe.measures in ("depthwise", "bytes"):
                    continue  # has no such kernels, and runs in float
                seconds = _fastest(source, data, precision, folder / f"{number}{precision}")
                shrink = 0.25 if precision == "int8" and probe.measures == "bytes" else 1.0
                rate = probe.amount * shrink / seconds
                rates.setdefault(precision, {}).setdefault(probe.measures, []).append(rate)
    table = {
        precision: {key: float(np.exp(np.mean(np.log(found)))) for key, found in row.items()}
        for precision, row in rates.items()
    }
    table["dynamic"] |= {key: table["float32"][key] for key in ("depthwise", "bytes")}
    table["float16"] = table["float32"]
    return table


def _fastest(source: Path, data: Path, precision: str, output: Path) -> float:
    result = run_build(
        source,
        target=str(source.parent / "plain.toml"),
        precision=precision,
        calibration=data if precision == "int8" else None,
        effort="fast",
        output=output,
        stop_after="bundle",
    )
    assert result.bundle is not None
    with result.bundle as bundle:
        feeds = dict(bundle.goldens()[0].raw_inputs)
        with Worker(bundle.model_path, bundle.manifest.runner) as worker:
            return min(worker.time(feeds) for _ in range(_ROUNDS))


def check(models: list[str]) -> list[dict[str, object]]:
    """Estimate beside measurement for whole models."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        for model in models:
            for precision in ("float32", "dynamic"):
                summary = run_build(model, target="linux-x86_64", precision=precision, output=name).summary
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
    args = parser.parse_args()
    if args.check:
        print(json.dumps(check(args.check), indent=1))
        return 0
    print("[estimate.speed]")
    for precision, row in measure().items():
        cells = ", ".join(f"{key} = {value:.2g}" for key, value in row.items())
        print(f"{precision} = {{ {cells} }}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
