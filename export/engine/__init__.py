"""From an ONNX file to a TensorRT engine, with one code path for TensorRT 10, 11 and RTX."""
