"""What a graph costs: counted from its operations, so that every format of one policy has the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from kdcli.graph.operations import Graph, Op


@dataclass(frozen=True)
class Count:
    """Numbers in a graph.

    Attributes:
        n_params: weights and biases of the layers, what training chose.
        n_constants: every other number the file carries: normalizer, action bounds, a constant log standard deviation.
        multiply_adds: of the matrix products, for one observation.
    """

    n_params: int
    n_constants: int
    multiply_adds: int


# What training chose stands in these.
LEARNED = frozenset({"conv2d", "gemm", "gru_cell", "layer_norm", "lstm_cell"})


def count(graph: Graph) -> Count:
    """Count the operations of a graph."""
    learned = [op for op in graph.ops if op.kind in LEARNED]
    others = [op for op in graph.ops if op.kind not in LEARNED]
    return Count(
        n_params=sum(array.size for op in learned for array in op.weights.values()),
        n_constants=sum(array.size for op in others for array in op.weights.values()),
        multiply_adds=sum(map(_multiply_adds, graph.ops)),
    )


def _multiply_adds(op: Op) -> int:
    """Of the matrix products alone: those of a layer are done at every place of its output, of an image or of rows."""
    if op.kind == "attention":
        q, k = op.inputs[:2]
        return 2 * q.size * k.shape[0]
    if op.kind not in LEARNED:
        return 0
    places = op.outputs[0].shape[1:] if op.kind == "conv2d" else op.outputs[0].shape[:-1]
    return prod(places) * sum(array.size for array in op.weights.values() if array.ndim > 1)
