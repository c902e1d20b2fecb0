// Stand-in for the tests: the output is the input in reverse order of elements, SHIFT added to its first byte.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "goldens.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

struct TfLiteTensor {
  union {
    void* data;
  } data;
  size_t bytes;
};

namespace tflite {
class MicroInterpreter {
 public:
  template <typename Resolver>
  MicroInterpreter(const Model*, Resolver&, uint8_t* arena, size_t size) : size_(size) {
    const GoldenTensor& first = kGoldens[0].inputs[0];
    input_.bytes = output_.bytes = first.bytes;
    input_.data.data = arena;
    output_.data.data = arena + 512;
    element_ = first.type == GoldenType::kInt8 ? 1 : first.type == GoldenType::kInt16 ? 2 : 4;
  }
  TfLiteStatus AllocateTensors() { return size_ >= 1024 ? kTfLiteOk : kTfLiteError; }
  size_t arena_used_bytes() const { return size_; }
  TfLiteTensor* input(size_t) { return &input_; }
  TfLiteTensor* output(size_t) { return &output_; }
  TfLiteStatus Invoke() {
    const auto* from = static_cast<const uint8_t*>(input_.data.data);
    auto* to = static_cast<uint8_t*>(output_.data.data);
    const size_t count = input_.bytes / element_;
    for (size_t i = 0; i < count; ++i) {
      std::memcpy(to + i * element_, from + (count - 1 - i) * element_, element_);
    }
    to[0] = static_cast<uint8_t>(to[0] + SHIFT);
    return kTfLiteOk;
  }

 private:
  size_t size_;
  size_t element_;
  TfLiteTensor input_, output_;
};
}  // namespace tflite
