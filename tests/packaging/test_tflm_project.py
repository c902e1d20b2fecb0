"""The C++ project: valid C++, a main that tells right from wrong, names and text that cannot break the sources."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgec.artifact import IoBinding
from edgec.bundle.golden import Golden
from edgec.packaging._tflm.c_source import array, comment, identifier, string
from edgec.packaging._tflm.project import Project, project_files, resolver_method
from edgec.tensors import DType, QParams, TensorSpec

STUBS = Path(__file__).parent / "tflm_stubs"
GXX = shutil.which("g++")
ARM = shutil.which("arm-none-eabi-g++")


def _binding(name: str, dtype: DType, count: int) -> IoBinding:
    qparams = QParams.per_tensor(0.5, 3) if dtype == DType.INT8 else None
    source = TensorSpec(name=name, shape=(1, count), dtype=DType.FLOAT32)
    return IoBinding(source=source, artifact=TensorSpec(name=name, shape=(1, count), dtype=dtype, qparams=qparams))


def _project(dtype: DType = DType.INT8, **changes: object) -> Project:
    rng = np.random.default_rng(0)
    given = (rng.integers(-100, 100, (1, 12)) / (1 if dtype == DType.INT8 else 7)).astype(dtype.numpy)
    golden = Golden(
        inputs={}, raw_inputs={"x": given}, raw_outputs={"y": given[:, ::-1]}, reference_outputs={}, float_outputs={}
    )
    values: dict[str, object] = {
        "name": 'a "model"\nwith */ and \\ in its name',
        "target_id": "cortex-m4",
        "model": bytes(range(256)),
        "operators": ("CONV_2D", "SOFTMAX", "GATHER_ND", "BATCH_MATMUL"),
        "arena_bytes": 1000,
        "scratch_bytes": 24,
        "inputs": (_binding("x", dtype, 12),),
        "outputs": (_binding("y", dtype, 12),),
        "goldens": (golden, golden),
    }
    return Project(**{**values, **changes})  # type: ignore[arg-type]


def _write(project: Project, folder: Path) -> Path:
    for name, data in project_files(project).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "micro"


def _program(folder: Path, *, shift: int = 0) -> subprocess.CompletedProcess[str]:
    """Compiled against stand-ins for TFLM whose Invoke reverses the input and adds `shift` to its first byte."""
    assert GXX is not None
    sources = [folder / name for name in ("main.cc", "model_data.cc", "goldens.cc")]
    command = [
        GXX,
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-DSHIFT={shift}",
        "-I",
        str(STUBS),
        "-I",
        str(folder),
    ]
    files = [*map(str, sources), "-o", str(folder / "program")]
    subprocess.run([*command, *files], check=True, capture_output=True, text=True)
    return subprocess.run([folder / "program"], capture_output=True, text=True, check=False)


@pytest.mark.skipif(GXX is None, reason="no g++ to compile the sources with")
@pytest.mark.parametrize("dtype", [DType.INT8, DType.INT16, DType.FLOAT32])
def test_the_program_passes_where_the_kernels_agree_and_fails_where_they_do_not(dtype: DType, tmp_path: Path) -> None:
    folder = _write(_project(dtype), tmp_path)
    good = _program(folder)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "all goldens agree" in good.stdout
    # the first byte in memory is the highest of no type here, but 3 steps of an integer; of a float it is noise
    bad = _program(folder, shift=3)
    assert bad.returncode == (0 if dtype == DType.FLOAT32 else 1), bad.stdout


@pytest.mark.skipif(GXX is None, reason="no g++ to compile the sources with")
def test_steps_allow_what_they_say(tmp_path: Path) -> None:
    folder = _write(_project(steps=3), tmp_path)
    assert _program(folder, shift=3).returncode == 0
    assert _program(folder, shift=4).returncode == 1


@pytest.mark.skipif(
    ARM is None, reason="no arm-none-eabi-g++ (apt install gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib)"
)
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m7", "cortex-m55"])
def test_the_sources_compile_for_the_cores(cpu: str, tmp_path: Path) -> None:
    assert ARM is not None
    folder = _write(_project(), tmp_path)
    for name in ("main.cc", "model_data.cc", "goldens.cc"):
        command = [ARM, f"-mcpu={cpu}", "-mthumb", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fno-exceptions"]
        command += ["-fno-rtti", "-DSHIFT=0", "-I", str(STUBS), "-I", str(folder), "-c", str(folder / name)]
        subprocess.run([*command, "-o", str(tmp_path / "out.o")], check=True, capture_output=True)


def test_resolver_methods() -> None:
    wanted = {
        "CONV_2D": "AddConv2D",
        "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
        "GATHER_ND": "AddGatherNd",
        "RELU6": "AddRelu6",
        "PADV2": "AddPadV2",
        "SPLIT_V": "AddSplitV",
        "BATCH_MATMUL": "AddBatchMatMul",
        "L2_POOL_2D": "AddL2Pool2D",
        "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd",
        "CUSTOM ethos-u": "AddEthosU",
    }
    assert {kind: resolver_method(kind) for kind in wanted} == wanted


def test_many_or_large_goldens_are_left_out_but_one() -> None:
    big = np.zeros((1, 70_000), np.int8)
    golden = Golden(inputs={}, raw_inputs={"x": big}, raw_outputs={"y": big}, reference_outputs={}, float_outputs={})
    text = project_files(_project(goldens=(golden, golden)))["micro/goldens.cc"].decode()
    assert "kGoldenCount = 1;" in text
    assert "kGoldenCount = 2;" in project_files(_project())["micro/goldens.cc"].decode()


def test_text_for_sources() -> None:
    assert identifier("1 net/é") == "_1_net"
    assert identifier("///") == "model"
    assert "\n" not in comment("a\nb\\\nc")
    assert string('a"b\\c') == '"a\\042b\\134c"'
    assert array("g", b"\1\2").splitlines() == ["alignas(16) const unsigned char g[2] = {", "  1,2", "};"]
    assert "g[1] = {" in array("g", b"")
