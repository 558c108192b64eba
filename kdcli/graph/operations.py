"""What a graph is made of. Each value is computed once and never changes (static single assignment)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from kdcli.networks.packed_weights import Packed

# x, y, z are the inputs in order; shapes are without the batch. Small letters in brackets are attributes or weights.
KINDS: Mapping[str, str] = {
    "add": "x + y, of one shape",
    "argmax": "x (A,) -> (): place of the first largest, counted from [start]; int64",
    "attention": "q (M, D), k (N, D), v (N, D) -> (M, D): in each of [heads] neighbouring parts of D, softmax over N of"
    " q times k / sqrt(D / heads), times v; Vaswani et al. 2017, eq. 1. With two more inputs, b (heads, M, N) and y"
    " (N,): b is added before the softmax, and where y is 0 there is -1e8 instead",
    "cast": "x in the output's dtype; a fraction is cut off on the way to an integer",
    "channels_first": "x (H, W, C) -> (C, H, W)",
    "concat": "every input flat (F,), one after the other -> (sum of F,)",
    "conv2d": "x (C, H, W) -> (O, H', W'): cross-correlation with [weight] (O, C, h, w), plus [bias] (O,) where there"
    " is one; [stride] (rows, columns), zeros of [padding] (rows, columns) on each side. With [groups], weight (O, C /"
    " groups, h, w): each of as many neighbouring parts of O sees the same part of C alone",
    "clip": "min(max(x, [low]), [high]); the bounds are one number or one for each element",
    "dynamic_quantize": "`quantize`, whose scale is that of each sample: its largest |x| / ([high] - [zero]), at least"
    " 1e-12; [zero] is one whole number",
    "elu": "x where x > 0, else exp(x) - 1",
    "expectation": "x (A * N,) -> (A,): softmax in each group of N neighbours, times [atoms] (N,)",
    "flatten": "x (...) -> (F,)",
    "gelu": "x * (1 + erf(x / sqrt(2))) / 2",
    "gemm": "x (I,) -> (O,): [weight] (O, I) times x, plus [bias] (O,) where there is one; the same of each row"
    " of (N, I)",
    "hardshrink": "x where |x| > 0.5, else 0",
    "hardsigmoid": "min(max(x / 6 + 1 / 2, 0), 1)",
    "hardswish": "x * hardsigmoid(x)",
    "hardtanh": "min(max(x, -1), 1)",
    "group_argmax": "x (sum of [sizes],) -> (groups,): argmax in each group of neighbours; int64",
    "gru_cell": "x (I,), h (H,) -> h' (H,): with a = [weight_ih] (3H, I) x + [bias_ih] and b = [weight_hh] (3H, H) h +"
    " [bias_hh], each in three parts r, z, n: r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z), n = tanh(a_n + r b_n),"
    " h' = (1 - z) n + z h; Cho et al. 2014, as torch has it",
    "gsde": "x (L,) -> (A,): log(x^2 times [variance] (L, A) + 1e-6) / 2, Raffin et al. 2021",
    "identity": "x under a second name",
    "layer_norm": "x (F,): (x - its mean) / sqrt(its variance + [eps]) * [weight] + [bias]; the same of each row of"
    " (N, F)",
    "leaky_relu": "x where x > 0, else 0.01 x",
    "log_sigmoid": "-log(1 + exp(-x))",
    "lstm_cell": "x (I,), h (H,), c (H,) -> h' (H,), c' (H,): with a = [weight_ih] (4H, I) x + [bias_ih] + [weight_hh]"
    " (4H, H) h + [bias_hh] in four parts i, f, g, o: c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c')",
    "mask": "x (P,), y (M,) of zeros and ones: x where it is allowed, else -1e8. [bits] false: M = P, y allows each."
    " true: M = 2 P, y allows 0 and 1 of each bit: x + 1e8 * (y_1 - y_0)",
    "max_pool2d": "x (C, H, W) -> (C, H', W'): the largest in windows of [kernel], moved by [stride], with [padding]"
    " that never wins; each (rows, columns)",
    "mean": "x ([groups] * A,) -> (A,): the mean over the groups, the outer axis",
    "mish": "x * tanh(log(1 + exp(x)))",
    "normalize": "(x - [mean]) / [scale], clipped to +-[clip], in float64",
    "one_hot": "integers () or (groups,) -> (sum of [sizes],): 1 at each one's place, counted from [start], else 0",
    "quantize": "(clip(round(x / [scale]) + [zero], [low], [high]) - [zero]) * [scale] in float32, round half to even;"
    " [scale] and [zero], whole numbers as float32, are one for all or one for each element (F,)",
    "relu": "max(x, 0)",
    "relu6": "min(max(x, 0), 6)",
    "rrelu": "x where x > 0, else 11 / 48 x",
    "repeat": "[value], the same for every x of the batch",
    "reshape": "x in the output's shape",
    "scale": "x / [divisor]",
    "slice": "x (F,): those from [start] up to but not [stop]",
    "selu": "1.0507009873554805 * (x where x > 0, else 1.6732632423543772 * (exp(x) - 1))",
    "sigmoid": "1 / (1 + exp(-x))",
    "silu": "x * sigmoid(x)",
    "softplus": "log(1 + exp(x))",
    "softshrink": "x - 0.5 where x > 0.5, x + 0.5 where x < -0.5, else 0",
    "softsign": "x / (1 + |x|)",
    "take": "x (F,) -> (K,): those at [places]",
    "tanh": "tanh(x)",
    "tanhshrink": "x - tanh(x)",
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
    """One operation of a kind in `KINDS`. `attrs` say how, `weights` are the numbers it brings along.

    `packed` says of some of the weights, by the same names, which levels they lie on: `weights` has the decoded ones.
    """

    kind: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    packed: Mapping[str, Packed] = field(default_factory=dict)

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
