"""ONNX Runtime's own operators, which its optimiser and quantizers write into models, in the standard's terms."""
