"""Values on a grid of whole numbers, and products of them, before it is known in what form somebody needs them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.exporters.c.values import Value
from kdcli.graph.operations import Op

# A grid with a scale for each element is put on one fine grid for all: so many bits and a sign.
FINE = 30
_CODES = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True, eq=False)
class Grid:
    """value = number * scale, number a whole one from `low` to `high`: each one for all, or one for each element (F,).

    The numbers are codes less the code of zero.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, op: Op) -> Grid:
        """The grid of a `quantize`."""
        zero = op.weights["zero"].astype(np.int64)
        return cls(op.weights["scale"].astype(np.float64), op.attrs["low"] - zero, op.attrs["high"] - zero)

    @property
    def is_shared(self) -> bool:
        """Whether all elements have one scale."""
        return self.scale.size == 1

    @property
    def most(self) -> np.ndarray:
        """The largest |number|, (F,) or ()."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def step(self) -> float:
        """What one of the numbers in memory is: the scale, or 2**-30 of the largest value where scales differ."""
        return float(self.scale.max()) if self.is_shared else float((self.scale * self.most).max()) / (1 << FINE)

    @property
    def held(self) -> int:
        """The largest |number| in memory."""
        return int(self.most.max()) if self.is_shared else (1 << FINE) + 1

    @property
    def dtype(self) -> str:
        """The smallest type that holds the numbers in memory."""
        low, high = (int(self.low.min()), int(self.high.max())) if self.is_shared else (-self.held, self.held)
        return next(d for d in _CODES if np.iinfo(d).min <= low and high <= np.iinfo(d).max)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A feature (x - mean) / scale, clipped to +-clip, of floats x in memory; not yet computed.

    Attributes:
        op: the operation whose output it is.
    """

    op: Op
    x: Value
    mean: np.ndarray
    scale: np.ndarray
    clip: float


@dataclass(frozen=True, eq=False)
class Gridded:
    """The output of a `quantize`: nobody has asked for its numbers yet, nor for what they stand for."""

    op: Op
    grid: Grid


@dataclass(frozen=True, eq=False)
class Sums:
    """A product of whole numbers with whole-number weights, and the activation behind it, not yet computed.

    Attributes:
        op: a gemm or a conv2d.
        x: its input, on a grid.
        activation: a kind, or empty.
    """

    op: Op
    x: Gridded
    activation: str = ""


Late = Gridded | Scaled | Sums


@dataclass(frozen=True, eq=False)
class Numbers:
    """Whole numbers in memory: value = number * step, |number| at most `most`."""

    value: Value
    step: float
    most: int
