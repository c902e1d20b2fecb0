"""Keys of constants in a plan: the constant's name, or `name@node` where its readers need it quantized differently."""

from __future__ import annotations

from collections.abc import Mapping

from edgec.quantization.types import TensorPlan


def collapse(uses: Mapping[tuple[str, str], TensorPlan]) -> dict[str, TensorPlan]:
    """Plans by (constant, reading node) as plans by key."""
    by_name: dict[str, dict[str, TensorPlan]] = {}
    for (name, node), plan in uses.items():
        by_name.setdefault(name, {})[node] = plan
    found: dict[str, TensorPlan] = {}
    for name, plans in by_name.items():
        if len({(p.dtype, p.qparams) for p in plans.values()}) == 1:
            found[name] = next(iter(plans.values()))
        else:
            found.update({f"{name}@{node}": plan for node, plan in plans.items()})
    return found


def lookup(plans: Mapping[str, TensorPlan], name: str, node: str) -> tuple[str, TensorPlan] | None:
    """Key and plan of a constant as one node reads it, or None."""
    for key in (f"{name}@{node}", name):
        if key in plans:
            return key, plans[key]
    return None
