"""What a graph is made of. Each value is computed once and never changes (static single assignment)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

# x is the first input; every shape is without the batch. Small letters in brackets are attributes or weights.
KINDS: Mapping[str, str] = {
    "argmax": "x (A,) -> (): place of the first largest, counted from [start]; int64",
    "cast": "x in the output's dtype; a fraction is cut off on the way to an integer",
    "clip": "min(max(x, [low]), [high]); the bounds are one number or one for each element",
    "elu": "x where x > 0, else exp(x) - 1",
    "flatten": "x (...) -> (F,)",
    "gelu": "x * (1 + erf(x / sqrt(2))) / 2",
    "gemm": "x (I,) -> (O,): [weight] (O, I) times x, plus [bias] (O,) where there is one",
    "group_argmax": "x (sum of [sizes],) -> (groups,): argmax in each group of neighbours; int64",
    "gsde": "x (L,) -> (A,): log(x^2 times [variance] (L, A) + 1e-6) / 2, Raffin et al. 2021",
    "identity": "x under a second name",
    "leaky_relu": "x where x > 0, else 0.01 x",
    "normalize": "(x - [mean]) / [scale], clipped to +-[clip], in float64",
    "one_hot": "integers () or (groups,) -> (sum of [sizes],): 1 at each one's place, counted from [start], else 0",
    "quantile_mean": "x ([quantiles] * A,) -> (A,): the mean over the quantiles, the outer axis",
    "relu": "max(x, 0)",
    "repeat": "[value], the same for every x of the batch",
    "reshape": "x in the output's shape",
    "scale": "x / [divisor]",
    "selu": "1.0507009873554805 * (x where x > 0, else 1.6732632423543772 * (exp(x) - 1))",
    "sigmoid": "1 / (1 + exp(-x))",
    "silu": "x * sigmoid(x)",
    "softplus": "log(1 + exp(x))",
    "softsign": "x / (1 + |x|)",
    "tanh": "tanh(x)",
    "threshold": "1 where sigmoid(x) > 0.5, else 0",
    "unscale": "x * [half] + [middle], no middle where it is 0: from -1..1 to the bounds",
}


@dataclass(frozen=True)
class Port:
    """A value: its name, its shape without the batch, and the name of its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Numbers in one sample."""
        return prod(self.shape)


@dataclass(frozen=True, eq=False)
class Op:
    """One operation of a kind in `KINDS`. `attrs` say how, `weights` are the numbers it brings along."""

    kind: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of operation {self.kind!r}")

    @property
    def out(self) -> Port:
        """The only output."""
        (port,) = self.outputs
        return port


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in the order they run.

    Raises:
        ValueError: a value is made twice, or used before it is made.
    """

    inputs: tuple[Port, ...]
    ops: tuple[Op, ...]
    outputs: tuple[Port, ...]

    def __post_init__(self) -> None:
        made = {port.name: port for port in self.inputs}
        for op in self.ops:
            _check_made(op.inputs, made)
            for port in op.outputs:
                if port.name in made:
                    raise ValueError(f"the value {port.name!r} is made twice")
                made[port.name] = port
        _check_made(self.outputs, made)


def _check_made(ports: tuple[Port, ...], made: Mapping[str, Port]) -> None:
    for port in ports:
        if made.get(port.name) != port:
            raise ValueError(f"the value {port.name!r} is used before it is made")
