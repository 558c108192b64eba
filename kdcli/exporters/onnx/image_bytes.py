"""Images that are bytes already: where a grid of 256 codes is that of the bytes, no float is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdcli.graph.operations import Graph, Op


@dataclass(frozen=True)
class Bytes:
    """An input (B, *shape) of bytes that are the codes of a grid; `turned`: with the channels last."""

    source: str
    turned: bool


def bytes_of(graph: Graph, grids: Mapping[str, np.ndarray]) -> tuple[dict[str, Bytes], set[str]]:
    """Grids whose codes are bytes of an input, and the values on the way that nobody reads then."""
    made = {port.name: op for op in graph.ops for port in op.outputs}
    readers = [port.name for op in graph.ops for port in op.inputs] + [port.name for port in graph.outputs]
    found, idle = dict[str, Bytes](), set[str]()
    for op in graph.ops:
        if op.kind == "quantize" and op.out.name in grids:
            way = _way(op, made)
            if way and all(readers.count(step.out.name) == 1 for step in way) and _same(op, way[0]):
                kinds = [step.kind for step in way]
                found[op.out.name] = Bytes(way[-1].inputs[0].name, "channels_first" in kinds)
                idle |= {step.out.name for step in way}
    return found, idle


def _way(op: Op, made: Mapping[str, Op]) -> list[Op]:
    """Scaling, reordering and cast that lead from bytes to the grid, the last first; none where it is otherwise."""
    way: list[Op] = []
    for kinds in (("scale",), ("channels_first", "cast"), ("cast",)):
        if way and way[-1].kind == "cast":
            break
        before = made.get((way[-1] if way else op).inputs[0].name)
        if before is None or before.kind not in kinds:
            return []
        way.append(before)
    return way if way[-1].inputs[0].dtype == "uint8" else []


def _same(op: Op, scaling: Op) -> bool:
    """Whether each byte is its own code."""
    values = np.arange(256, dtype=np.float32) / np.float32(scaling.attrs["divisor"])
    codes = np.round(values / op.weights["scale"]) + op.weights["zero"]
    return (op.attrs["low"], op.attrs["high"]) == (0, 255) and bool((codes == np.arange(256)).all())
