"""Tensors with a JSON card that describes them."""
