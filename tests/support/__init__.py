"""What the tests share: graphs from text, ONNX Runtime as the reference, real models."""
