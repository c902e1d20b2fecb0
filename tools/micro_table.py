"""The four networks of MLPerf Tiny on TensorFlow Lite Micro: equal to its kernels, smallest arena, C++ that compiles.

`python -m tools.micro_table [--page docs/microcontrollers.md]`, a few minutes. Keras files need `make tensorflow`, and
compiling `apt install gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib`; what is missing is said in the table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import AGENT
from edgec.errors import EdgecError
from edgec.pipeline import run_build

ROOT = Path(__file__).resolve().parents[1]
CORES = ("cortex-m4", "cortex-m7", "cortex-m55")
_FLAGS = ["-c", "-mthumb", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti", "-DSHIFT=0"]
_BEGIN, _END = "<!-- tools.micro_table -->\n", "<!-- /tools.micro_table -->\n"
_HEAD = (
    "| network | source | arena | 5 % less | goldens equal in TFLM | LiteRT's reference kernels | C++ compiles |\n"
    "| --- | --- | --- | --- | --- | --- | --- |\n"
)


@dataclass(frozen=True, slots=True)
class Case:
    """A file of the zoo with its calibration; without a file, random weights in the network's shape, as ONNX."""

    name: str
    file: str = ""
    calibration: str = ""


CASES = (
    Case("kws", "mlperf_tiny/kws_saved_model", "kws-mfcc:kws_data/kws01_mfcc_int8.npz"),
    Case("resnet8", "mlperf_tiny/ic_resnet8.h5", "raw-255:images"),
    Case("vww", "mlperf_tiny/vww_96.h5", "zero-one:images"),
    Case("kws"),
    Case("resnet8"),
    Case("vww"),
    Case("autoencoder"),
)


def rows(target: str) -> Iterator[tuple[str, bool]]:
    """A line of the table for each case, and whether all is as promised."""
    import pytest

    from tests.support.micro_nets import write_micro_net
    from tests.support.models import zoo

    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="edgec-micro-") as place:
            folder = Path(place)
            try:
                if case.file:
                    recipe, _, data = case.calibration.partition(":")
                    source, calibration = zoo(case.file), f"{recipe}:{zoo(data)}"
                else:
                    source, values = write_micro_net(folder, case.name)
                    calibration = str(values)
                built = run_build(source, target=target, precision="int8", calibration=calibration, output=folder)
            except pytest.skip.Exception as error:
                yield f"| {case.name} | {case.file} | not run: {error} | | | | |\n", True
                continue
            except EdgecError as error:
                yield f"| {case.name} | {case.file} | {error.code}: {error} | | | | |\n", error.code.startswith("env/")
                continue
            assert built.bundle is not None
            with built.bundle as bundle:
                yield _row(case, source, bundle, folder)


def _row(case: Case, source: Path, bundle: Bundle, folder: Path) -> tuple[str, bool]:
    facts = bundle.manifest.packaging["micro"]
    assert isinstance(facts, dict)
    arena = int(str(facts["arena_bytes"]))
    smallest = fits(bundle, arena) and not fits(bundle, int(arena * 0.95))
    equal, off, most = compared(bundle)
    compiled = compiles(bundle, folder)
    total = len(bundle.goldens())
    reference = "equal" if most == 0 else f"{100 * off:.1f} % of values off, by {most} at most"
    kind = "random weights, ONNX" if not case.file else f"Keras, `{source.name}`"
    cells = [case.name, kind, f"{arena:,}", "refused" if smallest else "ENOUGH", f"{equal} of {total}", reference]
    return "| " + " | ".join([*cells, compiled]) + " |\n", smallest and equal == total and "fails" not in compiled


def fits(bundle: Bundle, arena: int) -> bool:
    """Whether TFLM runs the model in that many bytes; in a process of its own, which may abort."""
    command = [sys.executable, str(AGENT), "fits", str(bundle.model_path), "--arena", str(arena)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def compared(bundle: Bundle) -> tuple[int, float, int]:
    """Goldens that TFLM gives again to the bit; the share of values off LiteRT's reference kernels, and the most."""
    from tests.support.tflm import reference_outputs

    equal, values, off, most = 0, 0, 0, 0
    for golden in bundle.goldens():
        again = bundle.run_raw(golden.raw_inputs)
        other = reference_outputs(bundle.model_path, golden.raw_inputs)
        equal += all(np.array_equal(again[name], value) for name, value in golden.raw_outputs.items())
        for name, value in golden.raw_outputs.items():
            steps = np.abs(value.astype(np.int64) - other[name].astype(np.int64))
            values, off, most = values + steps.size, off + int((steps > 0).sum()), max(most, int(steps.max()))
    return equal, off / max(values, 1), most


def compiles(bundle: Bundle, folder: Path) -> str:
    """For which cores the bundle's own sources compile, against TFLM's interfaces."""
    compiler = shutil.which("arm-none-eabi-g++")
    if compiler is None:
        return "no arm-none-eabi-g++"
    bundle.extract(folder / "bundle")
    micro = folder / "bundle" / "micro"
    failed = []
    for core in CORES:
        command = [compiler, f"-mcpu={core}", *_FLAGS, "-I", str(ROOT / "tests/packaging/tflm_stubs"), "-I", str(micro)]
        command += [str(micro / name) for name in ("main.cc", "model_data.cc", "goldens.cc")]
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            failed.append(core)
    return f"fails for {', '.join(failed)}" if failed else ", ".join(core.removeprefix("cortex-") for core in CORES)


def main() -> int:
    """The command line; 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", default="cortex-m7", help="one with room for all four")
    parser.add_argument("--page", type=Path, help="put the table between its marks")
    args = parser.parse_args()
    os.environ.setdefault("EDGEC_HOME", str(ROOT / ".cache" / "edgec"))
    table, good = _HEAD, True
    for line, kept in rows(args.target):
        print(line, end="", flush=True)
        table, good = table + line, good and kept
    if args.page:
        text = args.page.read_text(encoding="utf-8")
        before, _, rest = text.partition(_BEGIN)
        args.page.write_text(before + _BEGIN + table + _END + rest.partition(_END)[2], encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
