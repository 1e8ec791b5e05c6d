"""An ONNX file of another program becomes an artefact: `icnet adopt`."""
