"""PyTorch sources as users give them: factories, weights and checkpoints, pickles; what goes wrong is said plainly."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgec.errors import EdgecError
from edgec.frontends._torch.job import Exported, Job, run
from edgec.frontends._torch.state import fill
from edgec.frontends.base import Request, SourceOptions, load_source
from edgec.frontends.torch import accepts
from edgec.quantization.run.executor import Executor

SHAPES = {"x": (1, 4)}


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a user's file in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").write_text("SIZE = 3\n")
    (tmp_path / "net.py").write_text(
        textwrap.dedent(
            """\
            import sys
            import torch
            from torch import nn
            from helper import SIZE

            print("a user's print")

            class Net(nn.Module):
                def __init__(self, size):
                    super().__init__()
                    self.fc = nn.Linear(4, size)
                def forward(self, x):
                    return self.fc(x)

            class Ready(Net):
                example_inputs = {"x": torch.zeros(2, 4)}
                def __init__(self):
                    super().__init__(SIZE)

            def make():
                return Net(SIZE)

            def broken():
                raise OSError("no weights in /data")

            def quits():
                sys.exit(2)

            def number():
                return 5

            instance = Net(SIZE)
            """
        )
    )
    return tmp_path


def _error(**options: Any) -> EdgecError:
    with pytest.raises(EdgecError) as caught:
        run(Job(**options))
    return caught.value


def _run(spec: str, kind: str = "factory", **options: Any) -> Exported:
    return run(Job(kind=kind, spec=spec, **{"inputs": SHAPES, **options}))


@pytest.mark.parametrize("name", ["make", "instance", "Ready"])
def test_a_factory_is_a_function_a_class_or_the_module_itself(code: Path, name: str) -> None:
    exported = _run(f"net.py:{name}")
    assert exported.name == name
    assert [value.name for value in exported.model.graph.outputs] == ["output"]
    assert exported.outputs["output"].shape == (1, 3)


def test_example_inputs_of_the_module_stand_in_for_shapes(code: Path) -> None:
    exported = _run("net.py:Ready", inputs={})
    assert list(exported.model.graph.inputs[0].shape or ()) == [2, 4]
    error = _error(kind="factory", spec="net.py:make")
    assert error.code == "source/needs-inputs"
    assert "--input x:" in error.finding.hint


@pytest.mark.parametrize(
    ("spec", "code_of", "words", "source"),
    [
        ("net.py:broken", "source/factory-failed", "OSError: no weights in /data", "net.py:24"),
        ("net.py:quits", "source/factory-failed", "SystemExit", "net.py:27"),
        ("net.py:number", "source/factory-failed", "gives int", ""),
        ("net.py:Net", "source/factory-failed", "needs arguments (size)", ""),
        ("net.py:mke", "source/not-found", "has no 'mke'", ""),
        ("nothere.py:make", "source/not-found", "no file 'nothere.py'", ""),
        ("nopackage.net:make", "source/not-found", "no Python module 'nopackage'", ""),
        ("wants.py:make", "source/factory-failed", "needs the Python package 'nobody_has_this'", "wants.py:1"),
        ("typo.py:make", "source/factory-failed", "SyntaxError", "typo.py:2"),
        ("net.py", "source/needs-factory", "is not said", ""),
    ],
)
def test_what_is_wrong_with_a_factory_is_said_with_the_users_line(
    code: Path, spec: str, code_of: str, words: str, source: str
) -> None:
    (code / "wants.py").write_text("import nobody_has_this\n")
    (code / "typo.py").write_text("x = 1\ndef make(:\n")
    error = _error(kind="factory", spec=spec, inputs=SHAPES)
    assert error.code == code_of
    assert words in error.finding.message
    assert error.finding.source == source
    assert error.finding.hint


def test_a_wrong_element_type_lists_those_there_are(code: Path) -> None:
    error = _error(kind="factory", spec="net.py:make", inputs=SHAPES, dtypes={"x": "flaot32"})
    assert error.code == "source/input-type"
    assert "did you mean 'float32'" in error.finding.hint


WEIGHTS = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3)}


def _layouts() -> dict[str, Any]:
    wrapped = {f"module.{key}": value for key, value in WEIGHTS.items()}
    inner = {f"model.net.{key}": value for key, value in WEIGHTS.items()}
    return {
        "plain": WEIGHTS,
        "parallel": wrapped,
        "lightning": {"epoch": 3, "state_dict": inner, "optimizer_states": [{"state": {}}]},
        "nested": {"model": {"weights": OrderedDict(wrapped)}, "ema": {"decay": torch.tensor(0.9)}},
        "half": {key: value.half() for key, value in WEIGHTS.items()},
        "more": {**WEIGHTS, "criterion.weight": torch.ones(7)},
    }


@pytest.mark.parametrize("layout", list(_layouts()))
def test_checkpoints_of_every_layout_fill_the_module(code: Path, layout: str) -> None:
    torch.save(_layouts()[layout], "weights.pt")
    exported = _run("weights.pt", "state", factory="net.py:make")
    wanted = exported.inputs["x"] @ WEIGHTS["fc.weight"].numpy().T + 1
    np.testing.assert_allclose(exported.outputs["output"], wanted, rtol=1e-6, atol=1e-6)
    assert exported.name == "weights"
    assert [f.code for f in exported.findings] == (["source/weights-unused"] if layout == "more" else [])


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "legacy"])
def test_weights_of_other_formats(code: Path, suffix: str) -> None:
    path = code / f"weights.{suffix}"
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
        from safetensors.torch import save_file

        save_file(WEIGHTS, path)
    elif suffix == "npz":
        arrays: dict[str, Any] = {key: value.numpy() for key, value in WEIGHTS.items()}
        np.savez(path, **arrays)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    options = SourceOptions(factory="net.py:make")
    assert accepts(Request(spec=str(path), path=path, inputs=SHAPES, options=options))
    exported = _run(str(path), "state", factory="net.py:make")
    wanted = exported.inputs["x"] @ WEIGHTS["fc.weight"].numpy().T + 1
    np.testing.assert_allclose(exported.outputs["output"], wanted, rtol=1e-6, atol=1e-6)


def test_weights_of_another_net_are_refused_with_what_differs(code: Path) -> None:
    torch.save({"fc.weight": torch.ones(5, 4), "other": torch.ones(2)}, "weights.pt")
    error = _error(kind="state", spec="weights.pt", factory="net.py:make", inputs=SHAPES)
    assert error.code == "source/weights"
    assert "1 missing (fc.bias)" in error.finding.message
    assert "fc.weight is [5, 4], not [3, 4]" in error.finding.message
    assert "1 left over (other)" in error.finding.message
    torch.save({"epoch": 3}, "empty.pt")
    assert _error(kind="state", spec="empty.pt", factory="net.py:make", inputs=SHAPES).code == "source/weights"
    torch.save(WEIGHTS, "alone.pt")
    assert _error(kind="state", spec="alone.pt", inputs=SHAPES).code == "source/needs-factory"


def test_weights_shared_between_layers_stay_shared() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 3), nn.Linear(3, 6, bias=False)
            self.out.weight = self.embed.weight

    module, weight = Tied(), torch.arange(18.0).reshape(6, 3)
    fill(module, {"embed.weight": weight, "out.weight": weight}, where="")
    assert module.embed.weight is module.out.weight
    assert torch.equal(module.out.weight.detach(), weight)


class Bomb:
    """A pickle that would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("kind", ["state", "legacy", "program"])
def test_a_malicious_pickle_does_nothing(code: Path, kind: str) -> None:
    mark, path = code / "boom", code / f"weights.{'pt2' if kind == 'program' else 'pt'}"
    if kind == "program":
        _poisoned_program(path, Bomb(str(mark)))
    else:
        torch.save({"x": Bomb(str(mark))}, path, _use_new_zipfile_serialization=kind == "state")
    error = _error(kind="program" if kind == "program" else "state", spec=str(path), factory="net.py:make")
    assert error.code == "source/untrusted", error.render()
    assert "--trust" in error.finding.hint
    assert not mark.exists()


def _poisoned_program(path: Path, bomb: Bomb) -> None:
    """A valid program whose stored example is a pickle that runs code."""
    import io
    import zipfile

    clean = path.with_name("clean.pt2")
    torch.export.save(torch.export.export(nn.Linear(2, 2).eval(), (torch.ones(1, 2),)), clean)
    payload = io.BytesIO()
    torch.save(((bomb,), {}), payload)
    with zipfile.ZipFile(clean) as read, zipfile.ZipFile(path, "w") as write:
        for entry in read.infolist():
            data = payload.getvalue() if entry.filename.endswith("sample_inputs/model.pt") else read.read(entry)
            write.writestr(entry.filename, data)


def test_a_pickled_module_is_read_when_it_is_trusted(code: Path) -> None:
    script = "import torch, net; torch.save(net.make(), 'whole.pt')"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=300)
    error = _error(kind="state", spec="whole.pt", inputs=SHAPES)
    assert error.code == "source/untrusted"
    loaded = load_source("whole.pt", inputs=SHAPES, options=SourceOptions(trust=True))
    assert loaded.model.source.kind == "torch"


def test_damaged_files_are_told_apart_from_pickles(code: Path) -> None:
    torch.save(WEIGHTS, "weights.pt")
    data = Path("weights.pt").read_bytes()
    Path("cut.pt").write_bytes(data[: len(data) // 2])
    error = _error(kind="state", spec="cut.pt", factory="net.py:make", inputs=SHAPES)
    assert error.code == "source/malformed"
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), "p.pt2")
    Path("cut.pt2").write_bytes(Path("p.pt2").read_bytes()[:500])
    assert _error(kind="program", spec="cut.pt2").code == "source/malformed"


def test_a_program_captured_in_training_mode_is_set_to_inference(code: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9), nn.BatchNorm1d(4)).train()
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), "train.pt2")
    exported = _run("train.pt2", "program", inputs={})
    assert [f.code for f in exported.findings] == ["source/training-mode"]
    loaded = load_source("train.pt2")
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    name = loaded.model.inputs()[0].name
    got = Executor(loaded.model).run({name: x})
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got["output"], wanted, rtol=1e-5, atol=1e-5)


def test_a_program_with_a_free_batch_is_fixed_by_its_input(code: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(nn.Linear(4, 2), (torch.ones(2, 4),), dynamic_shapes={"input": {0: batch}})
    torch.export.save(program, "free.pt2")
    assert load_source("free.pt2", inputs={"input": (5, 4)}).model.outputs()[0].shape == (5, 2)
    assert _error(kind="program", spec="free.pt2", inputs={"inptu": (5, 4)}).code == "source/unknown-input"


def test_the_process_keeps_prints_and_returns_mapped_weights(code: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (code / "big.py").write_text("from torch import nn\ndef make(): return nn.Linear(512, 64)\nprint('noise')\n")
    loaded = load_source("big.py:make", inputs={"input": (1, 512)})
    assert capfd.readouterr() == ("", "")
    assert loaded.model.name == "make"
    assert loaded.model.source.name == "big.py:make"
    assert len(loaded.model.source.digest) == 64
    again = load_source("big.py:make", inputs={"input": (1, 512)})
    assert again.model.source.digest == loaded.model.source.digest
    assert Executor(loaded.model).run({"input": np.ones((1, 512), np.float32)})["output"].shape == (1, 64)


def test_errors_of_the_process_arrive_whole(code: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        load_source("net.py:broken", inputs=SHAPES)
    assert caught.value.code == "source/factory-failed"
    assert caught.value.finding.source == "net.py:24"
    (code / "two.py").write_text(
        "import torch\nfrom torch import nn\nclass Two(nn.Module):\n    def forward(self, x):\n"
        "        return torch.linalg.qr(torch.special.bessel_j0(x))[0]\n"
    )
    with pytest.raises(EdgecError) as caught:
        load_source("two.py:Two", inputs={"x": (3, 3)})
    assert len(caught.value.findings) == 2
    assert {finding.source for finding in caught.value.findings} == {"two.py:5"}


def test_torch_missing_names_the_extra(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(EdgecError) as caught:
        load_source("net.py:make", inputs=SHAPES)
    assert caught.value.code == "env/missing-extra"
    assert "edgec[torch]" in caught.value.finding.hint


def test_looking_at_a_source_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom edgec.frontends.base import Request, SourceOptions\n"
        "from edgec.frontends.torch import accepts\n"
        "r = Request(spec='a.b:c', path=None, inputs={}, options=SourceOptions())\n"
        "assert accepts(r) and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize(("spec", "wanted"), [("net.py:make", True), ("pkg.net:make", True), ("model.onnx", False)])
def test_what_looks_like_pytorch(spec: str, wanted: bool) -> None:
    assert accepts(Request(spec=spec, path=None, inputs={}, options=SourceOptions())) is wanted


def test_other_archives_are_not_taken(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    for file in (path, tmp_path / "plain.pkl"):
        assert not accepts(Request(spec=str(file), path=file, inputs={}, options=SourceOptions()))
