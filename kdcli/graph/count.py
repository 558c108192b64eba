"""What a graph costs: counted from its operations, so that every format of one policy has the same numbers."""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.graph.operations import Graph


@dataclass(frozen=True)
class Count:
    """Numbers in a graph.

    Attributes:
        n_params: weights and biases of the matrix products, what training chose.
        n_constants: every other number the file carries: normalizer, action bounds, a constant log standard deviation.
        multiply_adds: of the matrix products, for one observation.
    """

    n_params: int
    n_constants: int
    multiply_adds: int


def count(graph: Graph) -> Count:
    """Count the operations of a graph."""
    gemms = [op for op in graph.ops if op.kind == "gemm"]
    others = [op for op in graph.ops if op.kind != "gemm"]
    return Count(
        n_params=sum(array.size for op in gemms for array in op.weights.values()),
        n_constants=sum(array.size for op in others for array in op.weights.values()),
        multiply_adds=sum(op.weights["weight"].size for op in gemms),
    )
