"""Operations as they are added, until they are a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from kdcli.graph.operations import Graph, Op, Port
from kdcli.networks.packed_weights import Packed

Shape = tuple[int, ...]


class GraphBuilder:
    """Operations as they are added; values are named after their kind, in order."""

    def __init__(self, packing: Mapping[int, Packed] | None = None) -> None:
        """`packing`: which levels a tensor lies on, by its identity."""
        self.ops: list[Op] = []
        self._packing = packing or {}
        self._seen: Counter[str] = Counter()

    def add(self, kind: str, x: Port | Sequence[Port], shape: Shape | None = None, dtype: str = "", **d: Any) -> Port:
        """Add one operation on `x`; arrays and tensors in `d` are its weights, the rest its attributes, None nothing.

        Returns the output, of the shape and dtype of the first input where none are given.
        """
        inputs = (x,) if isinstance(x, Port) else tuple(x)
        out = Port(self._name(kind), inputs[0].shape if shape is None else shape, dtype or inputs[0].dtype)
        self._append(kind, inputs, (out,), d)
        return out

    def add_pair(self, kind: str, inputs: Sequence[Port], shape: Shape, **d: Any) -> tuple[Port, Port]:
        """As `add`, for an operation with two outputs of the same shape."""
        name = self._name(kind)
        out = Port(f"{name}_h", shape), Port(f"{name}_c", shape)
        self._append(kind, tuple(inputs), out, d)
        return out

    def _name(self, kind: str) -> str:
        name, self._seen[kind] = f"{kind}_{self._seen[kind]}", self._seen[kind] + 1
        return name

    def _append(self, kind: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...], d: dict[str, Any]) -> None:
        weights = {key: _numbers(value) for key, value in d.items() if isinstance(value, np.ndarray | Tensor)}
        attrs = {key: value for key, value in d.items() if key not in weights and value is not None}
        packed = {key: self._packing[id(d[key])] for key in weights if id(d[key]) in self._packing}
        self.ops.append(Op(kind, inputs, outputs, attrs, weights, packed))

    def cast(self, x: Port, dtype: str) -> Port:
        """`x` in `dtype`; nothing to do where it is already."""
        return x if x.dtype == dtype else self.add("cast", x, dtype=dtype)

    def reshape(self, x: Port, shape: Shape) -> Port:
        """`x` in `shape`; nothing to do where it is already."""
        return x if x.shape == shape else self.add("reshape", x, shape)

    def flat(self, x: Port) -> Port:
        """`x` as (F,); nothing to do where it is already."""
        return x if len(x.shape) == 1 else self.add("flatten", x, (x.size,))

    def slice(self, x: Port, start: int, stop: int) -> Port:
        """Part of `x` (F,); nothing to do for the whole."""
        return x if (start, stop) == (0, x.size) else self.add("slice", x, (stop - start,), start=start, stop=stop)

    def concat(self, xs: Sequence[Port]) -> Port:
        """All of `xs` flat, one after the other; nothing to do for one."""
        flat = [self.flat(x) for x in xs]
        return flat[0] if len(flat) == 1 else self.add("concat", flat, (sum(x.size for x in flat),))

    def graph(self, inputs: tuple[Port, ...], outputs: dict[str, Port]) -> Graph:
        """The finished graph, its outputs renamed to the names they are asked by."""
        taken = {port.name: port for port in inputs}
        for name, port in outputs.items():
            source = self.add("identity", port) if port.name in taken else port
            taken[source.name] = replace(source, name=name)
        ops = tuple(
            replace(op, inputs=_renamed(op.inputs, taken), outputs=_renamed(op.outputs, taken)) for op in self.ops
        )
        return Graph(inputs, ops, tuple(taken.values())[len(inputs) :])


def _renamed(ports: tuple[Port, ...], names: dict[str, Port]) -> tuple[Port, ...]:
    return tuple(names.get(port.name, port) for port in ports)


def _numbers(value: np.ndarray | Tensor) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else array(value)


def array(tensor: Tensor) -> np.ndarray:
    """A copy, so that training goes on without changing the graph."""
    return np.array(tensor.detach().cpu().numpy())
