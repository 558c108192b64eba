"""Products between grids in integers: codes in, sums of 32 bits, codes out or what the decoding reads.

What is promised: each code is that of exact arithmetic on what the graph says, up to 2**-12 of a code for features and
2**-20 or so behind products. Where float32 has a sum on the other side of a half, and no two orders of a sum agree on
where it is, its code is the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from kdcli.exporters.c.fixed import encode, rescale
from kdcli.exporters.c.grids import Grid, Gridded, Late, Numbers, Scaled, Sums
from kdcli.exporters.c.matmul import BITS, Decoded, Product, Scored, product_of
from kdcli.exporters.c.rows import rows
from kdcli.exporters.c.values import ACTIVATIONS, Joined, Step, Value
from kdcli.graph.operations import Op, Port

_FLOATS = ("float32", "float64")


class Host(Protocol):
    """Where values lie, and the steps so far."""

    steps: list[Step]
    values: dict[str, Value | Joined | Late]

    def real(self, port: Port) -> Value:
        """The value as real numbers."""

    def each(self, op: Op) -> Value:
        """The output of an operation on each real number by itself."""


class Integers:
    """What can be done in integers, for a lowering that knows where values lie."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._numbers: dict[str, Numbers] = {}

    def take(self, op: Op) -> bool:
        """Whether the operation is left for later, in integers or not: its output is a `Late` now."""
        found = self._host.values[op.inputs[0].name]
        made = _TAKEN.get(op.kind, _none)(op, found)
        if made is None:
            return False
        self._host.values[op.out.name] = made
        return True

    def real(self, name: str, found: Late) -> Value:
        """The real numbers of a value called `name`."""
        if isinstance(found, Scaled):
            clip = {"clip": float(found.op.attrs["clip"])} if found.op.kind == "normalize" else {}
            return self._host.each(replace(found.op, attrs=clip))
        if isinstance(found, Sums):
            product = self._product(found)
            finish = Decoded(product.unit.astype(np.float32), product.bias32)
            return self._activated(name, found, product.done(self._host.steps, f"{name}.real", finish))
        source = self._host.values[found.op.inputs[0].name]
        if not isinstance(source, Sums):
            return self._host.each(found.op)
        numbers = self.numbers(found)
        y = replace(numbers.value, root=f"{name}.real", dtype="float32", start=0)
        self._host.steps.append(Step("whole_to_real", (numbers.value,), (y,), {"step": numbers.step}))
        return y

    def _activated(self, name: str, sums: Sums, value: Value) -> Value:
        if not sums.activation:
            return value
        y = replace(value, root=f"{name}.activated", zeros=sums.activation == "relu")
        self._host.steps.append(Step(sums.activation, (value,), (y,)))
        return y

    def numbers(self, found: Gridded) -> Numbers:
        """The whole numbers of a value on a grid, in memory."""
        name = found.op.out.name
        if name not in self._numbers:
            source, grid = self._host.values[found.op.inputs[0].name], found.grid
            value = self._of_sums(found, source) if isinstance(source, Sums) else None
            value = value or self._of_bytes(found, source) or self._of_floats(found, source) or self._of_reals(found)
            self._numbers[name] = Numbers(value, grid.step, grid.held)
        return self._numbers[name]

    def _of_sums(self, found: Gridded, sums: Sums) -> Value | None:
        if not found.grid.is_shared:
            return None
        product = self._product(sums)
        finish = product.finish(sums.activation, found.grid)
        name = f"{found.op.out.name}.codes"
        return product.done(self._host.steps, name, finish, found.grid.dtype) if finish else None

    def _of_bytes(self, found: Gridded, source: Any) -> Value | None:
        """Of an image's bytes: the bytes themselves where they are the numbers, else what a table says."""
        if not isinstance(source, Value) or not source.divisor or not found.grid.is_shared:
            return None
        grid, bytes_ = found.grid, np.arange(256, dtype=np.float32)
        real = bytes_ / np.float32(source.divisor) / found.op.weights["scale"].reshape(-1)[0]
        numbers = np.clip(np.round(real), grid.low.item(), grid.high.item())
        whole = replace(source, dtype="uint8", divisor=0.0)
        if np.array_equal(numbers, bytes_):
            return whole
        y = replace(whole, root=f"{found.op.out.name}.codes", start=0, dtype=grid.dtype)
        self._host.steps.append(Step("code_table", (whole,), (y,), weights={"table": numbers.astype(grid.dtype)}))
        return y

    def _of_floats(self, found: Gridded, source: Any) -> Value | None:
        """Of floats in memory, normalized on the way where they are to be, by their digits."""
        op, grid, one = found.op, found.grid, np.ones(())
        if not isinstance(source, Scaled):
            source = Scaled(op, self._host.real(op.inputs[0]), 0 * one, one, np.inf)
        steps, x = source.scale * grid.scale, source.x
        made = encode(1 / steps, source.mean / steps)
        if made is None or x.dtype not in ("float32", "float64"):
            return None
        bounds = np.round(np.minimum(source.clip / grid.scale, 1 << 30))
        weights = {
            "multiplier": made.multiplier,
            "shift": made.shift,
            "offset": made.offset,
            "low": np.maximum(grid.low, -bounds).astype(np.int32),
            "high": np.minimum(grid.high, bounds).astype(np.int32),
            **({} if grid.is_shared else {"fine": grid.scale / grid.step}),
        }
        ordered = {key: x.stored(w.ravel()) if w.size > 1 else w for key, w in weights.items()}
        y = Value(f"{op.out.name}.codes", x.size, grid.dtype, order=x.order)
        self._host.steps.append(Step("encode", (x,), (y,), {"up": made.up}, ordered))
        return y

    def _of_reals(self, found: Gridded) -> Value:
        """As the graph has it, in float32: where a mean is so far from zero that whole numbers would be too long."""
        op, grid = found.op, found.grid
        x = self._host.real(op.inputs[0])
        weights = {"scale": op.weights["scale"], "low": grid.low, "high": grid.high}
        if not grid.is_shared:
            weights["fine"] = grid.scale / grid.step
        ordered = {key: x.stored(w.ravel()) if w.size > 1 else w for key, w in weights.items()}
        y = Value(f"{op.out.name}.codes", x.size, grid.dtype, order=x.order)
        floats = {key: array.astype(np.float32) for key, array in ordered.items()}
        self._host.steps.append(Step("codes", (x,), (y,), weights=floats))
        return y

    def scores(self, port: Port) -> Value | None:
        """31-bit integers in the same order as the real numbers of a product; None where it is none."""
        found = self._host.values[port.name]
        if not isinstance(found, Sums) or found.activation:
            return None
        product = self._product(found)
        unit = max(product.reach / (1 << BITS), float(product.unit.min()) / (1 << BITS))
        made = rescale(product.unit / unit, product.bias / unit, product.most)
        return product.done(self._host.steps, f"{port.name}.scores", Scored(made), "int32") if made else None

    def _product(self, sums: Sums) -> Product:
        return product_of(self._host.steps, sums.op, self.numbers(sums.x))


Found = Value | Joined | Late


def _none(op: Op, found: Found) -> None:
    return None


def _quantize(op: Op, found: Found) -> Gridded:
    return Gridded(op, Grid.of(op))


def _multiply(op: Op, found: Found) -> Sums | None:
    packed = op.packed.get("weight")
    if not isinstance(found, Gridded) or packed is None or packed.half:
        return None
    if op.attrs.get("groups", 1) > 1 or (op.kind == "gemm" and len(op.out.shape) > 1):
        return None
    made = rows(packed, packed.codes.reshape(len(packed.codes), -1), found.grid.held)
    return Sums(op, found) if made is not None and made.most >> 62 == 0 else None


def _activate(op: Op, found: Found) -> Sums | None:
    return replace(found, activation=op.kind) if isinstance(found, Sums) and not found.activation else None


def _alias(op: Op, found: Found) -> Found | None:
    return found if isinstance(found, Gridded | Sums) else None


def _cast(op: Op, found: Found) -> Scaled | None:
    """From one float to the other: nothing to do but in real numbers."""
    if isinstance(found, Scaled) and op.out.dtype in _FLOATS:
        return replace(found, op=op)
    if not isinstance(found, Value) or found.divisor or not {found.dtype, op.out.dtype} <= {*_FLOATS}:
        return None
    return Scaled(op, found, np.zeros(()), np.ones(()), np.inf)


def _normalize(op: Op, found: Found) -> Scaled | None:
    clip = float(op.attrs["clip"])
    mean, scale = (op.weights[key].ravel() for key in ("mean", "scale"))
    if isinstance(found, Scaled) and found.op.kind == "cast":
        return Scaled(op, found.x, mean, scale, clip)
    return Scaled(op, found, mean, scale, clip) if isinstance(found, Value) and found.dtype == "float64" else None


_TAKEN: Mapping[str, Callable[[Op, Any], Found | None]] = {
    **dict.fromkeys(("flatten", "identity", "reshape"), _alias),
    **dict.fromkeys(ACTIVATIONS, _activate),
    "cast": _cast,
    "conv2d": _multiply,
    "gemm": _multiply,
    "normalize": _normalize,
    "quantize": _quantize,
}
