"""Where the numbers of a graph lie in memory, and the steps of a C function that works on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

CTYPES: Mapping[str, str] = {
    "float64": "double",
    "int64": "int64_t",
    "uint64": "uint64_t",
    "float32": "float",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
}


@dataclass(frozen=True, eq=False)
class Value:
    """Numbers in a row in the memory called `root`.

    Attributes:
        start: the first of them; other values may lie in the same memory.
        order: number i in memory is number order[i] of the value; None where they lie in their own order.
        zeros: whether many of them are 0, as after a ReLU.
        divisor: not 0 while the memory still holds bytes: the value is what lies there divided by this, float32.
    """

    root: str
    size: int
    dtype: str = "float32"
    start: int = 0
    order: np.ndarray | None = None
    zeros: bool = False
    divisor: float = 0.0

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Numbers that belong to the value's (..., size), in the order in which those lie in memory."""
        return array if self.order is None else array[..., self.order]


@dataclass(frozen=True, eq=False)
class Joined:
    """Values one after the other that lie apart, as long as nobody needs them side by side."""

    parts: tuple[Value, ...]

    def between(self, start: int, stop: int) -> tuple[Value, ...] | None:
        """The parts that lie between two places; None where one of them would be cut and has an order of its own."""
        found, at = [], 0
        for part in self.parts:
            a, b = max(start - at, 0), min(stop - at, part.size)
            if a < b:
                if (a, b) != (0, part.size) and (part.order is not None or part.divisor):
                    return None
                found.append(replace(part, start=part.start + a, size=b - a))
            at += part.size
        return tuple(found)


@dataclass(frozen=True, eq=False)
class Step:
    """One piece of the function: as an `Op`, with memory in place of ports, and `scratch` needed by it alone."""

    kind: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    scratch: tuple[Value, ...] = ()

    @property
    def x(self) -> Value:
        """The first input."""
        return self.inputs[0]

    @property
    def y(self) -> Value:
        """The first output."""
        return self.outputs[0]

    @property
    def is_in_place(self) -> bool:
        """Whether the output may take the place of the first input: each number follows from its own place alone."""
        return self.kind in ACTIVATIONS or self.kind in _IN_PLACE


_IN_PLACE = ("add", "clip", "dynamic_quantize", "layer_norm", "mask", "quantize", "scale", "threshold", "unscale")


def under_as(dtype: str) -> str:
    """What numbers under a window are kept as. Without instructions for products of bytes, those of 16 bits are twice
    as fast.
    """
    return "int16" if dtype in ("int8", "uint8") else dtype


ACTIVATIONS = (
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
)
