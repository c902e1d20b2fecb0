"""The answers of flash, rollback and status as text for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from edgec.report.tables import cell, facts, rows, section, text

Answer = Mapping[str, Any]

#: Characters of a digest that a person reads.
SHORT = 12


def render_flash(answer: Answer) -> str:
    """One device: what it runs now and what was done. Many: a row each."""
    if "outcomes" in answer:
        return text(*_rollout(answer))
    if "devices" in answer:
        return text(rows([_row(device) for device in answer["devices"]]))
    return text(*_one(answer))


def render_status(answer: Answer) -> str:
    """One device with its releases, or a row for each of many."""
    if "devices" in answer:
        keys = ("device", "running", "bundle", "previous", "error")
        return text(rows([{k: _short(k, d.get(k, "")) for k in keys} for d in answer["devices"]]), terminal=False)
    head = {key: _short(key, answer[key]) for key in ("device", "root", "bundle", "running", "previous", "free_bytes")}
    parts: list[RenderableType] = [facts(head)]
    if answer["releases"]:
        releases = [{key: _short(key, value) for key, value in r.items()} for r in answer["releases"]]
        parts.append(section("releases", rows(releases)))
    return text(*parts, terminal=False)


def _one(answer: Answer) -> list[RenderableType]:
    health = answer.get("health") or {}
    head = {
        "device": answer["device"],
        "result": answer["result"],
        "bundle": answer["bundle"],
        "running": _short("running", answer["running"]),
        "previous": _short("previous", answer["previous"]),
        "root": answer["root"],
        "runtime": health.get("runtime") or None,
        "kernels": health.get("kernels") or None,
        "goldens": health.get("goldens"),
        "latency": _latency(health),
        "peak memory": cell("x_bytes", health["peak_rss_bytes"]) if health.get("peak_rss_bytes") else None,
        "seconds": f"{answer['seconds']:.2f}",
    }
    steps = [
        {"step": s["act"], "of": _path(s["path"]), "why": s["why"]}
        | ({} if answer["result"] == "planned" else {"seconds": f"{s['seconds']:.2f}"})
        | ({} if s["good"] else {"found": "not well"})
        for s in answer["steps"]
    ]
    return [facts({k: v for k, v in head.items() if v not in (None, "")}), section("steps", rows(steps))]


def _latency(health: Answer) -> str | None:
    if health.get("median_ms") is None:
        return None
    return f"{health['median_ms']:.2f} ms median" + (" (emulated: means nothing)" if health.get("emulated") else "")


def _rollout(answer: Answer) -> list[RenderableType]:
    head = {
        "bundle": answer["bundle"],
        "digest": _short("digest", answer["digest"]),
        "devices": ", ".join(f"{count} {result}" for result, count in sorted(answer["counts"].items())),
        "stopped": answer["stopped"] or None,
        "journal": answer["journal"],
    }
    keys = ("device", "result", "median_ms", "seconds", "code", "message")
    outcomes: Sequence[Answer] = answer["outcomes"]
    table = [{key: outcome[key] for key in keys} for outcome in outcomes]
    return [facts({k: v for k, v in head.items() if v}), section("devices", rows(table))]


def _row(device: Answer) -> dict[str, Any]:
    """One of many in a rollback or a dry run."""
    steps = ", ".join(step["act"] for step in device.get("steps", ()))
    keys = ("device", "result", "running", "previous", "error")
    return {**{key: _short(key, device.get(key, "")) for key in keys}, "steps": steps}


def _short(key: str, value: Any) -> Any:
    return value[:SHORT] if key in ("digest", "running", "previous") and isinstance(value, str) else value


def _path(path: str) -> str:
    """A path with its digest cut."""
    head, slash, name = path.rpartition("/")
    return f"{head}{slash}{name[:SHORT]}"
