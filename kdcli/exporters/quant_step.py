"""How much an output changes where two programs round an activation to neighbouring codes of its grid."""

from __future__ import annotations

import numpy as np

from kdcli.graph.operations import Graph, Op

# Sums in another order differ in their last bits; where a half lies between them, the codes differ by one. A code of an
# early grid moves several of the next: on policies of three layers the outputs were seen to move by up to four steps.
STEPS = 4
_SAME = ("flatten", "identity", "max_pool2d", "reshape")


def grid_step(graph: Graph) -> float:
    """What four steps of the last grid change at most, each of them one output; 0 where activations lie on none."""
    grids: dict[str, float] = {}
    found = 0.0
    for op in graph.ops:
        if op.kind == "quantize":
            grids[op.out.name] = float(op.weights["scale"].max())
        elif op.kind in _SAME and op.inputs[0].name in grids:
            grids[op.out.name] = grids[op.inputs[0].name]
        elif op.kind in ("conv2d", "gemm") and op.inputs[0].name in grids:
            found = STEPS * grids[op.inputs[0].name] * _largest(op)
    return found


def _largest(op: Op) -> float:
    return float(np.abs(op.weights["weight"]).max())
