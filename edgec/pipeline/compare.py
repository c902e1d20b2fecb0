"""Compare: float against int8, layer by layer, of a bundle or of a model that is built for the purpose.

The quantized model is judged as the target runs it: what its kernels round at run time is written out.
A bundle's two graphs are read from the bundle (`--keep-graphs`) or from this machine's cache. A model file is built
into a temporary folder first. The artifact itself is compared too, where its runtime is at hand.
"""

from __future__ import annotations

import json
import math
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.bundle.bundle import Bundle
from edgec.bundle.manifest import MANIFEST
from edgec.bundle.open import open_bundle
from edgec.errors import EdgecError, Finding, Severity
from edgec.graph.model import Model, SourceInfo
from edgec.metrics import MAX_DB
from edgec.pipeline import kept_graphs, measure
from edgec.pipeline.build_bundle import run_build
from edgec.pipeline.io_facts import manifest_recipe
from edgec.pipeline.precision import AUTO_MIN_SQNR_DB
from edgec.pipeline.ready import ready_kind
from edgec.pipeline.stages import Progress
from edgec.quantization.data.recipe import Recipe
from edgec.quantization.data.samples import open_samples
from edgec.quantization.measures.compare import LayerComparison, compare_layers, first_diverging, worst_first
from edgec.quantization.measures.kinds import kinds_in
from edgec.quantization.planning.plan import scheme_of
from edgec.quantization.run.executor import Executor
from edgec.quantization.run.run_time import as_run
from edgec.targets.load import load_target
from edgec.tensors import Array, Kind

#: Where the compiled model is this much nearer to float, or farther, than the quantized one, the layers tell nothing of
#: it; with both nearer than the second, single roundings make that much.
_APART_DB = 3.0
_NEAR_DB = 60.0

#: Samples that are compared when the user does not say.
DEFAULT_SAMPLES = 16


def run_compare(
    path: str | Path,
    *,
    data: str | Path,
    samples: int | None = None,
    limit_db: float = AUTO_MIN_SQNR_DB,
    target: str | None = None,
    calibration: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The comparison as the JSON object of the command line, worst layers first.

    `data` is what both models are run on. A model file needs a `target`; it is calibrated with `calibration`, or
    with `data`, and takes the `options` of `run_build`. `limit_db` is what a layer must fall below to diverge.
    Raises `EdgecError`: `cli/compare-target`, `cli/compare-options`, `quant/no-graphs`, and what a build raises.
    """
    if math.isnan(limit_db):
        raise EdgecError("cli/compare-options", "cannot take nan dB", hint="give a number, as in --limit-db 20")
    if _is_bundle(Path(path)):
        given = {"target": target, "calibration": calibration, **options}
        if unused := sorted(key for key, value in given.items() if value):
            raise EdgecError(
                "cli/compare-options",
                f"a bundle is compared as it is, so there is nothing to do with {', '.join(unused)}",
                where=str(path),
                hint="leave them out, or give the model file instead of the bundle",
            )
        with open_bundle(path) as bundle:
            return _compare(bundle, data, samples, limit_db, progress, str(bundle.path))
    if target is None:
        raise EdgecError(
            "cli/compare-target",
            "a model file is built before it is compared, and no target is given",
            where=str(path),
            hint="add --target NAME (`edgec targets` lists them), or give a bundle",
        )
    if ready_kind(path) is not None and not options.get("precision"):
        raise EdgecError(
            "quant/no-graphs",
            "a ready model is taken as it is, so there is no float model to hold it against",
            where=str(path),
            hint="compare the model file that it was made from; `edgec validate` compares what devices compute",
        )
    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        built = run_build(
            path,
            target=target,
            calibration=data if calibration is None else calibration,
            output=folder,
            keep_graphs=True,
            stop_after="bundle",
            progress=progress,
            **{key: value for key, value in options.items() if value},
        )
        with open_bundle(built.path) as bundle:
            answer = _compare(bundle, data, samples, limit_db, progress, str(path))
    answer["findings"] += [f.as_dict() for f in built.findings if f.as_dict() not in answer["findings"]]
    return answer


def _is_bundle(path: Path) -> bool:
    """True for a zip with a manifest in it; a damaged .edgec is a bundle too, so that opening it says what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return path.suffix == ".edgec"


def _compare(
    bundle: Bundle, data: str | Path, samples: int | None, limit_db: float, progress: Progress | None, where: str
) -> dict[str, Any]:
    model, quantized = _graphs(bundle, where)
    quantized = _as_run(quantized, bundle)
    opened = open_samples(data, model.inputs(), count=samples or DEFAULT_SAMPLES, usual=_usual(bundle))
    feeds = list(opened)
    if progress is not None:
        progress("compare", 0, 2)
    layers = compare_layers(model, quantized, feeds)
    if progress is not None:
        progress("compare", 1, 2)
    floats, integers = (_outputs(m, feeds) for m in (model, quantized))
    first = first_diverging(layers, limit_db)
    findings = list(opened.findings)
    kinds = kinds_in(model.graph.outputs, floats)
    artifact = _artifact(bundle, feeds, floats, integers, kinds, findings)
    if progress is not None:
        progress("compare", 2, 2)
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "target": manifest.target.id,
        "backend": manifest.backend,
        "precision": manifest.precision,
        "samples": opened.count,
        "data": opened.description,
        "limit_db": limit_db,
        "first_diverging": None if first is None else _summary(first),
        "fidelity": measure.fidelity(floats, integers, kinds=kinds),
        "artifact": artifact,
        "ladder": _report(bundle).get("ladder", []),
        "order": [layer.tensor for layer in layers],
        "layers": [layer.as_dict() for layer in worst_first(layers)],
        "findings": [f.as_dict() for f in findings],
    }


def _summary(layer: LayerComparison) -> dict[str, Any]:
    known = layer.as_dict()
    return {key: known[key] for key in ("layer", "op", "source", "sqnr_db", "loss_db", "scheme", "reason")}


def _report(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bundle.read("report.json")) if "report.json" in bundle.names else {}
    return found


def _graphs(bundle: Bundle, where: str) -> tuple[Model, Model]:
    """The float and QDQ models of the bundle, which the user gave as `where`.

    Raises `EdgecError` (quant/no-graphs, quant/not-quantized).
    """
    manifest = bundle.manifest
    found: Mapping[str, bytes] | None
    if kept_graphs.FLOAT in bundle.names and kept_graphs.QUANTIZED in bundle.names:
        found = {name: bundle.read(name) for name in (kept_graphs.FLOAT, kept_graphs.QUANTIZED)}
    else:
        found = kept_graphs.find(_key(bundle))
    if found is not None:
        return model_of(found[kept_graphs.FLOAT], manifest.name), model_of(found[kept_graphs.QUANTIZED], manifest.name)
    if manifest.precision == "float32":
        raise EdgecError(
            "quant/not-quantized",
            "nothing in the bundle is quantized, so there is nothing to compare",
            where=where,
            hint="`edgec validate` compares its outputs with the float model's",
        )
    raise EdgecError(
        "quant/no-graphs",
        "the bundle does not hold the graphs that it was made from, and this machine's cache does not have them",
        where=where,
        hint="build it again here, or with --keep-graphs, or compare the model file: "
        "edgec compare MODEL --target NAME --data PATH",
    )


def _key(bundle: Bundle) -> str:
    manifest = bundle.manifest
    return kept_graphs.key_of({name: manifest.files[name].sha256 for name in manifest.model_files})


def _usual(bundle: Bundle) -> Recipe | None:
    """How data that comes without a recipe is read: as the calibration data was, else as the manifest tells."""
    return kept_graphs.find_recipe(_key(bundle)) or manifest_recipe(bundle.manifest.preprocessing)


def _as_run(quantized: Model, bundle: Bundle) -> Model:
    """The quantized model with what the target's kernels round at run time; as it is for an unknown target."""
    manifest = bundle.manifest
    try:
        return as_run(quantized, scheme_of(load_target(manifest.target.id), manifest.backend))
    except EdgecError:  # a profile of the user's own that is not here
        return quantized


def model_of(data: bytes, name: str) -> Model:
    """A kept graph as a model."""
    import onnx

    proto = onnx.load_from_string(data)
    return Model(ir=ir.from_proto(proto), source=SourceInfo(kind="onnx", name=name, digest=""), name=name)


def _outputs(model: Model, feeds: list[dict[str, Array]]) -> list[dict[str, Array]]:
    return list(Executor(model).run_all(feeds))


def _artifact(
    bundle: Bundle,
    feeds: list[dict[str, Array]],
    floats: list[dict[str, Array]],
    integers: list[dict[str, Array]],
    kinds: Mapping[str, Sequence[Kind]],
    findings: list[Finding],
) -> dict[str, Any] | None:
    """What the compiled model itself computes, in its runtime; None, with a finding, where that is not here."""
    try:
        actual = [bundle.run(feed) for feed in feeds]
    except EdgecError as error:
        findings.append(
            Finding(
                code=error.code,
                message=f"the compiled model was not run: {error.finding.message}",
                severity=Severity.INFO,
                where=error.finding.where,
                hint=error.finding.hint,
            )
        )
        return None
    steps = {o.source.name: o.step for o in bundle.manifest.outputs if o.step}
    there, here = (measure.fidelity(floats, found, kinds=kinds) for found in (actual, integers))
    known = [MAX_DB if found["sqnr_db"] is None else float(found["sqnr_db"]) for found in (there, here)]
    if abs(known[0] - known[1]) > _APART_DB and min(known) < _NEAR_DB:
        findings.append(
            Finding(
                code="validate/fidelity-drop" if known[0] < known[1] else "validate/disagreement",
                message=f"the compiled model is {known[0]:.1f} dB from float, the quantized model {known[1]:.1f} dB, "
                "and the layers are its",
                severity=Severity.WARNING,
                where=str(bundle.path),
                hint="`edgec validate` names the first layer that the runtime computes otherwise",
            )
        )
    return {"fidelity": there, "agreement": measure.agreement(integers, actual, steps)}
