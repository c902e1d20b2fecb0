"""Calibrate: statistics of each tensor of a model over a data set, kept under what they depend on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.quantization.calibration.cache import cache_folder, load_statistics, save_statistics, statistics_key
from edgec.quantization.calibration.collect import Samples, collect
from edgec.quantization.calibration.doctor import examine, examine_halves
from edgec.quantization.calibration.probes import float_activations
from edgec.quantization.run.cores import few_collections
from edgec.quantization.types import Statistics
from edgec.registry import did_you_mean


@few_collections()
def calibrate(
    model: Model,
    samples: Samples,
    *,
    tensors: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Statistics:
    """Statistics of `tensors` (default: all float activations) over all samples, from the cache where it has them.

    `progress(done, total)` is called after each run. Raises `EdgecError`: an unknown tensor, samples that do not fit
    the model, or no sample that can be read. The findings are the reader's and the data doctor's.
    """
    names = tuple(dict.fromkeys(tensors)) if tensors is not None else float_activations(model)
    _check_names(model, names)
    folder = cache_dir or cache_folder()
    key = statistics_key(model, samples.digest, names)
    if (kept := load_statistics(folder, key)) is not None:
        return kept
    halves = collect(model, samples, names, progress=progress, threads=threads)
    findings = (*samples.findings, *halves.findings, *examine_halves(halves), *examine(model, samples))
    statistics = Statistics(tensors=halves.merged(), samples=samples.count, digest=key, findings=findings)
    save_statistics(folder, key, statistics)
    return statistics


def _check_names(model: Model, names: Sequence[str]) -> None:
    known = {v.name for v in model.graph.inputs if v.name}
    known |= {out.name for node in model.graph for out in node.outputs if out.name}
    for name in names:
        if name not in known:
            raise EdgecError(
                "graph/unknown-tensor", f"the model has no tensor {name!r}", where=name, hint=did_you_mean(name, known)
            )
