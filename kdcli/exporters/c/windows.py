"""How windows move over images in memory: over one plane a channel, or over one with the channels innermost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod

import numpy as np

from kdcli.exporters.c.values import Step, Value
from kdcli.graph.operations import Op


@dataclass(frozen=True)
class Window:
    """As C's `window`, in its order."""

    planes: int
    rows: int
    cols: int
    cell: int
    height: int
    width: int
    step_rows: int
    step_cols: int
    pad_rows: int
    pad_cols: int
    out_rows: int
    out_cols: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """The numbers by name."""
        return asdict(self)

    @property
    def places(self) -> int:
        """Windows in an image."""
        return self.out_rows * self.out_cols

    @property
    def under(self) -> int:
        """Numbers under a window."""
        return self.planes * self.height * self.width * self.cell

    def order(self, out: int) -> np.ndarray | None:
        """The order in which the output (out, out_rows, out_cols) is given: channels innermost."""
        return channels_last((out, self.out_rows, self.out_cols))

    def laid(self, weight: np.ndarray) -> np.ndarray:
        """Weights (O, C, h, w) as (O, n), in the order of what is under a window: plane, row, column, cell."""
        split = weight.reshape(len(weight), self.planes * self.cell, self.height, self.width)
        return (split.transpose(0, 2, 3, 1) if self.cell > 1 else split).reshape(len(weight), -1)


def window_over(op: Op, x: Value, kernel: tuple[int, ...]) -> Window | None:
    """How a window moves over an image that lies in its own order or channels innermost; None in any other order."""
    channels, rows, cols = shape = op.inputs[0].shape
    order = channels_last(shape)
    last = x.order is not None and order is not None and np.array_equal(x.order, order)
    if x.order is not None and not last:
        return None
    planes, cell = (1, channels) if last else (channels, 1)
    return Window(planes, rows, cols, cell, *kernel, *op.attrs["stride"], *op.attrs["padding"], *op.out.shape[1:])


def windowed(steps: list[Step], op: Op, x: Value, kernel: tuple[int, ...]) -> tuple[Value, Window]:
    """The image, put in its own order where it lies in neither, and how a window moves over it."""
    if window_over(op, x, kernel) is None:
        assert x.order is not None
        y = Value(f"{x.root}.sorted", x.size, x.dtype)
        steps.append(Step("take", (x,), (y,), {"places": np.argsort(x.order)}))
        x = y
    window = window_over(op, x, kernel)
    assert window is not None
    return x, window


def dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights of groups (O, C / groups, h, w) as those of one, (O, C, h, w), zeros between."""
    if groups == 1:
        return weight
    out, channels = len(weight) // groups, weight.shape[1]
    whole = np.zeros((len(weight), groups * channels, *weight.shape[2:]), weight.dtype)
    for k in range(groups):
        own = slice(k * out, (k + 1) * out)
        whole[own, k * channels : (k + 1) * channels] = weight[own]
    return whole


def channels_last(shape: tuple[int, ...]) -> np.ndarray | None:
    """The order of (C, H, W) when it lies as (H, W, C)."""
    return tidy(np.arange(prod(shape)).reshape(shape).transpose(1, 2, 0).ravel())


def tidy(order: np.ndarray) -> np.ndarray | None:
    """None for the own order."""
    return None if np.array_equal(order, np.arange(len(order))) else order
