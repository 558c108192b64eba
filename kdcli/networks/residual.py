"""Layers that add to what they read."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


class Residual(nn.Module):
    """x + what `layers` make of it; He et al. 2016, eq. 1."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y


class Mean(nn.Module):
    """The mean of rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, D)."""
        return x.mean(1)
