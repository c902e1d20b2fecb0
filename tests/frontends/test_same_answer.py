"""The exported graph against the framework's own answer: rounding passes, anything more is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec.errors import EdgecError
from edgec.frontends._onnx_model import from_ir
from edgec.frontends._same_answer import compare_answers
from edgec.frontends._torch_export import answers, export_module
from edgec.graph.model import Model, SourceInfo


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stft(x, 64, 16, window=torch.hann_window(64), return_complex=True).abs()


class Convolved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * torch.complex(torch.tensor(0.5), torch.tensor(0.25)))


class Ranked(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        best = torch.einsum("bij,bkj->bik", x, x).tril().cumsum(1).roll(1, 2).topk(3, -1)
        return best.values, best.indices


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)


MODULES: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "complex spectrum": (Spectrum, {"x": (1, 256)}),
    "product of spectra": (Convolved, {"x": (1, 64)}),
    "ranks": (Ranked, {"x": (1, 6, 8)}),
    "transformer encoder": (_encoder, {"src": (1, 5, 16)}),
    "half precision": (lambda: nn.Conv2d(3, 4, 3).half(), {"input": (1, 3, 8, 8)}),
}


def _model(module: nn.Module, inputs: dict[str, Tensor]) -> Model:
    exported = export_module(module, inputs, name="m")
    return from_ir(exported, source=SourceInfo(kind="torch", name="m", digest=""), name="m", inputs={}).model


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", list(MODULES))
def test_graphs_that_answer_alike_pass(name: str) -> None:
    make, shapes = MODULES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make()
    kind = next((weight.dtype for weight in module.parameters()), torch.float32)
    inputs = {key: _noise(shape).to(kind) for key, shape in shapes.items()}
    model = _model(module, inputs)
    fed, given = answers(module, inputs, [value.name or "" for value in model.graph.outputs])
    assert given
    assert compare_answers(model, fed, given, where="") == ()


@pytest.mark.parametrize(("change", "severity"), [(0.02, "warning"), (1.0, "error")])
def test_a_graph_that_answers_otherwise_is_told(change: float, severity: str) -> None:
    module, inputs = nn.Linear(4, 3), {"input": torch.ones(1, 4)}
    model = _model(module, inputs)
    fed, given = answers(module, inputs, ["output"])
    wrong = {"output": given["output"] + change * np.abs(given["output"]).max()}
    if severity == "error":
        with pytest.raises(EdgecError) as caught:
            compare_answers(model, fed, wrong, where="net.py:make")
        assert caught.value.code == "source/exporter-differs"
        return
    (finding,) = compare_answers(model, fed, wrong, where="net.py:make")
    assert (finding.code, finding.severity) == ("source/exporter-differs", severity)


def test_shapes_and_nans_must_be_the_same() -> None:
    model = _model(nn.Identity(), {"input": torch.ones(1, 4)})
    fed = {"input": np.array([[1, 2, np.nan, 4]], np.float32)}
    name = model.outputs()[0].name
    assert compare_answers(model, fed, {name: fed["input"]}, where="") == ()
    for wrong in (np.ones((1, 4), np.float32), np.ones((4, 1), np.float32)):
        with pytest.raises(EdgecError):
            compare_answers(model, fed, {name: wrong}, where="")


def test_a_module_that_draws_numbers_is_not_compared() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    assert answers(Noisy(), {"x": torch.ones(3)}, ["output"]) == ({}, {})
