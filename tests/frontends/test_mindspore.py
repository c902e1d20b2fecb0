"""MindSpore: told by the name; without MindSpore the error says how to get it; with it the answers are the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.frontends import _environments as environments
from edgec.frontends.base import load_source
from edgec.quantization.run.executor import Executor

NET = """
import sys
import numpy as np, mindspore as ms
from mindspore import nn

class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.flat, self.dense = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dense(256, 5)

    def construct(self, x):
        return self.dense(self.flat(self.relu(self.conv(x))))

net = Net()
net.set_train(False)
x = ms.Tensor(np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32))
ms.export(net, x, file_name=sys.argv[1], file_format="MINDIR")
np.savez(sys.argv[2], x=x.asnumpy(), y=net(x).asnumpy())
"""


def test_without_mindspore_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_HOME", str(tmp_path))
    if environments.state_of("mindspore") == "here":
        pytest.skip("MindSpore is installed beside edgec")
    path = tmp_path / "net.mindir"
    path.write_bytes(b"\x0a\x05")
    with pytest.raises(EdgecError) as caught:
        load_source(path)
    assert caught.value.code == "env/missing-environment"
    assert caught.value.finding.hint.startswith("edgec doctor --install mindspore")


@pytest.mark.slow
def test_the_net_answers_as_in_mindspore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.environ.get("EDGEC_HOME"):
        monkeypatch.setenv("EDGEC_HOME", str(Path(__file__).resolve().parents[2] / ".cache" / "edgec"))
    if environments.state_of("mindspore") not in ("here", "installed"):
        pytest.skip("MindSpore is not installed: edgec doctor --install mindspore (0.8 GB to download)")
    (python,) = environments.python_of("mindspore", where="tests")
    path, answers = tmp_path / "net.mindir", tmp_path / "answers.npz"
    script = tmp_path / "net.py"  # MindSpore compiles what it reads there
    script.write_text(NET)
    subprocess.run([python, str(script), str(path), str(answers)], check=True, capture_output=True)
    model = load_source(path).model
    expected = np.load(answers)
    assert model.inputs()[0].name == "x"
    (output,) = Executor(model).run({model.inputs()[0].name: expected["x"]}).values()
    np.testing.assert_allclose(output, expected["y"], rtol=0, atol=1e-5)
    with pytest.raises(EdgecError) as caught:
        load_source(path, inputs={"no such input": (1, 3, 8, 8)})
    assert caught.value.code == "source/unknown-input"
