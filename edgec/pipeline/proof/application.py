"""Run the user's application on the device, or take what it wrote down, and judge it at the three cut points.

The samples are the files of `data`; what each should be fed comes from the recipe given with it, or from what the
bundle's manifest says. Where neither says anything, preprocessing is not judged.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import AGENT, Worker
from edgec.devices.base import Transport
from edgec.errors import EdgecError
from edgec.pipeline.io_facts import manifest_recipe
from edgec.pipeline.proof.cuts import (
    DIAGNOSED,
    Expected,
    Stage,
    failed_stages,
    guilty,
    judge_model,
    judge_postprocessing,
    judge_preprocessing,
)
from edgec.pipeline.proof.dumps import NOTHING, Dump, read_dumps
from edgec.quantization.data.readers.base import list_files
from edgec.quantization.data.recipe import InputSteps, Recipe, Resize
from edgec.quantization.data.samples import SampleSource, choose, open_samples
from edgec.runners.base import call_agent
from edgec.tensors import Array

DEFAULT_SAMPLES = 16
#: Other ways to bring a picture to the model's size, and what each means when it explains the device's input.
RESIZES: Mapping[str, Mapping[str, Any]] = {
    "the picture is stretched to the model's size": {"mode": "stretch"},
    "the picture is cropped without a margin": {"mode": "center-crop", "crop": 1.0},
    "the picture is cropped with a margin (7/8)": {"mode": "center-crop", "crop": 0.875},
    "the picture is letterboxed": {"mode": "letterbox"},
    "the picture is letterboxed on black": {"mode": "letterbox", "fill": 0},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Application:
    """What the user gave: `app`, a Python file that runs on the device, or `dump`, a folder that the app wrote.

    A dump is a folder here, or `device:/a/folder` there.
    """

    data: str
    app: Path | None = None
    dump: str | None = None
    samples: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    name: str
    file: Path
    number: int


def judge_application(
    bundle: Bundle, device: Transport, application: Application, *, kernels: str, exact: bool, timeout_s: float
) -> tuple[Stage, ...]:
    """The three stages. `kernels` names the set that ran on the device, as the agent does; `exact` asks for equal bits.

    Raises `EdgecError`: validate/app, validate/dump, calibration/…, device/….
    """
    source, recipe = _source(bundle, application)
    samples = _samples(source, application)
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        here = Path(folder)
        place = _obtain(bundle, device, application, samples, here, timeout_s)
        dumps = read_dumps(place, [s.name for s in samples], bundle.inputs, bundle.outputs)
        failed = failed_stages(dumps)
        expected = {} if source is None or recipe is None else _expected(bundle, source, recipe, samples)
        steps = {b.source.name: recipe.steps(b.source.name) if recipe else None for b in bundle.inputs}
        stages = (
            judge_preprocessing(dumps, expected, bundle.inputs, steps),
            judge_model(dumps, _run_here(bundle, dumps, kernels), bundle.outputs, exact=exact),
            judge_postprocessing(
                dumps, bundle.outputs, bundle.manifest.labels, _own_answers(bundle, application, dumps)
            ),
        )
    if recipe is None and stages[0].passed is None:
        why = "the bundle records no preprocessing: give a recipe with the data, as in --data imagenet:FOLDER"
        stages = (replace(stages[0], why=why), *stages[1:])
    return _with_failures(stages, failed, next((m for d in dumps if (m := misfit(bundle, d))), ""))


def _with_failures(stages: tuple[Stage, Stage, Stage], failed: Sequence[Stage], unfit: str) -> tuple[Stage, ...]:
    """A stage that failed on the device is guilty by its own word, unless it was fed what it cannot take."""
    own = {stage.stage: stage for stage in failed}
    preprocessing, model, postprocessing = (
        stage if stage.passed is False else own.get(stage.stage, stage) for stage in stages
    )
    if unfit:
        if preprocessing.passed is not False:
            preprocessing = guilty("preprocessing", unfit, preprocessing.samples)
        model = Stage(stage="model", passed=None, why="it was fed what it does not take")
    return preprocessing, model, postprocessing


def _source(bundle: Bundle, application: Application) -> tuple[SampleSource | None, Recipe | None]:
    """The data as calibration reads it, and the recipe in force; neither where no reader of ours knows the files."""
    usual = manifest_recipe(bundle.manifest.preprocessing)
    specs = [binding.source for binding in bundle.inputs]
    count = application.samples or DEFAULT_SAMPLES
    try:
        source = open_samples(application.data, specs, count=count, usual=usual)
    except EdgecError as error:
        if error.code not in ("calibration/unknown-kind", "calibration/inputs", "calibration/shape"):
            raise
        return None, None
    return source, source.recipe if source.recipe.inputs else None


def _samples(source: SampleSource | None, application: Application) -> list[_Sample]:
    """The files that the application is given, each with its number in the source."""
    place = Path(application.data) if source is None else source.place
    if source is None:
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    else:
        files = list(source.files) or _likely_files(place)
    if not files or (source is not None and len(files) != source.total):
        raise EdgecError(
            "validate/dump",
            "each sample must be a file of its own for an application",
            where=str(place),
            hint="give a folder with a file for each sample",
        )
    base = place.parent if place.is_file() else place
    seed = None if source is None else source.recipe.seed
    chosen = choose(len(files), application.samples or DEFAULT_SAMPLES, seed=seed)
    return [_Sample(name=files[i].relative_to(base).as_posix(), file=files[i], number=i) for i in chosen]


def _likely_files(place: Path) -> list[Path]:
    """Files of the folder's commonest kind, in the order in which readers take them."""
    if place.is_file():
        return [place]
    kinds = Counter(path.suffix.lower() for path in place.rglob("*") if path.is_file())
    return list_files(place, frozenset({kinds.most_common(1)[0][0]})) if kinds else []


def _obtain(
    bundle: Bundle,
    device: Transport,
    application: Application,
    samples: Sequence[_Sample],
    here: Path,
    timeout_s: float,
) -> Path:
    """A folder here with the dumps."""
    if application.dump is not None:
        kind, _, remote = application.dump.partition(":")
        if kind != "device":
            return Path(application.dump)
        device.pull(remote, here / "dump")
        return here / "dump"
    assert application.app is not None
    bundle.extract(here / "bundle", [n for n in bundle.names if not n.startswith(("golden/", "graphs/"))])
    for sample in samples:
        copy = here / "data" / sample.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.file, copy)
    if not application.app.is_file():
        raise EdgecError("validate/app", "there is no such file", where=str(application.app), hint="give a Python file")
    with device.scratch() as scratch:
        device.push(here / "bundle", f"{scratch}/bundle")
        device.push(here / "data", f"{scratch}/data")
        device.push(AGENT, f"{scratch}/agent.py")
        device.push(application.app, f"{scratch}/app/{application.app.name}")
        call_agent(
            device,
            f"{scratch}/agent.py",
            ("app", f"{scratch}/bundle", f"--app={scratch}/app/{application.app.name}", f"--data={scratch}/data",
             f"--out={scratch}/out"),
            timeout_s=timeout_s,
            where=f"{application.app.name} on {device.name}",
        )  # fmt: skip
        device.pull(f"{scratch}/out", here / "dump")
    return here / "dump"


def _expected(bundle: Bundle, source: SampleSource, recipe: Recipe, samples: Sequence[_Sample]) -> dict[str, Expected]:
    """What each sample should be fed, in the artifact's terms."""
    numbers = {sample.number: sample.name for sample in samples}
    right = _feeds(bundle, source, numbers)
    few = {sample.number: sample.name for sample in samples[:DIAGNOSED]}
    variants = {}
    for why, changes in RESIZES.items() if recipe.reader == "image" else ():
        other = recipe.model_copy(update={"inputs": {n: _resized(s, changes) for n, s in recipe.inputs.items()}})
        if other == recipe:
            continue
        specs = [binding.source for binding in bundle.inputs]
        variants[why] = _feeds(bundle, open_samples(source.place, specs, count=source.count, usual=other), few)
    return {
        name: Expected(pre=pre, variants={why: feeds[name] for why, feeds in variants.items() if name in feeds})
        for name, pre in right.items()
    }


def _resized(steps: InputSteps, changes: Mapping[str, Any]) -> InputSteps:
    return steps.model_copy(update={"resize": Resize.model_validate({**steps.resize.model_dump(), **changes})})


def _feeds(bundle: Bundle, source: SampleSource, wanted: Mapping[int, str]) -> dict[str, list[Array]]:
    """Prepared inputs by sample name; only feeds of one sample can be told apart."""
    found = {}
    for numbers, feed in source.numbered():
        if len(set(numbers)) == 1 and numbers[0] in wanted:
            found[wanted[numbers[0]]] = [b.to_artifact(feed[b.source.name]) for b in bundle.inputs]
    return found


def _run_here(bundle: Bundle, dumps: Sequence[Dump], kernels: str) -> dict[str, Sequence[Array] | str]:
    """The model's outputs here on the device's own inputs, by sample; or why there are none."""
    found: dict[str, Sequence[Array] | str] = {}
    with Worker(bundle.model_path, bundle.manifest.runner, kernels=kernels) as worker:
        for dump in dumps:
            if not dump.pre or not dump.raw:
                continue
            if unfit := misfit(bundle, dump):
                found[dump.name] = unfit
                continue
            outputs = worker.run({b.artifact.name: v for b, v in zip(bundle.inputs, dump.pre, strict=True)})
            found[dump.name] = [outputs[b.artifact.name] for b in bundle.outputs]
    return found


def misfit(bundle: Bundle, dump: Dump) -> str:
    """What does not fit in what the model was fed; empty where all does, or nothing is known."""
    if not dump.pre:
        return ""
    for binding, value in zip(bundle.inputs, dump.pre, strict=True):
        spec = binding.artifact
        if value.dtype != spec.dtype.numpy or value.shape != spec.shape:
            return (
                f"it gives {value.dtype}{list(value.shape)} for input {binding.source.name!r}, "
                f"which is {spec.dtype.value}{list(spec.shape)}"
            )
    return ""


def _own_answers(bundle: Bundle, application: Application, dumps: Sequence[Dump]) -> dict[str, Any]:
    """The application's own function on the device's outputs, here; empty where it cannot be run here."""
    if application.app is None:
        return {}
    try:
        spec = importlib.util.spec_from_file_location("edgec_app", application.app)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answers = {}
        for dump in dumps:
            if dump.raw and dump.post is not NOTHING:
                names = [b.artifact.name for b in bundle.outputs]
                told = dump.raw[0] if len(dump.raw) == 1 else dict(zip(names, dump.raw, strict=True))
                answers[dump.name] = json.loads(json.dumps(module.postprocess(told), default=_plain))
    except Exception:  # noqa: BLE001  it may need what only the device has: then it is not compared
        return {}
    return answers


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()
