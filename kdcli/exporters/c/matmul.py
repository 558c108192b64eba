"""A product of numbers in memory with weights on few levels, and what becomes of its sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdcli.exporters.c.fixed import Rescale, rescale, steps
from kdcli.exporters.c.grids import Grid, Numbers
from kdcli.exporters.c.rows import Rows, rows
from kdcli.exporters.c.values import Step, Value, under_as
from kdcli.exporters.c.windows import Window, windowed
from kdcli.graph.operations import Op

BITS = 30  # of what stands for scores and for what an activation reads
_FINE, _COARSE = 26, 12  # bits behind the point of what an activation reads: at most, and at least


@dataclass(frozen=True, eq=False)
class Clamped:
    """A sum becomes a whole number from low to high."""

    rescale: Rescale
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Stepped:
    """A sum becomes z, and that the whole number from low to high that a rising function gives for it.

    Attributes:
        places: z from which on it is the next number, int32.
        first, odd: as in `Steps`.
    """

    rescale: Rescale
    places: np.ndarray
    first: int
    odd: bool
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Scored:
    """A sum becomes one of 31 bits, in the same unit in every row."""

    rescale: Rescale


@dataclass(frozen=True, eq=False)
class Decoded:
    """A sum becomes the real number sum * scale + bias, each (O,) float32."""

    scale: np.ndarray
    bias: np.ndarray


Finish = Clamped | Stepped | Scored | Decoded


@dataclass(frozen=True, eq=False)
class Product:
    """Weights and numbers that are multiplied.

    Attributes:
        x: the numbers.
        rows: the weights.
        unit: what one of the sum is in each row, (O,) or ().
        window: how a window moves over x, for a convolution.
        down: bits that are cut off sums of 64 bits.
        out: the shape of the output, and the order in which it is given.
    """

    op: Op
    x: Value
    rows: Rows
    unit: np.ndarray
    window: Window | None
    down: int

    @property
    def most(self) -> int:
        """The largest |sum|."""
        return self.rows.most >> self.down

    @property
    def bias(self) -> np.ndarray:
        """() or (O,), float64."""
        return self.op.weights.get("bias", np.zeros(())).astype(np.float64)

    @property
    def bias32(self) -> np.ndarray:
        """(O,), float32."""
        return np.broadcast_to(self.bias, len(self.rows.data)).astype(np.float32)

    @property
    def reach(self) -> float:
        """The largest |real output|."""
        return self.most * float(self.unit.max()) + float(np.abs(self.bias).max())

    def finish(self, activation: str, grid: Grid) -> Clamped | Stepped | None:
        """How sums become numbers of a grid; None where that needs more bits, or the activation is no smooth one."""
        low, high, scale = int(grid.low.min()), int(grid.high.max()), grid.step
        if activation in ("", "relu"):
            made = rescale(self.unit / scale, self.bias / scale, self.most)
            return Clamped(made, max(low, 0) if activation else low, high) if made else None
        found = steps(activation, scale, low, high, self.reach)
        fine = min(BITS - math.ceil(math.log2(self.reach + 1)), _FINE)
        made = rescale(self.unit * 2.0**fine, self.bias * 2.0**fine, self.most)
        if found is None or made is None or fine < _COARSE:
            return None
        places = np.ceil(found.places * 2.0**fine).astype(np.int32)
        return Stepped(made, places, found.first, found.odd, low, high)

    def done(self, before: list[Step], name: str, finish: Finish, dtype: str = "float32") -> Value:
        """The product as a step; returns its output."""
        places = self.window.places if self.window else 1
        order = self.window.order(len(self.rows.data)) if self.window else None
        y = Value(name, places * len(self.rows.data), dtype, order=order)
        n = self.window.under if self.window else self.x.size
        scratch = (Value(f"{name}.under", n, under_as(self.x.dtype)),) if self.window else ()
        attrs = {"rows": self.rows, "finish": finish, "window": self.window, "n": n, "down": self.down}
        before.append(Step("product", (self.x,), (y,), attrs, scratch=scratch))
        return y


def product_of(steps: list[Step], op: Op, numbers: Numbers) -> Product:
    """The product of numbers in memory with an operation's weights, in the order in which the numbers lie."""
    packed, window, x = op.packed["weight"], None, numbers.value
    if op.kind == "gemm":
        codes = x.stored(packed.codes)
    else:
        x, window = windowed(steps, op, x, op.weights["weight"].shape[2:])
        codes = window.laid(packed.codes)
    made = rows(packed, codes, numbers.most)
    assert made is not None
    down = max(0, made.most.bit_length() - 31)
    return Product(op, x, made, made.scale * numbers.step * 2.0**down, window, down)


def real_product(steps: list[Step], op: Op, x: Value) -> Value | None:
    """A gemm of real numbers with packed weights, its output; None where they are halves."""
    packed = op.packed["weight"]
    made = rows(packed, x.stored(packed.codes), None)
    if made is None:
        return None
    product = Product(op, x, made, made.scale, None, 0)
    return product.done(steps, op.out.name, Decoded(made.scale.astype(np.float32), product.bias32))
