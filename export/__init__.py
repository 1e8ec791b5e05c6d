"""From a checkpoint to ONNX files. Needs torch and onnx."""
