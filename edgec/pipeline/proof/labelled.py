"""A data set run on the device: the task's metric there, here, and of the float model where it is at hand.

Samples are prepared here and sent in pieces; the device runs the model and sends its outputs back. Without labels the
device is compared with this machine alone.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgec.bundle.bundle import Bundle
from edgec.bundle.worker import AGENT, Worker
from edgec.devices.base import Transport
from edgec.errors import EdgecError, Finding
from edgec.metrics import sqnr_db, top1_agreement
from edgec.pipeline import kept_graphs
from edgec.pipeline.io_facts import manifest_recipe
from edgec.quantization.data.labels import labels_of
from edgec.quantization.data.samples import SampleSource, open_samples
from edgec.quantization.measures.task_metrics import Metric, load_metric
from edgec.runners.base import call_agent
from edgec.runners.kernels import FLOAT_ROUNDING, same_value
from edgec.tensors import Array

DEFAULT_SAMPLES = 512
#: What is in memory, and on the way, at a time.
PIECE_BYTES = 16 << 20
#: What the device may lose against this machine with other kernels: so much, or so many samples, whichever is more.
MAX_DROP, MAX_SAMPLES = 0.01, 2
#: Without labels: how much of the winners, or how little noise.
MIN_TOP1, MIN_DB = 0.95, 15.0

Outputs = Sequence[Mapping[str, Array]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """What a data set says. `device`, `host`, `float_model` are the metric's values, None where there is none.

    `equal_share` counts samples whose outputs are this machine's: integers to the bit, floats within float rounding.
    """

    samples: int
    data: str
    metric: str
    device: float | None
    host: float | None
    float_model: float | None
    equal_share: float
    top1_agreement: float | None
    sqnr_db: float
    findings: tuple[Finding, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; findings are told elsewhere."""
        return {key: value for key, value in asdict(self).items() if key != "findings"}


def judge_labelled(
    bundle: Bundle, device: Transport, data: str, *, metric: str | None, samples: int | None, timeout_s: float
) -> Labelled:
    """Run the set. `metric` is a name, `module:function`, or None for top1 where there are labels.

    Raises `EdgecError`: calibration/…, quant/metric, validate/…, device/….
    """
    source = _open(bundle, data, samples)
    measure, name = load_metric(metric or "top1"), metric or "top1"
    labels = _labels(source, required=metric is not None)
    there: list[dict[str, Array]] = []
    here: list[dict[str, Array]] = []
    exact: list[dict[str, Array]] = []
    numbers: list[int] = []
    equal = 0
    run_float = _float_model(bundle)
    with device.scratch() as scratch, Worker(bundle.model_path, bundle.manifest.runner) as worker:
        session = _Session(bundle, device, scratch, timeout_s)
        session.install()
        for piece in _pieces(bundle, source):
            raw = [[b.to_artifact(feed[b.source.name]) for b in bundle.inputs] for _, feed in piece]
            for (group, feed), given, got in zip(piece, raw, session.run(raw), strict=True):
                answer = worker.run({b.artifact.name: v for b, v in zip(bundle.inputs, given, strict=True)})
                wanted = [answer[b.artifact.name] for b in bundle.outputs]
                equal += all(same_value(w, g, rounding=FLOAT_ROUNDING) for w, g in zip(wanted, got, strict=True))
                there.append({b.source.name: b.to_source(v) for b, v in zip(bundle.outputs, got, strict=True)})
                here.append({b.source.name: b.to_source(v) for b, v in zip(bundle.outputs, wanted, strict=True)})
                if run_float is not None:
                    exact.append(run_float(feed))
                numbers += group
    return _judged(
        source, name, measure, labels, numbers, there=there, here=here, exact=exact, equal=equal / len(there)
    )


def _open(bundle: Bundle, data: str, samples: int | None) -> SampleSource:
    specs = [binding.source for binding in bundle.inputs]
    return open_samples(
        data, specs, count=samples or DEFAULT_SAMPLES, usual=manifest_recipe(bundle.manifest.preprocessing)
    )


def _labels(source: SampleSource, *, required: bool) -> Sequence[Any] | None:
    try:
        return labels_of(source)
    except EdgecError as error:
        if required or error.code != "calibration/no-labels":
            raise
        return None


def _pieces(bundle: Bundle, source: SampleSource) -> Iterator[list[tuple[tuple[int, ...], dict[str, Array]]]]:
    size = sum(int(np.prod(b.artifact.shape)) * b.artifact.dtype.numpy.itemsize for b in bundle.inputs)
    count = max(1, PIECE_BYTES // max(1, size))
    feeds = iter(source.numbered())
    while piece := list(itertools.islice(feeds, count)):
        yield piece


@dataclass(frozen=True, slots=True)
class _Session:
    """The bundle on the device, for pieces of data."""

    bundle: Bundle
    device: Transport
    scratch: str
    timeout_s: float

    def install(self) -> None:
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            names = [n for n in self.bundle.names if not n.startswith(("golden/", "graphs/"))]
            self.bundle.extract(Path(folder, "bundle"), names)
            self.device.push(Path(folder, "bundle"), f"{self.scratch}/bundle")
        self.device.push(AGENT, f"{self.scratch}/agent.py")

    def run(self, feeds: Sequence[Sequence[Array]]) -> Iterator[list[Array]]:
        """Raw outputs for raw inputs."""
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            here = Path(folder)
            (here / "in").mkdir()
            stacked: dict[str, Any] = {str(i): np.stack(values) for i, values in enumerate(zip(*feeds, strict=True))}
            np.savez(here / "in" / "piece.npz", **stacked)
            self.device.remove(f"{self.scratch}/in")
            self.device.push(here / "in", f"{self.scratch}/in")
            arguments = ("feed", f"{self.scratch}/bundle", f"--feeds={self.scratch}/in", f"--out={self.scratch}/out")
            where = f"{self.bundle.path.name} on {self.device.name}"
            call_agent(self.device, f"{self.scratch}/agent.py", arguments, timeout_s=self.timeout_s, where=where)
            self.device.pull(f"{self.scratch}/out", here / "out")
            with np.load(here / "out" / "piece.npz", allow_pickle=False) as arrays:
                outputs = [arrays[str(i)] for i in range(len(self.bundle.outputs))]
        return iter([list(row) for row in zip(*outputs, strict=True)])


def _float_model(bundle: Bundle) -> Any:
    """A function that runs the float model, from the bundle's graphs or this machine's cache; None without."""
    manifest = bundle.manifest
    if kept_graphs.FLOAT in bundle.names:
        data = bundle.read(kept_graphs.FLOAT)
    else:
        key = kept_graphs.key_of({name: manifest.files[name].sha256 for name in manifest.model_files})
        found = kept_graphs.find(key)
        if found is None:
            return None
        data = found[kept_graphs.FLOAT]
    from edgec.pipeline.compare import model_of
    from edgec.quantization.run.executor import Executor

    return Executor(model_of(data, manifest.name), at_once=1).run


def _judged(
    source: SampleSource,
    name: str,
    measure: Metric,
    labels: Sequence[Any] | None,
    numbers: Sequence[int],
    *,
    there: Outputs,
    here: Outputs,
    exact: Outputs,
    equal: float,
) -> Labelled:
    values: dict[str, float | None] = {"device": None, "host": None, "float_model": None}
    if labels is not None:
        answers = [labels[number] for number in numbers]
        for key, outputs in (("device", there), ("host", here), ("float_model", exact)):
            if outputs:
                values[key] = measure(_rows(outputs, len(answers)), answers)
    first = next((n for n, v in here[0].items() if v.dtype.kind == "f"), next(iter(here[0])))
    one, other = (np.concatenate([o[first].reshape(1, -1) for o in outputs]) for outputs in (here, there))
    result = Labelled(
        samples=len(numbers),
        data=source.description,
        metric=name if labels is not None else "",
        device=values["device"],
        host=values["host"],
        float_model=values["float_model"],
        equal_share=equal,
        top1_agreement=top1_agreement(one, other),
        sqnr_db=sqnr_db(one, other),
    )
    problem = _problem(result)
    if not problem:
        return result
    finding = Finding(
        code="validate/task",
        message=problem,
        where=source.description,
        hint="see which kernels ran there; `edgec compare` and the other checks of `edgec validate` say more",
    )
    return replace(result, findings=(finding,))


def _rows(outputs: Outputs, samples: int) -> list[dict[str, Array]]:
    """One dictionary a sample, where a feed holds several along its first axis."""
    if len(outputs) == samples:
        return [dict(o) for o in outputs]
    batch = samples // len(outputs)
    return [{name: value[i : i + 1] for name, value in o.items()} for o in outputs for i in range(batch)]


def _problem(result: Labelled) -> str:
    """Why the device does the task worse than this machine; empty when it does not."""
    if result.device is not None and result.host is not None:
        allowed = max(MAX_DROP, MAX_SAMPLES / result.samples)
        if result.host - result.device > allowed:
            return f"{result.metric} is {result.device:.4f} on the device and {result.host:.4f} here"
        return ""
    top = result.top1_agreement
    if result.equal_share == 1 or result.sqnr_db >= MIN_DB or (top is not None and top >= MIN_TOP1):
        return ""
    return f"the device's outputs are others than this machine's: {result.sqnr_db:.1f} dB" + (
        f", {top:.1%} of the winners" if top is not None else ""
    )
