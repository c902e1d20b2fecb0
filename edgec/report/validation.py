"""`edgec validate`'s answer as text: verdict, kernels, outputs, times, the three cut points, the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from edgec.report.delegation import delegation_line
from edgec.report.tables import cell, facts, rows, section, text

Answer = Mapping[str, Any]


def render_validation(answer: Answer) -> str:
    """Whether the bundle computes there what it should, with what, and how fast."""
    parts: list[RenderableType] = [facts(_head(answer))]
    if answer.get("outputs"):
        parts.append(section("outputs", rows([_output(o) for o in answer["outputs"]])))
    if answer.get("latency"):
        title = f"latency ({answer['emulated']}: times mean nothing)" if answer.get("emulated") else "latency"
        parts.append(section(title, rows([_times(row) for row in answer["latency"]])))
    if answer.get("sustained"):
        parts.append(section("sustained", facts(_sustained(answer["sustained"]))))
    if answer.get("stages"):
        parts.append(section("application", rows([_stage(stage) for stage in answer["stages"]])))
    if answer.get("task"):
        parts.append(section("data", facts(_task(answer["task"]))))
    return text(*parts)


def _head(answer: Answer) -> dict[str, Any]:
    kernels = answer.get("kernels") or {}
    guilty = answer.get("guilty") or []
    shown = {
        "verdict": "passed" if answer.get("passed") else "failed",
        "guilty": ", ".join(guilty),
        "device": _device(answer),
        "runtime": answer.get("runtime"),
        "kernels": answer.get("kernel_set") or kernels.get("delegate"),
        "delegate": delegation_line(answer.get("delegation")),
        "goldens": answer.get("goldens"),
        "bit for bit": answer.get("bit_exact"),
        "integers inside": _integers(answer.get("integer_tensors")),
        "peak_rss_bytes": answer.get("peak_rss_bytes"),
        "record": answer.get("record"),
    }
    return {key: value for key, value in shown.items() if value not in (None, "")}


def _integers(counts: Answer | None) -> str:
    return f"{counts['equal']} of {counts['compared']} tensors equal to the bit" if counts else ""


def _device(answer: Answer) -> str:
    hardware = answer.get("hardware") or {}
    known = [hardware.get("board") or hardware.get("cpu"), answer.get("emulated") and f"emulated: {answer['emulated']}"]
    told = ", ".join(part for part in known if part)
    return f"{answer.get('device', '')}" + (f" ({told})" if told else "")


def _output(output: Answer) -> dict[str, Any]:
    steps = output.get("steps") or {}
    return {
        "output": output["name"],
        "passed": output["passed"],
        "within_1_share": steps.get("within_1"),
        "steps at most": steps.get("largest"),
        "to_reference_db": output["agreement_db"],
        "to_float_db": output["sqnr_db"],
        "top1_share": output["top1_agreement"],
    }


def _times(row: Answer) -> dict[str, Any]:
    wanted = ("threads", "runs", "median_ms", "p90_ms", "p95_ms", "p99_ms", "load_ms", "model_rss_bytes")
    return {key: row[key] for key in wanted}


def _sustained(run: Answer) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "runs": f"{run['runs']} in {run['duration_s']:.0f} s, {run['threads']} threads",
        "p90_ms": run["p90_ms"],
        "runs a second": f"{run['begin_per_s']:.1f} at first, {run['end_per_s']:.1f} in the end",
        "single stream": "long enough for MLPerf's scenario"
        if run["single_stream"]
        else "too short for MLPerf's scenario",
    }
    for key, unit in (("celsius", "°C"), ("mhz", "MHz")):
        if run[key]:
            shown[key] = f"{', '.join(f'{v:.0f}' for v in run[key])} {unit} (begin, extreme, end)"
    return shown


def _stage(stage: Answer) -> dict[str, Any]:
    verdict = {True: "right", False: "GUILTY", None: "not judged"}[stage["passed"]]
    return {"stage": stage["stage"], "verdict": verdict, "samples": stage["samples"], "why": _why(stage)}


def _why(stage: Answer) -> str:
    told: Sequence[str] = [f"{key.replace('_', ' ')} {cell(key, value)}" for key, value in stage["facts"].items()]
    return "; ".join(part for part in (stage["why"], *told) if part)


def _task(task: Answer) -> dict[str, Any]:
    values = {key: task[key] for key in ("device", "host", "float_model") if task[key] is not None}
    metric = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in values.items())
    return {
        "data": task["data"],
        "samples": task["samples"],
        **({task["metric"]: metric} if metric else {}),
        "as here": cell("_share", task["equal_share"]),
        "same winner": None if task["top1_agreement"] is None else cell("_share", task["top1_agreement"]),
    }
