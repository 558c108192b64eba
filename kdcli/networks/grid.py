"""Activations on a grid of whole-number codes, as a layer of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_CODE = 1 << 16


class Quantize(nn.Module):
    """x -> (clip(round(x / scale) + zero, low, high) - zero) * scale in float32, halves rounded to even.

    `scale` and `zero` are one number for all, or one for each element (F,); `zero` holds whole numbers as float32.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, low: int, high: int, size: int = 0) -> None:
        super().__init__()
        if not -MAX_CODE <= low < high <= MAX_CODE:
            raise ValueError(f"a grid from {low} to {high}")
        self.low, self.high = low, high
        shape = (size,) if size else ()
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero", torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return on_grid(x, self.scale, self.zero, self.low, self.high)


def on_grid(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """The formula of `Quantize`."""
    return (((x / scale).round() + zero).clamp(low, high) - zero) * scale
