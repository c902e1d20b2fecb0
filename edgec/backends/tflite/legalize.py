"""What the runtime lacks, or runs badly in this precision, as plain ONNX that calibration can see.

1. An operator that no lowering takes is taken apart, and so is what it is made of.
2. So is a node that its lowering refuses as it stands, where its parts may fare better.
3. In integer precisions, what has no integer kernel in the delegate becomes operators that have one.
4. Factors, what this leaves behind and others, go into weights where they can.
5. A node whose lowering makes operators that the target's runtime has not is taken apart too.
"""

from __future__ import annotations

import onnx_ir as ir

from edgec.backends.base import Precision
from edgec.backends.tflite.context import Context, Refusal
from edgec.backends.tflite.control import CONTROL
from edgec.backends.tflite.kernels import Kernels, has_kernel, kernels_of
from edgec.backends.tflite.lower import dispatch, trial_input
from edgec.backends.tflite.ops import all_lowerings
from edgec.backends.tflite.pairs import QUANTIZERS
from edgec.backends.tflite.tir import Graph
from edgec.errors import EdgecError
from edgec.graph.model import Model
from edgec.passes.absorb_scale import AbsorbScale
from edgec.passes.base import run_passes
from edgec.passes.decompose import can_decompose, decompose
from edgec.passes.fuse_affine import AFFINE_RULES
from edgec.passes.quantized_forms import SYMMETRIC_RULES
from edgec.passes.rewrite import RewritePass
from edgec.quantization.run.apply import has_qdq
from edgec.targets.profile import Target

#: Rule 3: XNNPACK has no int8 HARD_SWISH, and TFLite no hard sigmoid; ADD with RELU6, and MUL, it has.
_INTEGER_PARTS = frozenset({"HardSwish"})
_PARTS = frozenset({"HardSigmoid"})


def legalize(model: Model, target: Target, precision: Precision) -> Model:
    """A model whose nodes map one to one to operators that may be quantized."""
    integer = precision in ("int8", "int16x8")
    kernels = kernels_of(target)

    def wanted(node: ir.Node) -> bool:
        if not can_decompose(node.op_type, model.ir.opset_imports.get(node.domain, 1), node.domain):
            return False
        if node.op_type not in all_lowerings():  # rule 1
            return node.op_type not in QUANTIZERS | CONTROL
        if node.op_type in _PARTS or (integer and node.op_type in _INTEGER_PARTS):  # rule 3
            return True
        return _refused(node, model.opset, kernels)  # rules 2 and 5

    legal = decompose(model, wanted)
    if has_qdq(legal):
        legal = legal.clone() if legal is model else legal
        run_passes(legal, (RewritePass("symmetric-weights", SYMMETRIC_RULES),), rounds=1)
        return legal
    legal = legal.clone() if legal is model else legal
    run_passes(legal, (RewritePass("fuse-affine", AFFINE_RULES), AbsorbScale(half=not integer)), rounds=2)
    return legal


def _refused(node: ir.Node, opset: int, kernels: Kernels) -> bool:
    """Whether the node's lowering or the runtime refuses it, tried on a graph that is thrown away."""
    ctx = Context(graph=Graph(name="trial"), opset=opset, node=node)
    try:
        for value in node.inputs:
            if value is not None:
                ctx.values[value] = trial_input(value)
        dispatch(ctx, node)
    except (Refusal, EdgecError):
        return True
    return not all(has_kernel(kernels, op.kind) for op in ctx.graph.every_op())
