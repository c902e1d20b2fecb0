"""A comparison of float with int8 as terminal text, and as one HTML page with nothing to fetch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgec.bundle.report import STYLE
from edgec.errors import EdgecError
from edgec.report.tables import cell, facts, rows, section, text

Answer = Mapping[str, Any]

#: Layers that the terminal shows; the page and --json have them all.
SHOWN = 15

#: Decibels at the top of the profile; what is nearer to float than this is drawn at the top.
_TOP_DB = 60.0
_FLOAT, _INT8, _LIMIT = "#9fb8d0", "#2f6fb0", "#b3261e"


def render_compare(answer: Answer) -> str:
    """The outputs, the first layer that diverges, and the worst layers."""
    shown = [_short(layer) for layer in answer["layers"][:SHOWN]]
    return text(facts(_head(answer)), section("worst layers", rows(shown)))


def write_page(answer: Answer, path: str) -> None:
    """Write the page. Raises `EdgecError` (io/write)."""
    try:
        Path(path).write_bytes(compare_html(answer))
    except OSError as error:
        raise EdgecError("io/write", f"cannot write the page: {error.strerror}", where=path) from error


def compare_html(answer: Answer) -> bytes:
    """The page: facts, the profile over the graph, and a row a layer with its histograms, worst first."""
    title = f"{answer['name']} for {answer['target']}: float against {answer['precision']}"
    parts = [
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n",
        f"<title>{escape(title)}</title>\n<style>{STYLE}td svg {{ display: block; }}</style>\n",
        f"<h1>{escape(title)}</h1>\n",
        _facts(_head(answer)),
        "<h2>Signal to noise through the graph</h2>\n",
        profile(answer),
    ]
    if answer["ladder"]:
        parts.append("<h2>Repairs</h2>\n" + _rungs(answer["ladder"]))
    parts.append("<h2>Layers, worst first</h2>\n" + _layers(answer["layers"]))
    return ("".join(parts) + "</html>\n").encode()


def profile(answer: Answer, *, width: int = 900, height: int = 220) -> str:
    """SQNR by layer in graph order as SVG; the limit as a line, layers below it in its colour."""
    by_tensor = {layer["tensor"]: layer for layer in answer["layers"]}
    layers = [by_tensor[name] for name in answer["order"] if name in by_tensor]
    left, bottom = 40, height - 20
    scale = (bottom - 10) / _TOP_DB
    step = (width - left) / max(len(layers), 1)
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img" {font}>']
    for db in range(0, int(_TOP_DB) + 1, 20):
        y = bottom - db * scale
        lines += [
            f'<line x1="{left}" y1="{y:.1f}" x2="{width}" y2="{y:.1f}" stroke="#e3e8ed"/>',
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{db} dB</text>',
        ]
    for index, layer in enumerate(layers):
        known = layer["sqnr_db"]
        tall = scale * (_TOP_DB if known is None else max(0.0, min(_TOP_DB, known)))
        colour = _LIMIT if known is not None and known < answer["limit_db"] else _INT8
        x = left + index * step
        lines.append(
            f'<rect x="{x:.1f}" y="{bottom - tall:.1f}" width="{max(1.0, step * 0.8):.1f}" '
            f'height="{tall:.1f}" fill="{colour}"><title>{escape(layer["layer"])}: {_db(known)}</title></rect>'
        )
    y = bottom - answer["limit_db"] * scale
    lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width}" y2="{y:.1f}" stroke="{_LIMIT}" stroke-dasharray="4"/>')
    return "\n".join([*lines, "</svg>\n"])


def histogram(bins: Mapping[str, Any], *, width: int = 180, height: int = 44) -> str:
    """Counts of float (behind) and quantized values (in front) as SVG, by the square root of the count."""
    floats, integers = bins["float"], bins["quantized"]
    top = max([*floats, *integers, 1]) ** 0.5
    step, room = width / len(floats), height - 12
    size = f'width="{width}" height="{height}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-size="9">']
    for counts, colour, share in ((floats, _FLOAT, 1.0), (integers, _INT8, 0.5)):
        for index, count in enumerate(counts):
            tall = room * count**0.5 / top
            x = index * step + step * (1 - share) / 2
            if count:
                lines.append(
                    f'<rect x="{x:.1f}" y="{room - tall:.1f}" width="{step * share:.1f}" height="{tall:.1f}" '
                    f'fill="{colour}"/>'
                )
    lines.append(f'<text x="0" y="{height - 2}">{bins["low"]:.3g}</text>')
    lines.append(f'<text x="{width}" y="{height - 2}" text-anchor="end">{bins["high"]:.3g}</text>')
    return "".join([*lines, "</svg>"])


def _head(answer: Answer) -> dict[str, Any]:
    first, artifact = answer["first_diverging"], answer["artifact"]
    return {
        "model": f"{answer['name']} for {answer['target']}, backend {answer['backend']}, {answer['precision']}",
        "data": answer["data"],
        "quantized model": _fidelity(answer["fidelity"]),
        "artifact": "not run here" if artifact is None else _fidelity(artifact["fidelity"]),
        "first to diverge": f"nothing falls below {answer['limit_db']:g} dB" if first is None else _first(first),
        "repairs": ", ".join(f"{rung['rung']} {rung['after_db']:.1f} dB" for rung in answer["ladder"] if rung["kept"]),
    }


def _first(first: Answer) -> str:
    where = f" ({first['source']})" if first["source"] else ""
    lost = "" if first["loss_db"] is None else f", {first['loss_db']:.1f} dB of them lost there"
    return f"{first['op']} {first['layer']}{where}: {_db(first['sqnr_db'])}{lost}; {first['reason'] or first['scheme']}"


def _fidelity(fidelity: Answer) -> str:
    words = _db(fidelity["sqnr_db"])
    if fidelity["top1_agreement"] is not None:
        words += f", top-1 agreement {100 * fidelity['top1_agreement']:.1f} %"
    return f"{words}, cosine {fidelity['cosine']:.5f}"


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"


def _short(layer: Answer) -> dict[str, Any]:
    return {
        "layer": layer["layer"],
        "op": layer["op"],
        "source": layer["source"],
        "runs in": layer["scheme"],
        "sqnr": _db(layer["sqnr_db"]),
        "lost": "" if layer["loss_db"] is None else f"{layer['loss_db']:.1f} dB",
        "cosine": f"{layer['cosine']:.4f}",
        "clipped": "" if layer["clipped_share"] is None else f"{100 * layer['clipped_share']:.2f} %",
    }


def _facts(known: Mapping[str, Any]) -> str:
    lines = [f"<tr><th>{escape(key)}<td>{escape(cell(key, value))}\n" for key, value in known.items()]
    return f"<table>\n{''.join(lines)}</table>\n"


def _rungs(ladder: Sequence[Answer]) -> str:
    lines = ["<table>\n<tr><th>repair<th>before<th>after<th>kept\n"]
    for rung in ladder:
        before = "" if rung["before_db"] is None else f"{rung['before_db']:.1f} dB"
        kept = "yes" if rung["kept"] else "no"
        lines.append(f"<tr><td>{escape(rung['rung'])}<td>{before}<td>{rung['after_db']:.1f} dB<td>{kept}\n")
    return "".join(lines) + "</table>\n"


def _layers(layers: Sequence[Answer]) -> str:
    heads = ("layer", "runs in", "SQNR", "lost", "cosine", "clipped", "float and quantized values", "why")
    lines = ["<table>\n<tr>" + "".join(f"<th>{head}" for head in heads) + "\n"]
    for layer in layers:
        short = _short(layer)
        name = f"{escape(layer['layer'])}<br><small>{escape(layer['op'])} {escape(layer['source'])}</small>"
        why = "<br>".join(escape(line) for line in (layer["reason"], *layer["constants"]) if line)
        numbers = "".join(f"<td>{escape(short[key])}" for key in ("runs in", "sqnr", "lost", "cosine", "clipped"))
        lines.append(f"<tr><td>{name}{numbers}<td>{histogram(layer['histogram'])}<td><small>{why}</small>\n")
    return "".join(lines) + "</table>\n"
