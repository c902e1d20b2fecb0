"""What ONNX Runtime's optimiser does beside choosing how convolutions lay out their data, and a model that tells.

Its names are those of onnxruntime 1.31 and of versions before it; a name that a version does not know does nothing.
So before a version is trusted to do nothing else, it is tried on what is known to go wrong.
"""

from __future__ import annotations

#: What is to be left out.
NOT_LAYOUT = [
    "Level1_RuleBasedTransformer", "Level2_RuleBasedTransformer", "Level3_RuleBasedTransformer", "AttentionFusion",
    "Avx2WeightS8ToU8Transformer", "BiasDropoutFusion", "BiasGeluFusion", "BiasSkipLayerNormFusion",
    "BiasSoftmaxFusion", "CommonSubexpressionElimination", "ConstantFolding", "ConstantFoldingDQ", "ConstantSharing",
    "ConvActivationFusion", "ConvAddActivationFusion", "DQMatMulNBitsFusion", "DoubleQDQPairsRemover",
    "DynamicQuantizeMatMulFusion", "EmbedLayerNormFusion", "EnsureUniqueDQForNodeUnit", "FastGeluFusion",
    "FreeDimensionOverrideTransformer", "GatherSliceToSplitFusion", "GatherToSliceFusion", "GatherToSplitFusion",
    "GeluFusionL1", "GeluFusionL2", "GemmActivationFusion", "GqaValueLayoutTransformer", "GroupQueryAttentionFusion",
    "GroupQueryAttentionPreNormFusion", "IsInfReduceSum_Fusion", "LayerNormFusionL1", "LayerNormFusionL2",
    "MatMulActivationFusion", "MatMulAddFusion", "MatMulIntegerToFloatFusion", "MatMulNBitsFusion",
    "MatMulNBitsMlpFusion", "MatMulNBitsQkvFusion", "MatMulScaleFusion", "MatMul_BatchNormalization_Fusion",
    "MatmulTransposeFusion", "NhwcTransformer", "Pad_Fusion", "PropagateCastOps", "QDQFinalCleanupTransformer",
    "QDQPropagationTransformer", "QDQS8ToU8Transformer", "QDQSelectorActionTransformer", "QuickGeluFusion",
    "ReshapeFusion", "SimplifiedLayerNormFusion", "SkipLayerNormFusion", "SliceConcatToSpaceToDepthFusion",
    "TransposeOptimizer", "WeightBiasQuantization", "WhereDummyDq",
]  # fmt: skip

#: A MaxPool of values below zero, at the edge of a padding of zeros: 0 there. Fused, the padding would be -inf.
TRIAL = """
<ir_version: 8, opset_import: ["" : 21]>
trial (float[1,8,2,2] x) => (float[1,8,2,2] y) <int64[8] around = {0, 0, 1, 1, 0, 0, 1, 1}> {
    padded = Pad(x, around)
    y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(padded)
}
"""
