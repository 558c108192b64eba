"""How weights come to lie on few levels: each scheme finds its levels, puts weights on them, and describes them.

A scheme is fitted to one weight matrix, which gives a `Lattice`: tensors that may be learned, a function that puts
weights on the levels with a straight-through gradient (Bengio et al. 2013), and the packing of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.networks.packed_weights import MAX_BITS, Packed
from kdcli.quantization import SCHEMES
from kdcli.quantization.codebooks import kmeans, powers_of_two
from kdcli.quantization.rounding import Linear, fitted


class Lattice(Protocol):
    """Levels fitted to one matrix. As a module, its parameters are what may be learned with the weights."""

    def __call__(self, weight: Tensor) -> Tensor:
        """The weights on their levels; the gradient goes through to them, and to the levels."""
        ...

    def packed(self, weight: Tensor) -> Packed:
        """Codes and levels; `decoded()` is what the call gives, bit for bit."""
        ...


@dataclass(frozen=True)
class Scheme:
    """A way to store weights: its name as typed, bits a weight, and `fit`: a matrix -> levels for it."""

    name: str
    bits: int
    fit: Callable[[np.ndarray], Any]

    def pack(self, weight: np.ndarray) -> Packed:
        """The weights on levels fitted to them alone: quantization after training, without data."""
        tensor = torch.from_numpy(np.ascontiguousarray(weight, np.float32))
        with torch.no_grad():
            return self.fit(weight).packed(tensor)


def parse_scheme(text: str) -> Scheme:
    """`int8`, `int4:rows=no`, `kmeans:16`, `log:4`, `fp16`.

    Raises:
        UsageError: unknown, or options that make no sense.
    """
    choice = Choice.parse(text)
    return SCHEMES.load(choice.name)(choice)


def linear(choice: Choice) -> Scheme:
    """Whole numbers of so many bits times a scale. `rows`: one for each row; `zero`: the range need not be symmetric;
    `fit`: to the largest weight (`max`), or to the least squared error (`mse`).
    """
    choice.only("rows", "zero", "fit")
    bits, fit = int(choice.name.removeprefix("int")), choice.options.get("fit", "mse")
    rows, zero = (_yes(choice, key, default) for key, default in (("rows", True), ("zero", False)))
    if choice.value or fit not in ("max", "mse"):
        raise UsageError(f"cannot read the scheme {str(choice)!r}", "fit is max or mse", "e.g. int4:rows=no,fit=max")

    def fitting(weight: np.ndarray) -> Linear:
        return fitted(weight, bits, rows=rows, zero=zero, search=fit == "mse")

    return Scheme(str(choice), bits, fitting)


def codebook(choice: Choice) -> Scheme:
    """A table of the given number of levels for each matrix, by k-means (Han et al. 2016)."""
    n = _number(choice.only(), 16, 2, 1 << 12)
    return Scheme(str(choice), max(1, (n - 1).bit_length()), lambda weight: Table(kmeans(weight, n)))


def logarithmic(choice: Choice) -> Scheme:
    """0 and signed powers of two, by bits (Miyashita et al. 2016)."""
    bits = _number(choice.only(), 4, 2, 8)
    return Scheme(str(choice), bits, lambda weight: Table(powers_of_two(weight, bits), learned=False))


def half(choice: Choice) -> Scheme:
    """Rounded to half-precision floats."""
    if choice.only().value:
        raise UsageError(f"cannot read the scheme {str(choice)!r}", f"{choice.name} takes no number", choice.name)
    name = {"fp16": "float16", "bf16": "bfloat16"}[choice.name]
    return Scheme(str(choice), MAX_BITS, lambda _: Half(name))


class Table(nn.Module):
    """Levels (n,) in rising order; each weight goes to the nearest."""

    def __init__(self, levels: np.ndarray, learned: bool = True) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.from_numpy(levels.astype(np.float32)), requires_grad=learned)

    def forward(self, weight: Tensor) -> Tensor:
        """(O, ...) -> (O, ...)."""
        on_levels = self.levels[self._codes(weight)]
        return on_levels + (weight - weight.detach()) if weight.requires_grad else on_levels

    def _codes(self, weight: Tensor) -> Tensor:
        # Levels that are learned may pass one another; each weight still goes to the nearest.
        rising, order = self.levels.detach().sort()
        middles = (rising[1:] + rising[:-1]) / 2
        return order[torch.bucketize(weight.detach().contiguous(), middles)]

    def packed(self, weight: Tensor) -> Packed:
        """Codes by rows of the table."""
        levels = self.levels.detach().numpy().copy()
        kind = np.uint8 if len(levels) <= 256 else np.uint16
        bits = max(1, (len(levels) - 1).bit_length())
        return Packed(self._codes(weight).numpy().astype(kind), bits, levels=levels)


class Half(nn.Module):
    """Weights rounded to `float16` or `bfloat16`, and what is too large to the largest."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.dtype = name, torch.float16 if name == "float16" else torch.bfloat16

    def _rounded(self, weight: Tensor) -> Tensor:
        most = torch.finfo(self.dtype).max
        return weight.clamp(-most, most).to(self.dtype)

    def forward(self, weight: Tensor) -> Tensor:
        """(O, ...) -> (O, ...)."""
        return weight + (self._rounded(weight).float() - weight).detach()

    def packed(self, weight: Tensor) -> Packed:
        """The bit patterns."""
        bits = self._rounded(weight.detach()).view(torch.int16).numpy().view(np.uint16)
        return Packed(bits.copy(), MAX_BITS, half=self.name)


def _yes(choice: Choice, key: str, default: bool) -> bool:
    given = choice.options.get(key, "yes" if default else "no")
    if given not in ("yes", "no"):
        raise UsageError(f"cannot read {key}={given} in {str(choice)!r}", "it is yes or no", f"{key}=yes")
    return given == "yes"


def _number(choice: Choice, default: int, low: int, high: int) -> int:
    """The value of the choice, a whole number from `low` to `high`."""
    text = choice.value or str(default)
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        why = f"it is a whole number from {low} to {high}"
        raise UsageError(f"cannot read {text!r} in {str(choice)!r}", why, f"e.g. {choice.name}:{default}")
    return int(text)
