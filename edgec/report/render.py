"""The answers of the commands as text for a person; each takes the JSON object that --json prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from edgec.report.delegation import delegation_line
from edgec.report.estimates import estimate_line, estimate_table
from edgec.report.tables import cell, facts, outline, rows, section, text, words

Answer = Mapping[str, Any]

#: How many rows of a long table the terminal shows; --json has them all.
SHOWN = 12


def render_build(answer: Answer) -> str:
    """What did I get? The bundle, what it computes in and why, how true and how fast it is, and what it cost."""
    if "bundle" not in answer:  # --stop-after
        return text(*outline(_without_findings(answer)))
    parts = (*_per_output(answer.get("fidelity")), *_frontier(answer.get("frontier")))
    return text(facts(_build_facts(answer)), *parts)


def render_check(answer: Answer) -> str:
    """What was checked and how many findings of each severity there are; the findings themselves follow on stderr."""
    counts: dict[str, int] = {}
    for finding in answer.get("findings", ()):
        counts[finding["severity"]] = counts.get(finding["severity"], 0) + 1
    verdict = ", ".join(f"{count} {severity}" for severity, count in sorted(counts.items())) or "nothing in the way"
    shown = {key: value for key, value in _without_findings(answer).items() if key not in ("estimates", "delegation")}
    line = delegation_line(answer.get("delegation"))
    shown |= {"delegate, in float": line} if line else {}
    return text(*outline(shown), *estimate_table(answer.get("estimates") or ()), facts({"findings": verdict}))


def render_calibrate(answer: Answer) -> str:
    """What the data did to the model: tensors, the worst of them, doubts."""
    return text(*(part for part in outline(_shortened(_without_findings(answer)))))


def render_inspect(answer: Answer) -> str:
    """All that a bundle or model file holds."""
    return text(*outline(answer), terminal=False)


def render_targets(answer: Answer) -> str:
    """One row a target."""
    return text(rows(answer["targets"]), terminal=False)


def render_target(answer: Answer) -> str:
    """One profile, backend by backend."""
    head = {key: value for key, value in answer.items() if key not in ("backends", "hardware", "limits")}
    parts = [facts(head), section("hardware", facts(answer["hardware"])), section("limits", facts(answer["limits"]))]
    for name, backend in answer["backends"].items():
        plain = {key: value for key, value in backend.items() if key != "scheme"}
        parts.append(section(f"backend {name}", facts(plain)))
        parts.append(section(f"backend {name}: quantization", facts(backend["scheme"])))
    return text(*parts, terminal=False)


def render_doctor(answer: Answer) -> str:
    """What is here, what works, what is missing and how to get it."""
    return text(*outline(_without_findings(answer)), terminal=False)


def _build_facts(answer: Answer) -> dict[str, str]:
    """The rows of the summary that this build has an answer for."""
    latency, fidelity = answer.get("latency") or {}, answer.get("fidelity") or {}
    operators = answer.get("operators") or {}
    stages = answer.get("stages") or {}
    most = sorted(operators.items(), key=lambda item: (-item[1], item[0]))[:6]
    rows_: dict[str, Any] = {
        "bundle": answer["bundle"],
        "target": f"{answer.get('target')}, backend {answer.get('backend')}",
        "precision": answer.get("precision"),
        "why": answer.get("why"),
        "size": cell("size_bytes", answer.get("size_bytes")),
        "operators": f"{sum(operators.values())}: " + ", ".join(f"{name} {count}" for name, count in most),
        "transposes left": str(answer.get("transposes", 0)),
        "fidelity": _fidelity(fidelity),
        "repairs": _ladder(answer.get("ladder") or ()),
        "budget": _task(fidelity.get("task")),
        "latency here": ", ".join(
            f"{key.removesuffix('_ms').replace('_', ' ')} {cell(key, value)}" for key, value in latency.items()
        ),
        "against float": _race(answer.get("race") or {}),
        "delegate": delegation_line((answer.get("validation") or {}).get("delegation")),
        "estimate there": estimate_line(answer.get("estimate")),
        "packaging": "; ".join(_packaged(step, made) for step, made in (answer.get("packaging") or {}).items()),
        "peak memory": cell("memory_bytes", answer.get("peak_memory_bytes")),
        "taken up": f"{answer['taken_up']} measurements of an earlier search of mixes" if "taken_up" in answer else "",
        "seconds": ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages.items()),
    }
    return {key: value for key, value in rows_.items() if value not in (None, "", "–")}


def _race(race: Answer) -> str:
    """What was measured or estimated of each precision, the fastest first."""
    if not race:
        return ""
    how = "measured here, in turns, 1 thread" if race["kind"] == "measured" else "estimate for the target"
    return ", ".join(f"{name} {ms:.3g} ms" for name, ms in sorted(race["ms"].items(), key=lambda i: i[1])) + f" ({how})"


def _packaged(step: str, made: Answer) -> str:
    """What a packaging step says in one line; --json has the rest."""
    plain = {key: value for key, value in made.items() if not isinstance(value, Mapping)}
    return f"{step}: " + ", ".join(f"{words(key)} {cell(key, value)}" for key, value in plain.items())


FIDELITY = {"sqnr_db": "SQNR", "cosine": "cosine", "max_abs": "max abs", "top1_agreement": "top-1"}


def _fidelity(fidelity: Mapping[str, Any]) -> str:
    known = {key: fidelity[key] for key in FIDELITY if fidelity.get(key) is not None}
    return ", ".join(f"{FIDELITY[key]} {cell(key, value)}" for key, value in known.items())


def _ladder(rungs: Sequence[Mapping[str, Any]]) -> str:
    """What each repair that was kept brought, in dB on samples that it had not learnt from."""
    kept = [r for r in rungs if r["kept"] and r["before_db"] is not None]
    return ", ".join(f"{r['rung']} {r['after_db'] - r['before_db']:+.1f} dB" for r in kept)


def _task(task: Mapping[str, Any] | None) -> str:
    """The metric that the budget is of: float, int8, and what may be lost."""
    if not task:
        return ""
    share = 0 <= task["float"] <= 1  # otherwise the metric has units of its own
    numbers = {
        key: f"{100 * task[key]:.2f} %" if share else f"{task[key]:.6g}"
        for key in ("float", "value", "drop", "max_drop")
    }
    lost = f"{numbers['drop']} lost" if task["drop"] > 0 else "nothing lost"
    return (
        f"{task['name']} {numbers['value']} where float has {numbers['float']}: {lost}, at most {numbers['max_drop']}"
    )


def _frontier(points: Sequence[Mapping[str, Any]] | None) -> list[RenderableType]:
    """A row a mix that was tried, those with fewest reverted nodes first."""
    if not points:
        return []
    timed = any(point["estimated_ms"] is not None for point in points)
    table = [
        {
            "reverted": point["reverted"],
            "nodes run in": point["nodes"],
            **({"estimated": f"{point['estimated_ms']:.3g} ms"} if timed else {}),
            "weights_bytes": point["weights_bytes"],
            "judged": point["judged"],
            "budget": "taken" if point["chosen"] else "kept" if point["met"] else "missed",
        }
        for point in points
    ]
    return [section("mixes tried" + (", with estimated latency" if timed else ""), rows(table))]


def _per_output(fidelity: Mapping[str, Any] | None) -> list[RenderableType]:
    """A row an output, and one for each kind of values in it; when there are several."""
    outputs = (fidelity or {}).get("outputs") or {}
    table = []
    for name, values in outputs.items():
        kinds = values.get("kinds", {})
        table.append({"output": name, **{key: value for key, value in values.items() if key != "kinds"}})
        table += [{"output": f"{name}{which}", "sqnr_db": db} for which, db in kinds.items()]
    return [section("fidelity by output", rows(table))] if len(table) > 1 else []


def _without_findings(answer: Answer) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "findings"}


def _shortened(answer: Answer) -> dict[str, Any]:
    return {key: value[:SHOWN] if isinstance(value, list) else value for key, value in answer.items()}
