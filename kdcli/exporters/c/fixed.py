"""Numbers as integers with a fixed point: multipliers and shifts for real factors, tables for functions.

Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
section 2.2: a real factor M is M_0 * 2**-shift with a 31-bit M_0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

INT32 = (1 << 31) - 1
_WIDEST = 61  # of what is shifted, in 63 bits
_MOST_STEPS = 512  # of a function in a table


@dataclass(frozen=True, eq=False)
class Rescale:
    """round(ratio * a + offset) for whole a as (a * multiplier + bias * 2**up) >> shift in 64 bits.

    Attributes:
        multiplier, bias: () or (O,), int32; half of 2**shift, which rounds, is in the bias.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    up: int
    shift: int

    def __call__(self, a: np.ndarray) -> np.ndarray:
        """(..., O) int -> (..., O) int64, as C computes it."""
        return (a.astype(np.int64) * self.multiplier + (self.bias.astype(np.int64) << self.up)) >> self.shift


def rescale(ratio: np.ndarray, offset: np.ndarray, most: float) -> Rescale | None:
    """The integers for `ratio` above 0 and `offset`, each () or (O,), where |a| is at most `most`; None if none fit.

    The result is exact to 2**-30 of the largest it can be, before it is rounded.
    """
    reach = most * float(ratio.max()) + float(np.abs(offset).max())
    shift = min(30 - math.floor(math.log2(float(ratio.max()))), _WIDEST - math.ceil(math.log2(max(reach, 1.0))))
    if most > INT32 or reach > INT32 or shift < 1:
        return None
    exact = offset * 2.0**shift + 2.0 ** (shift - 1)
    up = max(0, math.ceil(math.log2(float(np.abs(exact).max()) + 1)) - 30)
    multiplier = np.minimum(np.round(ratio * 2.0**shift), INT32).astype(np.int32)
    return Rescale(multiplier, np.round(exact / 2.0**up).astype(np.int32), up, shift)


UNIT = 20  # bits behind the point of a code that is not yet rounded


@dataclass(frozen=True, eq=False)
class Encode:
    """round(x * factor - offset) of a float x, read as its digits and exponent: no floating-point arithmetic.

    Attributes:
        multiplier, shift: () or (F,): factor is multiplier * 2**-shift.
        offset: () or (F,), int32, in 2**(up - 20).
    """

    multiplier: np.ndarray
    shift: np.ndarray
    offset: np.ndarray
    up: int


def encode(factor: np.ndarray, offset: np.ndarray) -> Encode | None:
    """For factors above 0; None where an offset is so far from zero that less than 2**-12 of a code would be lost."""
    shift = 30 - np.floor(np.log2(factor)).astype(np.int64)
    multiplier = np.minimum(np.round(factor * 2.0**shift), INT32).astype(np.int32)
    far = float(np.abs(offset).max()) * 2.0**UNIT
    up = max(0, math.ceil(math.log2(far + 1)) - 30)
    if up > UNIT - 12 or shift.max() > 900:
        return None
    return Encode(multiplier, shift.astype(np.int16), np.round(offset * 2.0 ** (UNIT - up)).astype(np.int32), up)


@dataclass(frozen=True, eq=False)
class Steps:
    """A rising function of z in whole steps: how many of the places where it comes to the next step are not above z.

    Attributes:
        first: the step below the first place.
        places: (n,) float64, in order.
        odd: whether the places are those of z >= 0, the steps of -z being those of z with a minus, from 0 on.
    """

    first: int
    places: np.ndarray
    odd: bool

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """z in real units -> steps."""
        found = np.searchsorted(self.places, np.abs(z) if self.odd else z, "right")
        return np.where(z < 0, -found, found) if self.odd else self.first + found


def _softsign(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.abs(x))


_SELU, _SELU_BELOW = 1.0507009873554805, 1.6732632423543772
RISING: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardtanh": lambda x: np.clip(x, -1, 1),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "rrelu": lambda x: np.where(x > 0, x, 11 / 48 * x),
    "selu": lambda x: _SELU * np.where(x > 0, x, _SELU_BELOW * np.expm1(np.minimum(x, 0))),
    "sigmoid": lambda x: (1 + np.tanh(x / 2)) / 2,
    "softplus": lambda x: np.logaddexp(x, 0),
    "softshrink": lambda x: x - np.clip(x, -0.5, 0.5),
    "softsign": _softsign,
    "tanh": np.tanh,
    "tanhshrink": lambda x: x - np.tanh(x),
}
_ODD = ("hardtanh", "softshrink", "softsign", "tanh", "tanhshrink")


def steps(kind: str, scale: float, low: int, high: int, reach: float) -> Steps | None:
    """The activation `kind` of |z| up to `reach` in steps of `scale` from low to high; None if it has no such form."""
    if kind not in RISING or high - low > _MOST_STEPS:
        return None
    odd = kind in _ODD
    top = max(-low, high) if odd else high
    halves = np.arange(0 if odd else low, top) + 0.5
    ends = RISING[kind](np.array([0.0 if odd else -reach, reach])) / scale
    crossed = halves[(halves > ends[0]) & (halves < ends[1])]
    first = low + int((halves <= ends[0]).sum())
    return Steps(first, _inverse(RISING[kind], crossed * scale, reach), odd)


def _inverse(function: Callable[[np.ndarray], np.ndarray], y: np.ndarray, reach: float) -> np.ndarray:
    """The z at which a rising function is y, by bisection between -reach and reach."""
    below, above = np.full_like(y, -reach), np.full_like(y, reach)
    for _ in range(80):
        middle = (below + above) / 2
        is_above = function(middle) >= y
        below, above = np.where(is_above, below, middle), np.where(is_above, middle, above)
    return above
