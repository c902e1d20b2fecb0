"""Modules to ONNX graphs: names, origins, what is left behind, and what torch.export refuses."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from edgec.errors import EdgecError
from edgec.frontends._onnx_model import from_ir
from edgec.frontends._torch.examples import examples
from edgec.frontends._torch_export import export_module
from edgec.frontends._torch_tree import nest, unique
from edgec.graph.model import ORIGIN_KEY, Model, SourceInfo
from edgec.passes.pipelines import canonicalize
from edgec.pipeline import check
from edgec.quantization.run.executor import Executor

HERE = "test_torch_export.py"
RELATIVE = 1e-5


def _model(module: nn.Module, inputs: Mapping[str, Tensor]) -> Model:
    exported = export_module(module, inputs, name="m")
    return from_ir(exported, source=SourceInfo(kind="torch", name="m", digest=""), name="m", inputs={}).model


def _refused(module: nn.Module, **inputs: Tensor) -> EdgecError:
    with pytest.raises(EdgecError) as caught:
        export_module(module, inputs, name="m", where="net.py:make")
    return caught.value


def _line(text: str) -> str:
    """`file:number` of the line of this file that ends with the marker."""
    lines = Path(__file__).read_text().splitlines()
    return f"{HERE}:{next(i for i, line in enumerate(lines, 1) if line.endswith('# ' + text))}"


@dataclasses.dataclass
class Answer:
    logits: Tensor
    extra: dict[str, object]


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor], scale: float = 2.0) -> Answer:
        self.calls += 1
        y = self.layers(x) * scale
        return Answer(y, {"state": (state[0] + y, state[1]), "x": x, "again": y})


def test_names_of_nested_inputs_and_outputs_are_kept() -> None:
    inputs = {"x": torch.randn(2, 4), "state.0": torch.randn(2, 4), "state.1": torch.randn(3)}
    module = Stateful()
    model = _model(module, inputs)
    assert [s.name for s in model.inputs()] == ["x", "state.0", "state.1"]
    names = ["logits", "extra.state.0", "extra.state.1", "extra.x", "extra.again"]
    assert [s.name for s in model.outputs()] == names
    with torch.no_grad():
        wanted = module.eval()(inputs["x"], (inputs["state.0"], inputs["state.1"]))
    got = Executor(model).run({name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(got["logits"], wanted.logits.numpy(), rtol=RELATIVE, atol=1e-6)
    np.testing.assert_array_equal(got["extra.again"], got["logits"])
    np.testing.assert_array_equal(got["extra.x"], inputs["x"].numpy())


def test_nothing_of_the_module_or_of_torch_is_changed() -> None:
    module = Stateful().train()
    module.layers[1].eval()
    before, random = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    export_module(module, {"x": torch.ones(2, 4), "state.0": torch.ones(2, 4), "state.1": torch.ones(3)}, name="m")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
    assert torch.equal(torch.get_rng_state(), random)


def test_every_node_names_its_layer_and_line() -> None:
    inputs = {"x": torch.randn(2, 4), "state.0": torch.randn(2, 4), "state.1": torch.randn(3)}
    exported = export_module(Stateful(), inputs, name="m")
    origins = {node.op_type: node.metadata_props.get(ORIGIN_KEY, "") for node in exported.graph}
    assert origins["BatchNormalization"].startswith(f"layers.2, {HERE}:")
    assert origins["Gemm"].startswith(f"layers.0, {HERE}:")
    keys = {key for node in exported.graph for key in node.metadata_props}
    assert keys == {ORIGIN_KEY}  # the exporter's own notes hold paths of this machine


def test_a_state_that_keeps_its_name_comes_out_under_another() -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> dict[str, Tensor]:
            return {"h": x + h, "y": h * 2}

    model = _model(Step(), {"x": torch.ones(3), "h": torch.ones(3)})
    assert [s.name for s in model.outputs()] == ["h_out", "y"]


def test_weights_shared_between_layers_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(64, 32), nn.Linear(32, 64, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.out(self.embed(ids))

    exported = export_module(Tied(), {"ids": torch.ones(1, 4, dtype=torch.int64)}, name="m")
    large = [v for v in exported.graph.initializers.values() if v.const_value is not None and v.const_value.size > 999]
    assert len(large) == 1


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_modules_of_other_float_types(kind: str) -> None:
    dtype = getattr(torch, kind)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(dtype)
    inputs = examples(module, {"input": (1, 4)}, {}, where="")
    assert inputs["input"].dtype == dtype
    model = _model(module, inputs)
    assert canonicalize(model).source_inputs()[0].dtype.value == kind


def test_a_custom_operator_is_opened_and_a_custom_gradient_ignored() -> None:
    @torch.library.custom_op("edgec_test::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    twice.register_fake(lambda x: torch.empty_like(x))

    class Gate(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clamp(0, 1)

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return grads[0]

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return twice(Gate.apply(x)) + 1

    model = _model(Net(), {"x": torch.zeros(4)})
    got = Executor(model).run({"x": np.array([-1, 0.25, 0.5, 3], np.float32)})
    np.testing.assert_array_equal(got["output"], np.array([1, 1.5, 2, 3], np.float32))


def test_a_branch_on_data_is_refused_with_its_line() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:  # the branch
                return x * 2
            return x

    error = _refused(Branch(), x=torch.ones(3))
    assert error.code == "source/data-dependent"
    assert error.finding.source == _line("the branch")
    assert "torch.where" in error.finding.hint


def test_every_operator_without_onnx_is_named_with_its_layer_and_line() -> None:
    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)  # no ONNX 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Bessel()

        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.qr(self.first(x))[0]  # no ONNX 2

    error = _refused(Net(), x=torch.eye(3))
    assert error.code == "source/unsupported-operator"
    assert {f.source for f in error.findings} == {f"first, {_line('no ONNX 1')}", _line("no ONNX 2")}
    assert {f.message.split()[0] for f in error.findings} == {"aten.special_bessel_j0", "aten.linalg_qr"}


def test_a_wrong_shape_is_told_with_the_line_that_failed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image)  # fails

    error = _refused(Net(), image=torch.ones(1, 1, 8, 8))
    assert error.code == "source/forward-failed"
    assert error.finding.source == _line("fails")
    assert "image [1, 1, 8, 8] float32" in error.finding.message
    unknown = _refused(Net(), picture=torch.ones(1, 3, 8, 8))
    assert unknown.code == "source/unknown-input"
    assert "--input image:" in unknown.finding.hint


def test_an_output_that_is_no_tensor_is_named() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> dict[str, object]:
            return {"y": x, "label": "cat"}

    error = _refused(Net(), x=torch.ones(3))
    assert error.code == "source/bad-output"
    assert "label is str" in error.finding.message


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    export_module(nn.LSTM(3, 4), {"input": torch.ones(2, 1, 3)}, name="m")
    sys.stdout.flush()
    assert capfd.readouterr() == ("", "")


def test_a_check_names_the_users_line(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pick = Pick()

        def forward(self, x: Tensor) -> Tensor:
            return self.pick(x) + 1

    class Pick(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[x > 0].sum()  # as many as there are

    exported = export_module(Net(), {"x": torch.ones(1, 8)}, name="m")
    path = tmp_path / "pick.onnx"
    ir.save(exported, path)
    findings = check(path, target="raspberrypi")
    named = [finding for finding in findings if finding.source == f"pick, {_line('as many as there are')}"]
    assert named, findings


def test_dotted_names_make_tuples_and_dicts() -> None:
    assert nest({"a": 1, "s.0": 2, "s.1": 3, "d.k": 4}) == {"a": 1, "s": (2, 3), "d": {"k": 4}}
    assert unique(["x", "x", "y"], ["x"]) == ["x_out", "x_out2", "y"]
