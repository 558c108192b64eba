"""ONNX files as agents: validated, tried in a sandbox, counted, and run by onnxruntime."""
