"""Real models on devices that are not this machine: built for the Raspberry Pi, run there, compared to the bit.

`python -m tools.ondevice [--only NAME] [--device NAME]… [--samples N] [--page FILE] [--json FILE]`

Devices are virtual and started for the purpose: Cortex-A72 and A76 under QEMU, a Pi 4 and a Pi 5 over SSH, an arm64
phone over adb. Exits 1 when a model differs from this machine anywhere. Emulated: results are exact, times mean
nothing. The SavedModel needs `make tensorflow`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.bundle.open import open_bundle
from edgec.devices.base import Transport
from edgec.devices.inventory import Device
from edgec.devices.open import open_device
from edgec.errors import EdgecError
from edgec.pipeline import run_build
from edgec.pipeline.prove import Wishes, prove
from tools.devlab import phone, pi
from tools.devlab.common import UnavailableError

PATIENCE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Case:
    """A model of the zoo, its calibration data, and whether that is labelled."""

    name: str
    model: str
    calibration: str
    data: str
    labelled: bool = False


CASES = (
    Case(
        "KWS DS-CNN",
        "mlperf_tiny/kws_saved_model",
        "kws-mfcc",
        "kws_data/kws01_mfcc_int8.npz",
        labelled=True,
    ),
    Case("resnet20", "cifar_resnet/resnet20_cifar10.onnx", "imagenet", "images"),
    Case("efficientnet_lite0", "efficientnet_lite0/efficientnet_lite0_imagenet.onnx", "imagenet-tf", "images"),
)


#: Kind and core; those under `qemu:` are a kind of device themselves.
DEVICES: dict[str, tuple[Any, str]] = {
    "qemu:cortex-a72": (None, ""),
    "qemu:cortex-a76": (None, ""),
    "Pi 4 over SSH": (pi, "cortex-a72"),
    "Pi 5 over SSH": (pi, "cortex-a76"),
    "phone over adb": (phone, "cortex-a76"),
}


@contextlib.contextmanager
def device(name: str, folder: Path) -> Iterator[Transport]:
    """A virtual device for the length of a `with`."""
    with contextlib.ExitStack() as stack:
        if name.startswith("qemu:"):
            found = Device(name=name, address=name, options={})
        else:
            kind, core = DEVICES[name]
            server = stack.enter_context(kind.running(folder, core=core))
            found = Device(name=name, address=server.address, options=server.options)
        yield stack.enter_context(open_device(found))


def rows(cases: Sequence[Case], devices: Sequence[str], samples: int) -> Iterator[dict[str, Any]]:
    """One row a model and device."""
    import pytest

    from tests.support.models import zoo

    with tempfile.TemporaryDirectory(prefix="edgec-ondevice-") as place:
        folder = Path(place)
        bundles: dict[str, Path] = {}
        for case in cases:
            try:
                calibration = f"{case.calibration}:{zoo(case.data)}"
                built = run_build(zoo(case.model), target="raspberrypi", precision="int8", calibration=calibration,
                                  effort="fast", output=folder / case.name.replace(" ", "-"))  # fmt: skip
                assert built.path is not None
                bundles[case.name] = Path(built.path)
            except pytest.skip.Exception as error:
                yield {"model": case.name, "skipped": str(error)}
            except EdgecError as error:
                yield {"model": case.name, "error": error.finding.render()}
        for number, name in enumerate(devices):
            try:
                with device(name, folder / f"device{number}") as opened:
                    for case in cases:
                        if case.name in bundles:
                            yield _row(case, bundles[case.name], opened, name, samples)
            except UnavailableError as error:
                yield {"device": name, "skipped": str(error)}


def _row(case: Case, path: Path, opened: Transport, name: str, samples: int) -> dict[str, Any]:
    from tests.support.models import zoo

    wishes = Wishes(
        runs=5,
        data=f"{case.calibration}:{zoo(case.data)}",
        metric="top1" if case.labelled else None,
        samples=samples if case.labelled else None,
        timeout_s=PATIENCE_S,
    )
    known = {"model": case.name, "device": name}
    try:
        with open_bundle(path) as bundle:
            answer = prove(bundle, opened, wishes)
    except EdgecError as error:
        return {**known, "error": error.finding.render()}
    task = answer["task"]
    return {
        **known,
        "runtime": answer["runtime"],
        "kernels": answer["kernel_set"],
        "goldens": answer["goldens"],
        "goldens_exact": answer["bit_exact"],
        "integers": answer.get("integer_tensors"),
        "samples": task["samples"],
        "samples_exact": task["equal_share"],
        "top1": task["device"],
        "top1_host": task["host"],
        "passed": answer["passed"],
    }


def page(found: Sequence[dict[str, Any]]) -> str:
    """The rows as a page of the documentation."""
    lines = [
        "# Real models on virtual devices",
        "",
        "Made by `python -m tools.ondevice --page docs/on-device.md`: int8 bundles for the Raspberry Pi, each run in",
        "LiteRT on emulated Arm cores and compared with this machine's outputs to the bit. Emulated: results are",
        "exact, times are not told. Labelled samples are Speech Commands; the others are photographs.",
        "",
        "Built at `--effort fast`, which keeps integers up to the last layer. `balanced` may run that layer in float",
        "for its accuracy: then all integer tensors are equal to the bit, and the floats behind them within 1e-5.",
        "",
        "KWS DS-CNN ends in a float Softmax, which each processor rounds its own way: its floats count as equal within",
        "1e-5, and the integer tensors before it are compared to the bit on one golden, in a copy of the model that",
        'gives them all. An int8 Softmax (`io_dtype = "int8"` in a profile) is no way around it: LiteRT has it outside',
        "XNNPACK, in code of each processor's own, and 199 of the 200 samples are equal then.",
        "",
        "| model | device | runtime | kernels | goldens equal | samples equal | top-1 there / here |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        if "skipped" in row or "error" in row:
            told = row.get("skipped") or row.get("error", "").splitlines()[0]
            lines.append(f"| {row.get('model', '')} | {row.get('device', '')} | not run: {told} | | | | |")
            continue
        top = "–" if row["top1"] is None else f"{100 * row['top1']:.1f} % / {100 * row['top1_host']:.1f} %"
        inside = row["integers"] or {"equal": 0, "compared": 0}
        shown = f"{inside['equal']} of {inside['compared']} integer tensors, floats within 1e-5"
        goldens = f"{row['goldens']} of {row['goldens']}" if row["goldens_exact"] else shown
        lines.append(
            f"| {row['model']} | {row['device']} | {row['runtime']} | {row['kernels']} | {goldens} "
            f"| {round(row['samples'] * row['samples_exact'])} of {row['samples']} | {top} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="part of a model's name")
    parser.add_argument("--device", action="append", choices=list(DEVICES))
    parser.add_argument("--samples", type=int, default=200, help="of labelled data")
    parser.add_argument("--page", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("EDGEC_HOME", str(Path(".cache/edgec").absolute()))
    cases = [case for case in CASES if args.only in case.name]
    found = []
    for row in rows(cases, args.device or list(DEVICES), args.samples):
        print(json.dumps(row), flush=True)
        found.append(row)
    if args.page:
        args.page.write_text(page(found), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(_exact(row) for row in found) else 1


def _exact(row: dict[str, Any]) -> bool:
    """Outputs equal to the bit; of a model that ends in float, all integers inside it."""
    if "skipped" in row:
        return True
    inside = row.get("integers") or {"equal": 0, "compared": 1}
    return row.get("samples_exact") == 1 and bool(row["goldens_exact"] or inside["equal"] == inside["compared"])


if __name__ == "__main__":
    sys.exit(main())
