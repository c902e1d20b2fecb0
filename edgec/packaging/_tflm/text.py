"""The files of a TensorFlow Lite Micro project as text; `@NAME@` and its like are filled in."""

from __future__ import annotations

MODEL_H = """\
// @NAME@ for @TARGET@, as edgec compiled it.
#ifndef EDGEC_MODEL_DATA_H_
#define EDGEC_MODEL_DATA_H_

// The TFLite FlatBuffer, aligned so that TensorFlow Lite Micro reads it in place.
constexpr unsigned int kModelDataSize = @MODEL_BYTES@;
extern const unsigned char g_model_data[kModelDataSize];

// Bytes of working memory.
//   kArenaReferenceBytes  the smallest that TensorFlow Lite Micro's own interpreter ran this model in, with its
//                         reference kernels and 64-bit pointers: a 32-bit core needs a few percent less
//   kArenaScratchBytes    an estimate of what optimised kernels (CMSIS-NN, ESP-NN) ask for on top
// After AllocateTensors, interpreter.arena_used_bytes() says what your build takes.
constexpr unsigned int kArenaReferenceBytes = @ARENA@;
constexpr unsigned int kArenaScratchBytes = @SCRATCH@;
#ifndef EDGEC_ARENA_BYTES
#define EDGEC_ARENA_BYTES (((kArenaReferenceBytes + kArenaScratchBytes) + 15u) / 16u * 16u)
#endif

#endif  // EDGEC_MODEL_DATA_H_
"""

GOLDENS_H = """\
// Inputs of @NAME@ with the outputs that TensorFlow Lite Micro's reference kernels gave on the host.
#ifndef EDGEC_GOLDENS_H_
#define EDGEC_GOLDENS_H_

enum class GoldenType { kInt8, kInt16, kInt32, kFloat32, kBytes };

struct GoldenTensor {
  const unsigned char* data;
  unsigned int bytes;
  GoldenType type;
};

constexpr unsigned int kInputCount = @INPUTS@;
constexpr unsigned int kOutputCount = @OUTPUTS@;

struct Golden {
  GoldenTensor inputs[kInputCount];
  GoldenTensor outputs[kOutputCount];
};

// How far integers may be off: 0 for kernels that compute what the reference kernels do.
#ifndef EDGEC_GOLDEN_STEPS
#define EDGEC_GOLDEN_STEPS @STEPS@
#endif
// How far floats may be off, as a share of the largest value of the output.
#ifndef EDGEC_GOLDEN_TOLERANCE
#define EDGEC_GOLDEN_TOLERANCE 1e-4f
#endif

extern const unsigned int kGoldenCount;
extern const Golden kGoldens[];

#endif  // EDGEC_GOLDENS_H_
"""

MAIN_CC = """\
// Runs @NAME@ on its goldens and compares: a first program for a new board, and the place for your own loop.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "goldens.h"
#include "model_data.h"
#include "op_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t g_arena[EDGEC_ARENA_BYTES];

template <typename T>
bool IntegersAgree(const GoldenTensor& expected, const void* actual) {
  for (unsigned int i = 0; i < expected.bytes / sizeof(T); ++i) {
    T want, have;
    std::memcpy(&want, expected.data + i * sizeof(T), sizeof(T));
    std::memcpy(&have, static_cast<const unsigned char*>(actual) + i * sizeof(T), sizeof(T));
    const int64_t off = static_cast<int64_t>(want) - static_cast<int64_t>(have);
    if (off > EDGEC_GOLDEN_STEPS || off < -EDGEC_GOLDEN_STEPS) return false;
  }
  return true;
}

bool FloatsAgree(const GoldenTensor& expected, const void* actual) {
  const unsigned int count = expected.bytes / sizeof(float);
  float largest = 0.0f, worst = 0.0f;
  for (unsigned int i = 0; i < count; ++i) {
    float want, have;
    std::memcpy(&want, expected.data + i * sizeof(float), sizeof(float));
    std::memcpy(&have, static_cast<const unsigned char*>(actual) + i * sizeof(float), sizeof(float));
    if (std::fabs(want) > largest) largest = std::fabs(want);
    const float off = std::fabs(want - have);
    if (!(off <= worst)) worst = off;  // not a number counts as off
  }
  return worst <= EDGEC_GOLDEN_TOLERANCE * (largest > 0.0f ? largest : 1.0f);
}

bool Agrees(const GoldenTensor& expected, const void* actual) {
  switch (expected.type) {
    case GoldenType::kInt8: return IntegersAgree<int8_t>(expected, actual);
    case GoldenType::kInt16: return IntegersAgree<int16_t>(expected, actual);
    case GoldenType::kInt32: return IntegersAgree<int32_t>(expected, actual);
    case GoldenType::kFloat32: return FloatsAgree(expected, actual);
    case GoldenType::kBytes: return std::memcmp(expected.data, actual, expected.bytes) == 0;
  }
  return false;
}

int Run() {
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(g_model_data);
  if (model->version() != TFLITE_SCHEMA_VERSION) {
    MicroPrintf("the model has schema version %d, this runtime %d", static_cast<int>(model->version()),
                TFLITE_SCHEMA_VERSION);
    return 2;
  }
  static ModelOpResolver resolver;
  if (RegisterOps(resolver) != kTfLiteOk) return 3;
  static tflite::MicroInterpreter interpreter(model, resolver, g_arena, sizeof(g_arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    MicroPrintf("the arena of %d bytes is too small for these kernels: define EDGEC_ARENA_BYTES",
                static_cast<int>(sizeof(g_arena)));
    return 4;
  }
  MicroPrintf("arena: %d of %d bytes used", static_cast<int>(interpreter.arena_used_bytes()),
              static_cast<int>(sizeof(g_arena)));
  int failures = 0;
  for (unsigned int g = 0; g < kGoldenCount; ++g) {
    for (unsigned int i = 0; i < kInputCount; ++i) {
      if (interpreter.input(i)->bytes != kGoldens[g].inputs[i].bytes) return 5;
      std::memcpy(interpreter.input(i)->data.data, kGoldens[g].inputs[i].data, kGoldens[g].inputs[i].bytes);
    }
    if (interpreter.Invoke() != kTfLiteOk) return 6;
    for (unsigned int i = 0; i < kOutputCount; ++i) {
      if (interpreter.output(i)->bytes != kGoldens[g].outputs[i].bytes) return 5;
      if (!Agrees(kGoldens[g].outputs[i], interpreter.output(i)->data.data)) {
        MicroPrintf("golden %d, output %d differs", static_cast<int>(g), static_cast<int>(i));
        ++failures;
      }
    }
  }
  MicroPrintf(failures == 0 ? "all goldens agree" : "goldens differ");
  return failures == 0 ? 0 : 1;
}

}  // namespace

#ifdef ESP_PLATFORM
extern "C" void app_main() { Run(); }
#else
int main() { return Run(); }
#endif
"""

CMAKE = """\
# @NAME@ for @TARGET@. As a program:
#   cmake -B build -DTFLM_INCLUDE_DIRS="/path/to/tflite-micro;/path/to/third_party/flatbuffers/include;..." \\
#         -DTFLM_LIBRARY=/path/to/libtensorflow-microlite.a -DCMAKE_TOOLCHAIN_FILE=/path/to/your/board.cmake
# As a component of ESP-IDF: put this folder under components/ beside espressif__esp-tflite-micro.
set(EDGEC_SOURCES main.cc model_data.cc goldens.cc)

if(ESP_PLATFORM)
  idf_component_register(SRCS ${EDGEC_SOURCES} INCLUDE_DIRS . REQUIRES esp-tflite-micro)
else()
  cmake_minimum_required(VERSION 3.16)
  project(@PROJECT@ CXX)
  set(TFLM_INCLUDE_DIRS "" CACHE STRING "Include directories of TensorFlow Lite Micro and what it needs")
  set(TFLM_LIBRARY "" CACHE STRING "TensorFlow Lite Micro, compiled for your core")
  add_executable(@PROJECT@ ${EDGEC_SOURCES})
  target_compile_features(@PROJECT@ PRIVATE cxx_std_17)
  target_compile_definitions(@PROJECT@ PRIVATE TF_LITE_STATIC_MEMORY)
  target_include_directories(@PROJECT@ PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${TFLM_INCLUDE_DIRS})
  target_link_libraries(@PROJECT@ PRIVATE ${TFLM_LIBRARY})
endif()
"""

README = """\
# @NAME@ for @TARGET@

| file | what it is |
| --- | --- |
| model_data.cc, model_data.h | the model (@MODEL_BYTES@ bytes) as an aligned array, and the arena it needs |
| op_resolver.h | exactly the operators it uses: @OPERATORS@ |
| goldens.cc, goldens.h | inputs with the outputs that TensorFlow Lite Micro's reference kernels gave |
| main.cc | allocates, runs the goldens, compares; exit code 0 when all agree |
| CMakeLists.txt | a program for any toolchain, or a component of ESP-IDF |

Arena: @ARENA@ bytes measured with TensorFlow Lite Micro's own interpreter (reference kernels, 64-bit pointers), and
@SCRATCH@ bytes estimated for the scratch memory of optimised kernels.

| tensor | name | type | shape | quantization | layout |
| --- | --- | --- | --- | --- | --- |
@IO@
@NOTES@"""
