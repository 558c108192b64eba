"""States in which an activation lies so near the edge between two codes that rounding alone decides which it gets.

There a file may take one code and the agent the other, both rightly; all that follows then differs. As with ties of
the best two actions, such states tell nothing about the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.networks.activation_grid import GridLayer

# Programs that add float32 numbers in another order differ by so much, beside the largest number of a sample.
ROUNDING = 2e-6


class Edges:
    """What a policy's grids saw since it was last asked."""

    def __init__(self, module: nn.Module) -> None:
        self.grids = [grid for grid in module.modules() if isinstance(grid, GridLayer)]
        self._near: list[Tensor] = []

    def look(self, grid: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        """A hook: note the samples of the batch that are near an edge."""
        assert isinstance(grid, GridLayer)
        x = inputs[0]
        scale = grid.scale_of(x)
        steps = x / scale
        room = ROUNDING * x.abs().flatten(1).amax(1).clamp(min=1.0).reshape(-1, *(1,) * (x.ndim - 1)) / scale
        inside = (steps > grid.low - grid.zero - 1) & (steps < grid.high - grid.zero + 1)
        near = inside & ((steps - steps.floor() - 0.5).abs() <= room)
        self._near.append(near.flatten(1).any(1))

    def take(self, n: int) -> np.ndarray:
        """Which of the last `n` samples are; forgets them."""
        found = torch.stack(self._near).any(0).numpy() if self._near else np.zeros(n, bool)
        self._near.clear()
        return found


@contextmanager
def watched(module: nn.Module) -> Iterator[Edges]:
    """Watch the grids of a policy."""
    edges = Edges(module)
    hooks = [grid.register_forward_hook(edges.look) for grid in edges.grids]
    try:
        yield edges
    finally:
        for hook in hooks:
            hook.remove()
