"""Every case of ONNX's own backend test suite through each of our backends, in worker processes with a time limit."""
