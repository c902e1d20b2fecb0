"""What runs in the torch frontend's own process: from a source to a module, and on to an ONNX graph."""
