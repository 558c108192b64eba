"""Activations on a grid of whole-number codes, as a layer of a network."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

MAX_CODE = 1 << 16
TINY = 1e-12


class GridLayer(nn.Module):
    """x -> (clip(round(x / scale) + zero, low, high) - zero) * scale in float32, halves rounded to even."""

    zero: Tensor | int

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        if not -MAX_CODE <= low < high <= MAX_CODE:
            raise ValueError(f"a grid from {low} to {high}")
        self.low, self.high = low, high

    @abstractmethod
    def scale_of(self, x: Tensor) -> Tensor:
        """What one step is, in a shape that (B, ...) can be divided by."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        return on_grid(x, self.scale_of(x), self.zero, self.low, self.high)


class Quantize(GridLayer):
    """A grid that stays: `scale` and `zero` are one number for all, or one for each element (F,).

    `zero` holds whole numbers as float32.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, low: int, high: int, size: int = 0) -> None:
        super().__init__(low, high)
        shape = (size,) if size else ()
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("zero", torch.zeros(shape))

    def scale_of(self, x: Tensor) -> Tensor:
        """(B, ...) -> () or (F,)."""
        return self.scale


class DynamicQuantize(GridLayer):
    """A grid that each sample brings along: the last code is that of its largest |number|.

    The range is the sample's own, not the batch's: what an agent does must not depend on who else is asked.
    """

    zero: int

    def __init__(self, low: int, high: int, zero: int) -> None:
        super().__init__(low, high)
        if not low <= zero < high:
            raise ValueError(f"a grid from {low} to {high} where {zero} stands for 0")
        self.zero = zero

    def scale_of(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, 1, ...)."""
        return dynamic_scale(x, self.high - self.zero)


def on_grid(x: Tensor, scale: Tensor, zero: Tensor | int, low: int, high: int) -> Tensor:
    """The formula of `GridLayer`."""
    return (((x / scale).round() + zero).clamp(low, high) - zero) * scale


def dynamic_scale(x: Tensor, most: int) -> Tensor:
    """The largest |number| of each sample (B, ...), divided by the code it gets: (B, 1, ...)."""
    return (x.abs().amax(tuple(range(1, x.ndim)), keepdim=True) / most).clamp(min=TINY)
