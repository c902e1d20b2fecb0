"""The intermediate representation: a typed view on `onnx_ir`, and what is known of each operator."""
