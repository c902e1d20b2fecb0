"""`edgec validate` beyond the goldens: planted faults are named, the innocent stages are not."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgec.bundle.open import open_bundle
from edgec.devices.base import ExecResult
from edgec.devices.kinds.local import LocalDevice
from edgec.errors import EdgecError
from edgec.pipeline.prove import Wishes, prove, run_validate
from tests.support import applications
from tests.support import tiny_bundles as tiny

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return applications.build_application(tmp_path_factory.mktemp("application"))


def judged(bundle: Path, folder: Path, fault: str, **wishes: Any) -> dict[str, Any]:
    app = applications.write_app(folder, fault)
    data = bundle.parent / "pictures"
    return run_validate(bundle, wishes=Wishes(**{"app": app, "data": str(data), "runs": 0, **wishes}))


def verdicts(answer: Mapping[str, Any]) -> list[bool | None]:
    return [stage["passed"] for stage in answer["stages"]]


def why(answer: Mapping[str, Any]) -> str:
    return " | ".join(stage["why"] for stage in answer["stages"] if stage["passed"] is False)


def test_a_right_application_has_no_guilty_stage(bundle: Path, tmp_path: Path) -> None:
    answer = judged(bundle, tmp_path, "")
    assert answer["passed"]
    assert answer["guilty"] == []
    assert verdicts(answer) == [True, True, True]
    assert [stage["samples"] for stage in answer["stages"]] == [8, 8, 8]
    assert answer["stages"][1]["facts"] == {"equal_share": 1.0}


@pytest.mark.parametrize(
    ("fault", "guilty", "words"),
    [
        ("bgr", "preprocessing", "colour channels are in the opposite order"),
        ("0-255", "preprocessing", "pixels of 0 to 255"),
        ("0-1", "preprocessing", "0 to 1"),
        ("mirror", "preprocessing", "mirrored"),
        ("channels-first", "preprocessing", "axes are in another order"),
        ("raises", "preprocessing", "KeyError"),
        ("off-by-one", "postprocessing", "off by one"),
        ("labels-sorted", "postprocessing", "alphabetical order"),
    ],
)
def test_planted_faults_are_named(bundle: Path, tmp_path: Path, fault: str, guilty: str, words: str) -> None:
    answer = judged(bundle, tmp_path, fault)
    assert not answer["passed"]
    assert answer["guilty"] == [guilty]
    assert words in why(answer)
    (finding,) = [f for f in answer["findings"] if f["severity"] == "error"]
    assert finding["code"] == f"validate/{guilty}"


def test_two_faults_in_two_stages_are_both_named(bundle: Path, tmp_path: Path) -> None:
    answer = judged(bundle, tmp_path, "bgr 0-255 off-by-one")
    assert answer["guilty"] == ["preprocessing", "postprocessing"]
    assert "opposite order" in why(answer)
    assert "0 to 255" in why(answer)


def test_answers_that_are_no_classes_are_compared_with_the_function_here(bundle: Path, tmp_path: Path) -> None:
    answer = judged(bundle, tmp_path, "boxes")
    assert verdicts(answer) == [True, True, True]
    assert "no classes" in answer["stages"][2]["why"]


def test_an_application_that_cannot_be_loaded_says_so(bundle: Path, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    wishes = Wishes(app=app, data=str(bundle.parent / "pictures"), runs=0)
    for source, words in (("import no_such_camera", "no_such_camera"), ("x = 1", "preprocess")):
        app.write_text(source)
        with pytest.raises(EdgecError) as caught:
            run_validate(bundle, wishes=wishes)
        assert caught.value.code == "validate/app"
        assert words in caught.value.finding.message


def dump(bundle: Path, folder: Path, *, stale: bool = False) -> Path:
    """What an application in another language would write: five lines, done here with the bundle itself."""
    names = [b.artifact.name for b in open_bundle(bundle).inputs]
    with open_bundle(bundle) as opened:
        last = None
        for file in sorted((bundle.parent / "pictures").rglob("*.npy")):
            x = ((np.load(file).astype(np.float32) / 255 - MEAN) / STD)[None]
            raw = opened.run_raw({names[0]: x.astype(np.float32)})[opened.outputs[0].artifact.name]
            shown = last if stale and last is not None else raw
            last = raw
            folder.mkdir(exist_ok=True)
            np.save(folder / f"{file.stem}.pre.npy", x)
            np.save(folder / f"{file.stem}.raw.npy", shown)
            (folder / f"{file.stem}.post.json").write_text(json.dumps(int(np.argmax(shown))))
    return folder


def flat_pictures(bundle: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in (bundle.parent / "pictures").rglob("*.npy"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_dump_is_judged_like_an_application(bundle: Path, tmp_path: Path) -> None:
    data = flat_pictures(bundle, tmp_path / "data")
    good = dump(bundle, tmp_path / "dump")
    answer = run_validate(bundle, wishes=Wishes(runs=0, dump=str(good), data=str(data)))
    assert verdicts(answer) == [True, True, True]
    answer = run_validate(bundle, wishes=Wishes(runs=0, dump=f"device:{good}", data=str(data)))
    assert verdicts(answer) == [True, True, True]
    # Outputs of the run before: the model is guilty, and the answers are what those outputs mean.
    stale = dump(bundle, tmp_path / "stale", stale=True)
    answer = run_validate(bundle, wishes=Wishes(runs=0, dump=str(stale), data=str(data)))
    assert answer["guilty"] == ["model"]


def test_a_dump_of_nothing_is_an_error(bundle: Path, tmp_path: Path) -> None:
    data = flat_pictures(bundle, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "missing", tmp_path / "empty"):
        with pytest.raises(EdgecError) as caught:
            run_validate(bundle, wishes=Wishes(runs=0, dump=str(place), data=str(data)))
        assert caught.value.code == "validate/dump"


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(app=Path("app.py")),
        Wishes(app=Path("app.py"), dump="d", data="x"),
        Wishes(metric="top1"),
        Wishes(sign_key=Path("key.pem")),
    ],
)
def test_options_that_mean_nothing_together(bundle: Path, wishes: Wishes) -> None:
    with pytest.raises(EdgecError) as caught:
        run_validate(bundle, wishes=wishes)
    assert caught.value.code == "cli/validate-options"


class Doctored(LocalDevice):
    """This machine with a TFLite runtime in which something is other: a line of Python that runs before the agent."""

    def __init__(self, folder: Path, change: str) -> None:
        super().__init__(name="doctored")
        self._start = folder / "start.py"
        self._start.write_text(
            "import runpy, sys\n"
            "sys.argv = sys.argv[1:]\n"
            "if sys.argv[0].endswith('agent.py'):\n"
            "    from ai_edge_litert import interpreter\n"
            "    Real = interpreter.Interpreter\n" + "".join(f"    {line}\n" for line in change.splitlines()) + "    "
            "interpreter.Interpreter = changed\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        )

    def exec(
        self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None, stdin: bytes = b""
    ) -> ExecResult:
        if argv[0] == sys.executable and argv[2].endswith("agent.py"):
            argv = [*argv[:2], str(self._start), *argv[2:]]
        return super().exec(argv, timeout_s=timeout_s, env=env, stdin=stdin)


WITHOUT_XNNPACK = """def changed(*args, **named):
    kinds = interpreter.OpResolverType
    return Real(*args, **{"experimental_op_resolver_type": kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES, **named})"""


def test_a_runtime_without_xnnpack_is_named(bundle: Path, tmp_path: Path) -> None:
    with open_bundle(bundle) as opened:
        answer = prove(opened, Doctored(tmp_path, WITHOUT_XNNPACK), Wishes(runs=0))
        here = prove(opened, LocalDevice(), Wishes(runs=0))
    assert (here["kernel_set"], here["bit_exact"]) == ("XNNPACK", True)
    assert (answer["kernel_set"], answer["bit_exact"]) == ("builtin", False)
    (finding,) = [f for f in answer["findings"] if f["code"] == "validate/other-kernels"]
    assert finding["severity"] == "warning"
    assert "without XNNPACK" in finding["message"]
    assert answer["passed"]


OTHER_ORDER = """class changed(Real):
    def get_tensor(self, index):
        return super().get_tensor(index)[..., ::-1]"""


def other_weight(bundle: Path) -> str:
    """A runtime that computes one convolution wrongly: one of its weights is another one."""
    from edgec.backends.tflite.schema import fb

    with open_bundle(bundle) as opened:
        data = opened.read(opened.manifest.model)
    graph = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(data, 0))
    convolutions = [op for op in graph.subgraphs[0].operators if len(op.inputs) == 3]
    right = graph.buffers[graph.subgraphs[0].tensors[convolutions[1].inputs[1]].buffer].data.tobytes()
    assert data.count(right) == 1
    wrong = bytes([right[0] ^ 0x40]) + right[1:]
    return (
        "def changed(model_path=None, **named):\n"
        "    content = open(model_path, 'rb').read()\n"
        f"    content = content.replace({right!r}, {wrong!r})\n"
        "    return Real(model_content=content, **named)"
    )


def test_other_bits_with_the_same_kernels_name_the_layer(bundle: Path, tmp_path: Path) -> None:
    from edgec.backends.tflite.schema import fb

    with open_bundle(bundle) as opened:
        answer = prove(opened, Doctored(tmp_path, other_weight(bundle)), Wishes(runs=0))
        graph = fb.ModelT.InitFromObj(fb.Model.GetRootAsModel(opened.read(opened.manifest.model), 0)).subgraphs[0]
    wrong = [op for op in graph.operators if len(op.inputs) == 3][1]
    assert not answer["passed"]
    assert answer["kernel_set"] == "XNNPACK"
    (finding,) = [f for f in answer["findings"] if f["code"] == "validate/not-exact"]
    assert finding["severity"] == "error"
    assert f"{graph.tensors[wrong.outputs[0]].name.decode()!r}" in finding["where"]


def test_a_labelled_set_is_measured_there_and_here(bundle: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEC_CACHE", str(bundle.parent / "cache"))
        answer = run_validate(bundle, wishes=Wishes(data=str(bundle.parent / "pictures"), samples=8))
    task = answer["task"]
    assert task["samples"] == 8
    assert task["equal_share"] == 1.0
    assert task["top1_agreement"] == 1.0
    assert answer["passed"]


def test_a_device_that_does_the_task_worse_fails(bundle: Path, tmp_path: Path) -> None:
    """Labels are what the bundle answers here, so that this machine has all of them right."""
    data = tmp_path / "data.npz"
    x = np.stack([((p.astype(np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1) for p in applications.pixels(24)])
    recipe = tmp_path / "plain.toml"
    recipe.write_text('reader = "array"\n')
    with open_bundle(bundle) as opened:
        labels = [int(np.argmax(opened.run({"image": row[None]})["scores"])) for row in x]
        np.savez(data, image=x, labels=np.array(labels))
        wishes = Wishes(data=f"{recipe}:{data}", metric="top1")
        right = prove(opened, LocalDevice(), wishes)
        wrong = prove(opened, Doctored(tmp_path, OTHER_ORDER), wishes)
    assert right["task"]["device"] == right["task"]["host"] == 1.0
    assert right["passed"]
    assert wrong["task"]["host"] == 1.0
    assert wrong["task"]["device"] < 0.9
    assert "validate/task" in [f["code"] for f in wrong["findings"]]


def test_a_metric_without_labels_is_an_error(tmp_path: Path) -> None:
    path = tiny.pack(tmp_path / "x.edgec", tiny.tflite_artifact())
    np.save(tmp_path / "x.npy", np.stack([tiny.sample(i)[0] for i in range(4)]))
    with pytest.raises(EdgecError) as caught:
        run_validate(path, wishes=Wishes(data=str(tmp_path / "x.npy"), metric="top1"))
    assert caught.value.code == "calibration/no-labels"
