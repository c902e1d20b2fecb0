"""Reversed subtraction promotes its tensor, as torch does and the exporter does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgec.frontends._onnx_model import from_ir
from edgec.frontends._torch_export import export_module
from edgec.graph.model import SourceInfo
from edgec.quantization.run.executor import Executor


class Inverted(nn.Module):
    def __init__(self, one: float) -> None:
        super().__init__()
        self.one = one

    def forward(self, mask: Tensor) -> Tensor:
        return self.one - mask


@pytest.mark.parametrize("one", [1.0, 1, 2.5])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_number_minus_tensor(one: float, dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 1, 3]], dtype=dtype)
    exported = export_module(Inverted(one), {"mask": mask}, name="m")
    model = from_ir(exported, source=SourceInfo(kind="torch", name="m", digest=""), name="m", inputs={}).model
    got = Executor(model).run({"mask": mask.numpy()})["output"]
    wanted = (one - mask).numpy()
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
