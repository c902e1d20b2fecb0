"""The orders in which passes run, written down."""

from __future__ import annotations

from edgec.graph.model import Model
from edgec.graph.verify import verify
from edgec.passes.base import Observer, Pass, run_passes
from edgec.passes.body_shapes import BodyShapes
from edgec.passes.carry_types import CarryTypes
from edgec.passes.clip_windows import WINDOW_RULES
from edgec.passes.common_subexpressions import CommonSubexpressions
from edgec.passes.count_rounds import CountRounds
from edgec.passes.declared_shapes import DeclaredShapes
from edgec.passes.differentiate import Differentiate
from edgec.passes.eliminate import Eliminate
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.fuse_activations import ACTIVATION_RULES
from edgec.passes.fuse_affine import AFFINE_RULES
from edgec.passes.fuse_norms import NORM_RULES, PLAIN_NORM_RULES
from edgec.passes.fuse_pad import PAD_RULES
from edgec.passes.fuse_softmax import SOFTMAX_RULES
from edgec.passes.hoist_slices import HoistSlices
from edgec.passes.lift_scale import LiftScale
from edgec.passes.merge_reshapes import RESHAPE_RULES
from edgec.passes.normalize import ARITHMETIC_RULES, FORM_RULES
from edgec.passes.quantized_forms import QUANTIZED_RULES
from edgec.passes.resolve_sequences import ResolveSequences
from edgec.passes.rewrite import RewritePass
from edgec.passes.unroll_loops import UnrollLoops


def canonical_passes() -> tuple[Pass, ...]:
    """What makes the float canonical form, in order.

    Activations and norms come before the arithmetic forms, which would rewrite what their patterns look for;
    BatchNorms and affines come after the forms of Gemm and MatMul that can take them in. Slices move up last,
    through operators in their final form.
    """
    return (
        Differentiate(),
        CarryTypes(),
        DeclaredShapes(),
        FoldConstants(),
        Eliminate(),
        CountRounds(),
        UnrollLoops(),
        ResolveSequences(),
        BodyShapes(),
        CommonSubexpressions(),
        RewritePass("fuse-activations", ACTIVATION_RULES),
        RewritePass("fuse-norms", NORM_RULES),
        RewritePass("fuse-plain-norms", PLAIN_NORM_RULES),
        RewritePass("fuse-softmax", SOFTMAX_RULES),
        RewritePass("normalize-arithmetic", ARITHMETIC_RULES),
        RewritePass("normalize-forms", FORM_RULES),
        RewritePass("clip-windows", WINDOW_RULES),
        RewritePass("fuse-affine", AFFINE_RULES),
        RewritePass("fuse-pad", PAD_RULES),
        RewritePass("merge-reshapes", RESHAPE_RULES),
        RewritePass("quantized-forms", QUANTIZED_RULES),
        LiftScale(),
        HoistSlices(),
    )


def canonicalize(model: Model, *, observer: Observer | None = None) -> Model:
    """A new model in the float canonical form; the source is left as it is.

    Static shapes wherever they follow from the inputs, constants folded into initializers, BatchNorm, Pad and
    bias fused, decomposed activations and norms back in one operator, nothing that computes nothing.
    """
    result = model.clone()
    run_passes(result, canonical_passes(), rounds=4, observer=observer)
    verify(result.ir)
    return result
