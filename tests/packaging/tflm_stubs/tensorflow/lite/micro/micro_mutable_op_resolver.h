// Stand-in for the tests: just what the emitted sources call. Method names are TFLM's own.
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
#define ADDS(what) \
  TfLiteStatus Add##what() { return Add_(); }
namespace tflite {
template <unsigned int N>
class MicroMutableOpResolver {
 public:
  ADDS(Abs) ADDS(Add) ADDS(ArgMax) ADDS(ArgMin) ADDS(AveragePool2D) ADDS(BatchMatMul) ADDS(BatchToSpaceNd)
  ADDS(BroadcastTo) ADDS(Cast) ADDS(Ceil) ADDS(Concatenation) ADDS(Conv2D) ADDS(Cos) ADDS(CumSum)
  ADDS(DepthToSpace) ADDS(DepthwiseConv2D) ADDS(Dequantize) ADDS(Div) ADDS(Elu) ADDS(Equal) ADDS(EthosU)
  ADDS(Exp) ADDS(ExpandDims) ADDS(Fill) ADDS(Floor) ADDS(FloorDiv) ADDS(FloorMod) ADDS(FullyConnected)
  ADDS(Gather) ADDS(GatherNd) ADDS(Greater) ADDS(GreaterEqual) ADDS(HardSwish) ADDS(If) ADDS(L2Normalization)
  ADDS(L2Pool2D) ADDS(LeakyRelu) ADDS(Less) ADDS(LessEqual) ADDS(Log) ADDS(LogSoftmax) ADDS(LogicalAnd)
  ADDS(LogicalNot) ADDS(LogicalOr) ADDS(Logistic) ADDS(MaxPool2D) ADDS(Maximum) ADDS(Mean) ADDS(Minimum)
  ADDS(MirrorPad) ADDS(Mul) ADDS(Neg) ADDS(NotEqual) ADDS(Pack) ADDS(Pad) ADDS(PadV2) ADDS(Prelu)
  ADDS(Quantize) ADDS(ReduceAll) ADDS(ReduceMax) ADDS(ReduceMin) ADDS(Relu) ADDS(Relu6) ADDS(Reshape)
  ADDS(ResizeBilinear) ADDS(ResizeNearestNeighbor) ADDS(ReverseV2) ADDS(Round) ADDS(Rsqrt) ADDS(SelectV2)
  ADDS(Sin) ADDS(Slice) ADDS(Softmax) ADDS(SpaceToBatchNd) ADDS(SpaceToDepth) ADDS(Split) ADDS(SplitV)
  ADDS(Sqrt) ADDS(Square) ADDS(SquaredDifference) ADDS(Squeeze) ADDS(StridedSlice) ADDS(Sub) ADDS(Sum)
  ADDS(Tanh) ADDS(Transpose) ADDS(TransposeConv) ADDS(Unpack) ADDS(While) ADDS(ZerosLike)

 private:
  TfLiteStatus Add_() { return ++used_ <= N ? kTfLiteOk : kTfLiteError; }
  unsigned int used_ = 0;
};
}  // namespace tflite
#undef ADDS
