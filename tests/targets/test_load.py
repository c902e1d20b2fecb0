"""Profiles load, inherit as written, and faults in them are named by file and key path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx.defs
import pytest

from edgec.errors import EdgecError
from edgec.registry import data_folder
from edgec.targets.load import list_targets, load_target
from edgec.tensors import DType

ISSUED = (
    "android-arm64", "coral-edgetpu", "cortex-m4", "cortex-m55", "cortex-m7", "esp32-s3", "ethos-u55-128",
    "ethos-u55-256", "ethos-u65-256", "ethos-u65-512", "ethos-u85-256", "intel-cpu", "intel-gpu", "intel-npu",
    "linux-x86_64", "raspberrypi-zero2w", "raspberrypi3", "raspberrypi4", "raspberrypi5",
)  # fmt: skip
BACKENDS = [(name, backend) for name in list_targets() for backend in load_target(name).backends]

Fault = Callable[[str], EdgecError]


@pytest.fixture
def fault(tmp_path: Path) -> Fault:
    """Write a profile, load it, and return the error it gives."""

    def load(text: str) -> EdgecError:
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        with pytest.raises(EdgecError) as caught:
            load_target(str(path))
        return caught.value

    return load


def test_the_shipped_targets_are_the_documented_ones() -> None:
    assert list_targets() == ISSUED


@pytest.mark.parametrize("name", list_targets())
def test_every_file_is_a_target_of_its_own_name(name: str) -> None:
    target = load_target(name)
    assert target.id == name
    assert target.default_backend in target.backends


def test_every_base_is_used() -> None:
    texts = [path.read_text("utf-8") for path in data_folder("targets").glob("[!_]*.toml")]
    for base in data_folder("targets").glob("_*.toml"):
        assert any(f'"{base.stem}"' in text for text in texts), f"nothing extends {base.name}"


def test_an_alias_names_its_target() -> None:
    assert load_target("raspberrypi") == load_target("raspberrypi4")


def test_aliases_are_unique_and_hide_no_target() -> None:
    aliases = [alias for name in list_targets() for alias in load_target(name).aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(list_targets())


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_operator_names_are_onnx_operators(name: str, backend: str) -> None:
    scheme = load_target(name).backends[backend].scheme  # type: ignore[index]  # names come from the same table
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    listed = (
        scheme.int8_ops | scheme.int16_ops | scheme.dynamic_ops | scheme.same_scale_ops | scheme.fused_activations
    ) | set(scheme.fixed_output)
    assert {op.partition(":")[0] for op in listed} <= known


@pytest.mark.parametrize(("name", "backend"), BACKENDS)
def test_scheme_rows_agree_with_each_other(name: str, backend: str) -> None:
    facts = load_target(name).backends[backend]  # type: ignore[index]  # names come from the same table
    scheme = facts.scheme
    assert scheme.same_scale_ops <= scheme.int8_ops, "an operator that ties scales must itself run in int8"
    assert scheme.fused_activations <= scheme.int8_ops | {"Clip", "Relu"}
    assert not set(scheme.fixed_output) & scheme.same_scale_ops
    assert ("int16x8" in facts.precisions) == bool(scheme.int16_ops)
    assert ("dynamic" in facts.precisions) == bool(scheme.dynamic_ops)
    assert facts.why, "a precision order is a decision and says why"


def test_arm_openvino_does_not_prefer_int8_and_says_why() -> None:
    facts = load_target("raspberrypi").backends["openvino"]
    assert facts.precisions[0] == "float16"
    assert facts.scheme.weight_granularity == "tensor"
    assert "int8" in facts.why


def test_weights_have_seven_bits_where_eight_saturate() -> None:
    assert load_target("linux-x86_64").backends["openvino"].scheme.weight_bits == 7
    assert load_target("intel-cpu").backends["openvino"].scheme.weight_bits == 8


def test_own_file_extends_a_shipped_target(tmp_path: Path) -> None:
    path = tmp_path / "my-gateway.toml"
    path.write_text('extends = "raspberrypi4"\nhardware.memory_bytes = 5\nbackends.tflite.precisions = ["float32"]\n')
    target = load_target(str(path))
    base = load_target("raspberrypi4")
    assert (target.id, target.aliases) == ("my-gateway", ())
    assert target.hardware == base.hardware.model_copy(update={"memory_bytes": 5})
    assert target.backends["tflite"].precisions == ("float32",), "lists replace"
    assert target.backends["tflite"].scheme == base.backends["tflite"].scheme, "tables merge"


def test_an_alias_is_a_base_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "raspberrypi"\n')
    assert load_target(str(path)).hardware == load_target("raspberrypi4").hardware


@pytest.mark.parametrize("name", ["raspberrypi4", "raspberrypi"])
def test_a_file_may_have_the_name_of_what_it_extends(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.toml"
    path.write_text(f'extends = "{name}"\nhardware.memory_bytes = 5\n')
    assert load_target(str(path)).hardware.memory_bytes == 5


def test_a_circle_is_refused(fault: Fault, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('extends = "mine"\n')
    error = fault('extends = "other"')
    assert error.code == "target/extends" and "mine → other → mine" in str(error)


def test_later_bases_win(tmp_path: Path) -> None:
    (tmp_path / "_a.toml").write_text('title = "a"\nbackends.openvino.scheme.activation_dtype = "int8"\n')
    path = tmp_path / "x.toml"
    path.write_text('extends = ["intel-cpu", "_a"]\n')
    assert load_target(str(path)).title == "a"
    assert load_target(str(path)).backends["openvino"].scheme.activation_dtype is DType.INT8


def test_unknown_target_suggests_the_near_one() -> None:
    with pytest.raises(EdgecError) as caught:
        load_target("rasperrypi5")
    assert caught.value.code == "target/unknown"
    assert "did you mean 'raspberrypi5'?" in caught.value.finding.hint


@pytest.mark.parametrize("name", ["_litert-xnnpack", "", "../targets/nothing.toml", "nowhere/x.toml"])
def test_bases_and_missing_files_are_no_targets(name: str) -> None:
    with pytest.raises(EdgecError) as caught:
        load_target(name)
    assert caught.value.code == "target/unknown"


def test_unknown_key_names_file_path_and_neighbour(fault: Fault) -> None:
    error = fault('extends = "raspberrypi4"\nbackends.tflite.scheme.int8_op = ["Conv"]\n')
    assert error.code == "target/unknown-key"
    assert "mine.toml: backends.tflite.scheme.int8_op: unknown key, did you mean 'int8_ops'?" in str(error)


def test_unknown_key_in_a_base_names_the_base(fault: Fault, tmp_path: Path) -> None:
    (tmp_path / "_base.toml").write_text("hardware.core = 4\n")
    error = fault('extends = ["raspberrypi4", "_base"]\n')
    assert "_base.toml: hardware.core: unknown key, did you mean 'cores'?" in str(error)


def test_unknown_backend_is_an_unknown_key(fault: Fault) -> None:
    error = fault('extends = "raspberrypi4"\nbackends.tflit.why = ""\n')
    assert any("backends.tflit: unknown key, did you mean 'tflite'?" in f.message for f in error.findings)


def test_all_faults_are_reported_at_once(fault: Fault) -> None:
    error = fault('extends = "raspberrypi4"\nhardware.cores = 0\nbackends.tflite.scheme.fixed_output.Tanh.zero = 1\n')
    assert error.code == "target/invalid"
    assert {f.code for f in error.findings} == {"target/invalid", "target/unknown-key"}
    assert any("hardware.cores: input should be greater than or equal to 1" in f.message for f in error.findings)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("title = [", "target/syntax"),
        ('title = "\\u0000', "target/syntax"),
        ('extends = "mine"', "target/extends"),
        ("extends = 3", "target/invalid"),
        ("extends = [3]", "target/invalid"),
        ('extends = "raspberypi4"', "target/extends"),
        ('extends = "rasberrypi"', "target/extends"),
        ('extends = "_litert-xnnpack"', "target/invalid"),
        ('extends = "android-arm64"\ndefault_backend = "openvino"', "target/invalid"),
    ],
)
def test_faulty_files_are_refused(fault: Fault, text: str, code: str) -> None:
    assert fault(text).code == code


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("weight_symmetric = false", "weight_symmetric"),
        ('activation_dtype = "float32"', "not in float32"),
        ('activation_dtype = "int16"', "int16 is precision int16x8"),
        ('activation_dtype = "uint8"', "fixed_output.Sigmoid: zero_point -128 is no uint8"),
        ("add_scale_ratio = [256.0, 0.5]", "no ratio is at least 256 and below 0.5"),
        ('same_scale_ops = ["Softmax"]', "Softmax is in same_scale_ops"),
        ("power_of_two_scales = true\nfixed_output.Tanh = { scale = 0.3, zero_point = 0 }", "0.3 is no power of two"),
        ("int16_ops = []", "scheme.int16_ops is empty"),
    ],
)
def test_a_scheme_that_contradicts_itself_is_refused(fault: Fault, text: str, said: str) -> None:
    error = fault(f'extends = "raspberrypi4"\n[backends.tflite.scheme]\n{text}')
    assert error.code == "target/invalid" and said in str(error) and "backends.tflite" in str(error)


def test_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EdgecError) as caught:
        load_target(str(path))
    assert caught.value.code == "target/syntax"
