"""Which kernels ran: named by what the runtime says, and by the bits where it says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.bundle import Bundle
from edgec.bundle.open import open_bundle
from edgec.errors import Severity
from edgec.pipeline import run_build
from edgec.runners.kernels import Evidence, identify, kernel_findings, outputs_here
from edgec.runners.sustained import Sustained, read_sustained, sustained_findings
from edgec.tensors import Array
from tests.support import tiny_bundles as tiny
from tests.support.plans import kernel, typed
from tests.support.small_net import samples

#: Thousands of outputs straight from a convolution: each set of kernels rounds some of them its own way. A
#: classifier's ten would be the same by chance.
NET = """(float[1,3,16,16] image) => (float[1,16,16,16] maps)
{ c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, w1, b1) r1 = Relu(c1)
  c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1], group=16>(r1, w2) s = Add(r1, c2) maps = Conv(s, w3) }"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("kernels")
    weights = {
        "w1": kernel(16, 3, 3, 3, scale=0.3),
        "b1": kernel(16, seed=1),
        "w2": kernel(16, 1, 3, 3, seed=2),
        "w3": kernel(16, 16, 1, 1, seed=3),
    }
    (folder / "net.onnx").write_bytes(typed(NET, weights).to_bytes())
    np.save(folder / "samples.npy", samples())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(folder / "cache"))
        built = run_build(
            folder / "net.onnx",
            target="raspberrypi4",
            precision="int8",
            calibration=str(folder / "samples.npy"),
            output=folder,
            effort="fast",  # nothing runs in float but the borders
        )
    assert built.path is not None
    with open_bundle(Path(built.path)) as opened:
        yield opened


def shifted(outputs: list[dict[str, Array]]) -> list[dict[str, Array]]:
    """One value of one golden, one step of the output's quantization off."""
    changed = [{name: value.copy() for name, value in golden.items()} for golden in outputs]
    value = next(iter(changed[0].values()))
    value.flat[0] += np.asarray(1e-3 if value.dtype.kind == "f" else 1, value.dtype)
    return changed


@pytest.mark.parametrize(
    ("kernels", "named"), [("default", "XNNPACK"), ("builtin", "builtin"), ("reference", "reference")]
)
def test_bits_name_the_kernels_where_the_runtime_does_not(bundle: Bundle, kernels: str, named: str) -> None:
    outputs = outputs_here(bundle, kernels)
    assert outputs is not None
    found = identify(bundle, outputs, {"delegate": "unknown"})
    assert (found.kernel_set, found.expected, found.nearest) == (named, kernels == "default", False)
    assert found.bit_exact is (kernels == "default")


def test_bits_like_no_set_of_kernels_here_are_nearest_to_one(bundle: Bundle) -> None:
    outputs = outputs_here(bundle, "builtin")
    assert outputs is not None
    found = identify(bundle, shifted(outputs), {"delegate": "none"})
    assert found.nearest
    assert not found.expected
    (finding,) = told(bundle, found)
    assert finding.code == "validate/other-kernels"
    assert "nearest to" in finding.message


def told(bundle: Bundle, evidence: Evidence, **changes: Any) -> list[Any]:
    given: dict[str, Any] = {"runtime": "ai-edge-litert 2.3.0", "kernels": {}, "sys_visible": None, **changes}
    return kernel_findings(bundle, evidence, **given)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"sys_visible": False}, "/sys is not mounted"),
        ({"runtime": "tflite-runtime 2.14.0", "sys_visible": True}, "install ai-edge-litert"),
        ({"kernels": {"asked_for": "builtin"}, "sys_visible": False}, "--kernels"),
        ({"sys_visible": True}, "built with XNNPACK"),
    ],
)
def test_the_usual_reasons_are_told(bundle: Bundle, changes: Mapping[str, Any], hint: str) -> None:
    evidence = Evidence(kernel_set="builtin", bit_exact=False, host_exact=True, expected=False)
    (finding,) = told(bundle, evidence, **changes)
    assert hint in finding.hint
    assert finding.severity == Severity.WARNING


def test_other_bits_of_the_same_kernels_are_an_error_unless_explained(bundle: Bundle) -> None:
    import importlib.metadata

    version = importlib.metadata.version("ai-edge-litert")
    evidence = Evidence(kernel_set="XNNPACK", bit_exact=False, host_exact=False)
    (plain,) = told(bundle, evidence, runtime=f"ai-edge-litert {version}")
    assert (plain.code, plain.severity) == ("validate/not-exact", Severity.ERROR)
    (older,) = told(bundle, evidence, runtime="ai-edge-litert 1.0.0")
    assert older.severity == Severity.WARNING
    assert "1.0.0" in older.message
    (outside,) = told(bundle, evidence, runtime=f"ai-edge-litert {version}", kernels={"outside": {"GATHER": 2}})
    assert outside.severity == Severity.WARNING
    assert "GATHER 2" in outside.message


def test_float_operators_that_come_last_may_round(bundle: Bundle) -> None:
    """A float output that is off by rounding alone is told as that; by a quantization step it is not."""
    outputs = outputs_here(bundle, "default")
    assert outputs is not None
    name = next(iter(outputs[0]))
    assert outputs[0][name].dtype == np.float32
    near = [{name: value[name] * np.float32(1 + 1e-6)} for value in outputs]
    found = identify(bundle, near, {"delegate": "XNNPACK"})
    assert (found.rounded, found.bit_exact, found.expected) == (True, False, True)
    (finding,) = told(bundle, found)
    assert (finding.code, finding.severity) == ("validate/float-rounding", Severity.INFO)
    far = [{name: value[name] * np.float32(1 + 1e-3)} for value in outputs]
    assert not identify(bundle, far, {"delegate": "XNNPACK"}).rounded


def test_exact_bits_need_no_words(bundle: Bundle) -> None:
    assert told(bundle, Evidence(kernel_set="XNNPACK", bit_exact=True, host_exact=True)) == []


def test_float_is_not_asked_for_bits(tmp_path: Path) -> None:
    with open_bundle(tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())) as opened:
        outputs = [dict(golden.raw_outputs) for golden in opened.goldens()]
        found = identify(opened, shifted(outputs), {"delegate": "XNNPACK"})
        assert not found.bit_exact
        assert told(opened, found) == []
        without = identify(opened, shifted(outputs), {"delegate": "none"})
        assert [f.code for f in told(opened, without)] == ["validate/other-kernels"]


def run(begin: float = 100.0, end: float = 100.0, mhz: tuple[float, ...] = (1800.0, 1800.0, 1800.0)) -> Sustained:
    return Sustained(
        threads=1,
        runs=6000,
        duration_s=60.0,
        median_ms=10.0,
        p90_ms=11.0,
        p99_ms=12.0,
        begin_per_s=begin,
        end_per_s=end,
        celsius=(45.0, 81.0, 80.0),
        mhz=mhz,
        single_stream=True,
    )


def test_throttling_needs_a_slower_model_and_a_slower_clock() -> None:
    hot = run(end=70.0, mhz=(1800.0, 1200.0, 1200.0))
    (finding,) = sustained_findings(hot, emulated=False)
    assert finding.code == "validate/throttled"
    assert "1200 MHz" in finding.message
    assert sustained_findings(hot, emulated=True) == []
    assert sustained_findings(run(end=70.0), emulated=False) == []  # other work on the device
    assert sustained_findings(run(end=70.0, mhz=()), emulated=False) == []


def test_a_long_run_is_read_with_and_without_sensors() -> None:
    samples = [
        {"at_s": 0.0, "celsius": {"a": 40.0, "b": 50.0}, "mhz": {"cpu0": 1000.0, "cpu1": 2000.0}},
        {"at_s": 1.0, "celsius": {"a": 90.0, "b": 50.0}, "mhz": {"cpu0": 500.0, "cpu1": 500.0}},
    ]
    answer = {
        "threads": 2, "runs": 1024, "duration_s": 61.0, "median_ms": 1.0, "p90_ms": 2.0, "p99_ms": 3.0,
        "begin_per_s": 10.0, "end_per_s": 9.0, "samples": samples, "last": samples[0],
    }  # fmt: skip
    found = read_sustained(answer)
    assert found.celsius == (50.0, 90.0, 50.0)
    assert found.mhz == (1500.0, 500.0, 1500.0)
    assert found.single_stream
    blind = [{"at_s": 0.0, "celsius": {}, "mhz": {}}]
    found = read_sustained({**answer, "runs": 1023, "samples": blind, "last": blind[0]})
    assert (found.celsius, found.mhz, found.single_stream) == ((), (), False)
