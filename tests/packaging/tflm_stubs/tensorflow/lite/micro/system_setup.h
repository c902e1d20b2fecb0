// Stand-in for the tests.
#pragma once
namespace tflite {
inline void InitializeTarget() {}
}  // namespace tflite
