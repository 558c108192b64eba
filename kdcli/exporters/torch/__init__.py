"""A graph as a torch module: TorchScript and torch.export programs."""
