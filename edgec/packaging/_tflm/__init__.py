"""What the TensorFlow Lite Micro steps share: the arena, C++ sources, the project around a model."""
