"""From operations on named values to steps on memory: what only renames, reshapes or reorders numbers costs nothing.

Images are kept channels innermost, so that a convolution adds up whole rows of weights; the weights of the layer behind
are put in that order once, here. Bytes are made real numbers where they are first multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kdcli.exporters.c.grids import Late
from kdcli.exporters.c.integers import Integers
from kdcli.exporters.c.lower_images import conv2d, max_pool2d
from kdcli.exporters.c.matmul import real_product
from kdcli.exporters.c.values import ACTIVATIONS, Joined, Step, Value
from kdcli.exporters.c.windows import tidy
from kdcli.graph.operations import Graph, Op, Port

# From here on a product looks for zeros first: below, the matrix is in the cache and the search costs more.
MANY_WEIGHTS = 1 << 14


def lower(graph: Graph) -> list[Step]:
    """The steps of the graph, the last of them giving its outputs to the caller.

    The roots of the graph's inputs are their names.
    """
    lowering = Lowering(graph)
    for op in graph.ops:
        lowering.add(op)
    lowering.end(graph.outputs)
    return lowering.steps


class Lowering:
    """The steps so far, and where each value of the graph lies."""

    def __init__(self, graph: Graph) -> None:
        self.steps: list[Step] = []
        self.values: dict[str, Value | Joined | Late] = {
            port.name: Value(port.name, port.size, port.dtype) for port in graph.inputs
        }
        self._real: dict[tuple[str, int, int, float], Value] = {}
        self._joined: dict[int, Value] = {}
        self._settled: dict[str, Value] = {}
        self._integers = Integers(self)

    def add(self, op: Op) -> None:
        """Lower one operation."""
        if not self._integers.take(op):
            _LOWERINGS.get(op.kind, Lowering.plainly)(self, op)

    def end(self, ports: tuple[Port, ...]) -> None:
        """Copy the outputs to the caller, after all else, so that they may be where the inputs are."""
        found = {port.name: self.logical(port) for port in ports}
        self.steps += [Step("give", (value,), (), {"port": name}) for name, value in found.items()]

    def emit(self, op: Op, inputs: tuple[Value, ...], *, zeros: bool = False, **details: Any) -> None:
        """Add a step of the operation's kind; its outputs have memory of their own, in their own order."""
        outputs = tuple(Value(port.name, port.size, port.dtype, zeros=zeros) for port in op.outputs)
        self.keep(Step(op.kind, inputs, outputs, **{"attrs": op.attrs, "weights": op.weights, **details}), op)

    def keep(self, step: Step, op: Op) -> None:
        """Add a step that gives the operation's outputs."""
        self.steps.append(step)
        self.values.update({port.name: value for port, value in zip(op.outputs, step.outputs, strict=True)})

    def real(self, port: Port) -> Value:
        """The value side by side in memory, in its own dtype, in whatever order."""
        found = self.lies(port)
        return self._divided(self._join(found, port.name) if isinstance(found, Joined) else found)

    def lies(self, port: Port) -> Value | Joined:
        """Where the real numbers of the value are; computed now if they were left for later."""
        found = self.values[port.name]
        if not isinstance(found, Late):
            return found
        if port.name not in self._settled:
            self._settled[port.name] = self._integers.real(port.name, found)
        return self._settled[port.name]

    def logical(self, port: Port) -> Value:
        """As `real`, in its own order."""
        value = self.real(port)
        if value.order is None:
            return value
        sorted_ = Value(f"{port.name}.sorted", value.size, value.dtype)
        self.steps.append(Step("take", (value,), (sorted_,), {"places": np.argsort(value.order)}))
        self.lay(port, sorted_)
        return sorted_

    def lay(self, port: Port, value: Value) -> None:
        """The real numbers of a value are here from now on."""
        (self._settled if port.name in self._settled else self.values)[port.name] = value

    def scratch(self, op: Op, name: str, size: int, dtype: str = "float32") -> Value:
        """Memory for one step of the operation."""
        return Value(f"{op.outputs[0].name}.{name}", size, dtype)

    def plainly(self, op: Op) -> None:
        """An operation whose inputs lie in their own order."""
        self.emit(op, tuple(self.logical(port) for port in op.inputs), zeros=op.kind == "one_hot")

    def _join(self, joined: Joined, name: str) -> Value:
        if id(joined) not in self._joined:
            parts = tuple(self._divided(part) for part in joined.parts)
            made = Value(f"{name}.joined", sum(part.size for part in parts), parts[0].dtype)
            self.steps.append(Step("concat", parts, (made,)))
            whole = replace(made, order=_side_by_side(parts), zeros=all(part.zeros for part in parts))
            self._joined[id(joined)] = whole
        return self._joined[id(joined)]

    def _divided(self, value: Value) -> Value:
        if not value.divisor:
            return value
        key = value.root, value.start, value.size, value.divisor
        if key not in self._real:
            made = Value(".".join(map(str, key)), value.size)
            whole = Value(value.root, value.size, "uint8", value.start)
            self.steps.append(Step("pixels", (whole,), (made,), {"divisor": value.divisor}))
            self._real[key] = made
        return replace(self._real[key], order=value.order)

    # One function a kind of operation that does not simply become one step.

    def _alias(self, op: Op) -> None:
        self.values[op.out.name] = self.values[op.inputs[0].name]

    def _channels_first(self, op: Op) -> None:
        (x,), shape = op.inputs, op.inputs[0].shape
        found = self.lies(x)
        value = self.real(x) if isinstance(found, Joined) else found
        places = np.empty(x.size, np.int64)
        places[np.arange(x.size).reshape(shape).transpose(2, 0, 1).ravel()] = np.arange(x.size)
        self.values[op.out.name] = replace(value, order=tidy(value.stored(places)))

    def _concat(self, op: Op) -> None:
        found = [self.lies(port) for port in op.inputs]
        parts = [part for value in found for part in (value.parts if isinstance(value, Joined) else (value,))]
        self.values[op.out.name] = Joined(tuple(parts))

    def _slice(self, op: Op) -> None:
        (x,), start, stop = op.inputs, op.attrs["start"], op.attrs["stop"]
        found = self.lies(x)
        parts = found.between(start, stop) if isinstance(found, Joined) else None
        if parts:
            self.values[op.out.name] = parts[0] if len(parts) == 1 else Joined(parts)
        else:
            value = self.logical(x)
            self.values[op.out.name] = replace(value, start=value.start + start, size=stop - start)

    def _take(self, op: Op) -> None:
        x = self.logical(op.inputs[0])
        self.emit(op, (x,), attrs={"places": np.array(op.attrs["places"])})

    def _cast(self, op: Op) -> None:
        (x,), dtype = op.inputs, op.out.dtype
        found = self.lies(x)
        if isinstance(found, Value) and (found.dtype, dtype) == ("uint8", "float32"):
            self.values[op.out.name] = replace(found, dtype="float32", divisor=1.0)
        else:
            self._each(op)

    def _scale(self, op: Op) -> None:
        found = self.lies(op.inputs[0])
        if isinstance(found, Value) and found.divisor == 1.0:
            self.values[op.out.name] = replace(found, divisor=float(op.attrs["divisor"]))
        else:
            self._each(op)

    def _each(self, op: Op) -> None:
        self.values[op.out.name] = self.each(op)

    def each(self, op: Op) -> Value:
        """An operation on each number by itself: any order will do, and weights follow it. Returns its output."""
        x = self.real(op.inputs[0])
        y = Value(op.out.name, op.out.size, op.out.dtype, order=x.order, zeros=op.kind == "relu")
        self.steps.append(Step(op.kind, (x,), (y,), op.attrs, _follow(x, op.weights)))
        return y

    def _choose(self, op: Op) -> None:
        """The largest of products in integers, where they are there."""
        scores = self._integers.scores(op.inputs[0])
        self.emit(op, (self.logical(op.inputs[0]) if scores is None else scores,))

    def _normalize(self, op: Op) -> None:
        self._each(replace(op, attrs={"clip": float(op.attrs["clip"])}))

    def _add(self, op: Op) -> None:
        x, y = (self.real(port) for port in op.inputs)
        if not _in_one_order(x, y):
            x, y = (self.logical(port) for port in op.inputs)
        self.keep(Step("add", (x, y), (Value(op.out.name, op.out.size, op.out.dtype, order=x.order),)), op)

    def _attention(self, op: Op) -> None:
        inputs = tuple(self.logical(port) for port in op.inputs)
        (m, width), n = op.out.shape, op.inputs[1].shape[0]
        attrs = {"heads": op.attrs["heads"], "m": m, "n": n, "width": width}
        self.emit(op, inputs, attrs=attrs, scratch=(self.scratch(op, "scores", n),))

    def _layer_norm(self, op: Op) -> None:
        if len(op.out.shape) == 1:
            self._each(op)
        else:
            self.plainly(op)

    def _gemm(self, op: Op) -> None:
        weight = op.weights["weight"]
        if len(op.out.shape) > 1:
            self.emit(op, (self.logical(op.inputs[0]),), weights={**op.weights, "weight": weight.T})
            return
        x = self.real(op.inputs[0])
        packed = real_product(self.steps, op, x) if "weight" in op.packed else None
        if packed is not None:
            self.values[op.out.name] = packed
            return
        weights = {**op.weights, "weight": x.stored(weight).T}
        self.emit(op, (x,), weights=weights, scratch=self._search(op, x, weight.size))

    def _search(self, op: Op, x: Value, n_weights: int) -> tuple[Value, ...]:
        """Memory for what is not zero in x and where it is, if a product with so many weights should look for that."""
        if not x.zeros or n_weights < MANY_WEIGHTS:
            return ()
        return self.scratch(op, "values", x.size), self.scratch(op, "places", x.size, "int32")

    def _gsde(self, op: Op) -> None:
        x = self.logical(op.inputs[0])
        self.emit(op, (x,), scratch=(self.scratch(op, "squares", x.size),))

    def _expectation(self, op: Op) -> None:
        x = self.logical(op.inputs[0])
        self.emit(op, (x,), scratch=(self.scratch(op, "powers", x.size),))

    def _cell(self, op: Op) -> None:
        """A GRU or LSTM cell; both have four sums a unit."""
        x, *state = self.real(op.inputs[0]), *(self.logical(port) for port in op.inputs[1:])
        weights = {**op.weights, "weight_ih": x.stored(op.weights["weight_ih"])}
        sums = self.scratch(op, "gates", 4 * op.outputs[0].size)
        scratch = (sums, *self._search(op, x, op.weights["weight_ih"].size))
        self.emit(op, (x, *state), weights=weights, scratch=scratch)


def _in_one_order(x: Value, y: Value) -> bool:
    if x.order is None or y.order is None:
        return x.order is y.order
    return np.array_equal(x.order, y.order)


def _side_by_side(parts: tuple[Value, ...]) -> np.ndarray | None:
    if all(part.order is None for part in parts):
        return None
    starts = np.cumsum([0, *(part.size for part in parts)])
    orders = (np.arange(part.size) if part.order is None else part.order for part in parts)
    return np.concatenate([start + order for start, order in zip(starts, orders, strict=False)])


def _follow(x: Value, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights, one number or one for each element, in the order of x."""
    return {key: x.stored(array.ravel()) if array.size > 1 else array for key, array in weights.items()}


_EACH = (*ACTIVATIONS, "clip", "dynamic_quantize", "unscale")  # of all numbers in any order

_LOWERINGS: Mapping[str, Callable[[Lowering, Op], None]] = {
    **dict.fromkeys(("flatten", "identity", "reshape"), Lowering._alias),
    **dict.fromkeys(_EACH, Lowering._each),
    "add": Lowering._add,
    **dict.fromkeys(("argmax", "group_argmax"), Lowering._choose),
    "attention": Lowering._attention,
    "cast": Lowering._cast,
    "channels_first": Lowering._channels_first,
    "concat": Lowering._concat,
    "conv2d": conv2d,
    "gemm": Lowering._gemm,
    "gru_cell": Lowering._cell,
    "expectation": Lowering._expectation,
    "gsde": Lowering._gsde,
    "layer_norm": Lowering._layer_norm,
    "lstm_cell": Lowering._cell,
    "max_pool2d": max_pool2d,
    "normalize": Lowering._normalize,
    "scale": Lowering._scale,
    "slice": Lowering._slice,
    "take": Lowering._take,
}
