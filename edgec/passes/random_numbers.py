"""Say which numbers a model draws: no two runtimes agree on them, so no output that depends on them can be compared."""

from __future__ import annotations

from edgec.errors import Finding, Severity
from edgec.graph.model import Model, label, origin

#: Operators that draw, as ONNX defines them: the distribution is in the standard, the numbers are not.
DRAWING = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)


def drawn(model: Model) -> list[Finding]:
    """A finding for each operator that draws, in subgraphs too."""
    return [
        Finding(
            code="graph/random",
            severity=Severity.INFO,
            message=f"{node.op_type} draws from the runtime's own generator: the distribution is the source's, the "
            "numbers are not",
            where=label(node),
            source=origin(node),
            hint="make them an input of the model where they have to be the same everywhere",
        )
        for node in model.ir.graph.all_nodes()
        if node.domain == "" and node.op_type in DRAWING
    ]
