// Stand-in for the tests.
#pragma once
#define TFLITE_SCHEMA_VERSION 3
namespace tflite {
struct Model {
  int version() const { return TFLITE_SCHEMA_VERSION; }
};
inline const Model* GetModel(const void*) {
  static const Model model;
  return &model;
}
}  // namespace tflite
