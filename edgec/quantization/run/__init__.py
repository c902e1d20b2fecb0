"""Run a model as ONNX defines it, whole or in part, float or with a plan written into it."""
