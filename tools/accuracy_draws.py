"""Labelled rows over several draws of the samples that calibrate: how much of a row's `right` is the draw's.

A draw is a folder of its own beside the row's, with the row's model. The row's own draw is the first; others calibrate
with samples that evaluate there, and evaluate with the rest of those.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

from tools.accuracy_measure import measure
from tools.accuracy_page import PEERS, TARGETS
from tools.accuracy_part import folder_of, load, save, write_json
from tools.accuracy_runs import code_digest, facts_of, make_ours, make_peer, material_digest, peer_key

#: Rows on which a peer may have more right than edgec by a few samples, and whose models are small.
DRAWN = ("kws_dscnn", "animal_mnist")


def draw_row(name: str, count: int, effort: str, say: Callable[[str, str], None]) -> None:
    """Make what is missing of `count` draws, and keep each tool's share of right answers in all of them."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        drawn = name if number == 0 else _draw(name, number, count)
        for column, right in _rights(drawn, effort).items():
            found.setdefault(column, []).append(right)
        say(drawn, ", ".join(f"{column} {values[-1]}" for column, values in found.items()))
    write_json(folder_of(name) / "draws.json", {"effort": effort, "right": found})


def drawn(name: str, effort: str) -> dict[str, list[float]]:
    """Percent right of each column in each draw, as far as that is known."""
    kept = facts_of(name, "draws") or {}
    return dict(kept["right"]) if kept.get("effort") == effort else {}


def _draw(name: str, number: int, count: int) -> str:
    """Another draw's folder: as many samples calibrate, from between those of the row's own draw."""
    drawn, source = f"{name}.draw-{number}", folder_of(name)
    folder = folder_of(drawn)
    facts = facts_of(name, "material")
    assert facts is not None
    if (facts_of(drawn, "material") or {}).get("of") == material_digest(name):
        return drawn
    step = facts["samples"][1] // facts["samples"][0]
    first = number * step // count
    learn = [first + step * i for i in range(facts["samples"][0])]
    judge = [i for i in range(facts["samples"][1]) if i not in set(learn)]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "model.onnx", folder / "model.onnx")
    for part, places in (("calibration", learn), ("evaluation", judge), ("reference", judge)):
        rows = load(source / ("reference.npz" if part == "reference" else "evaluation.npz"))
        save(folder / f"{part}.npz", (rows[i] for i in places))
    labels = [facts["labels"][i] for i in judge]
    write_json(
        folder / "material.json",
        {**facts, "labels": labels, "samples": [len(learn), len(judge)], "of": material_digest(name)},
    )
    return drawn


def _rights(name: str, effort: str) -> dict[str, float]:
    """Percent right of float, of edgec for each target, and of each peer that runs."""
    facts = facts_of(name, "material")
    assert facts is not None
    reference = load(folder_of(name) / "reference.npz")
    found = {"float": measure(reference, reference, facts["labels"])["right"]}
    for column, part in {f"edgec {t}": f"edgec-{t}-int8" for t in TARGETS}.items():
        kept = facts_of(name, part) or {}
        current = (code_digest(), effort, material_digest(name))
        if (kept.get("code"), kept.get("effort"), kept.get("material")) != current:
            kept = make_ours(name, column.removeprefix("edgec "), "int8", effort)
        if "error" not in kept:
            found[column] = measure(reference, load(folder_of(name) / f"{part}.npz"), facts["labels"])["right"]
    for peer in PEERS:
        kept = facts_of(name, peer) or {}
        if kept.get("key") != peer_key(name, peer):
            kept = make_peer(name, peer)
        if "error" not in kept:
            found[peer] = measure(reference, load(folder_of(name) / f"{peer}.npz"), facts["labels"])["right"]
    return found
