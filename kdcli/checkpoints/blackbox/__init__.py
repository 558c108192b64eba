"""Foreign ONNX, TorchScript and torch.export programs as black-box policies."""
