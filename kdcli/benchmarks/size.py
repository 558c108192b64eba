"""How large the deployed actor is. Critics do not act and are counted apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdcli.agents.folding import deployed
from kdcli.benchmarks.entry import BenchEntry
from kdcli.graph.count import count
from kdcli.graph.trace import trace


@dataclass(frozen=True)
class Size:
    """Numbers in the policy that acts.

    Attributes:
        params: weights and biases of the matrix products.
        constants: other numbers it carries: normalizer, action bounds.
        multiply_adds: of the matrix products, for one observation.
        total_params: of the checkpoint it comes from, critics and target networks included; None if not known.
        onnx_bytes: length of the ONNX file that acts; None without one.
    """

    params: int
    constants: int
    multiply_adds: int
    total_params: int | None = None
    onnx_bytes: int | None = None


def measure(entry: BenchEntry) -> Size:
    """Count one contender: in its ONNX file where there is one, else in the agent's graph."""
    agent, exported = entry.agent, entry.exported
    if exported is not None:
        facts = agent.facts if agent is not None else exported.record["facts"]
        counts = exported.n_params, exported.n_constants, exported.multiply_adds
        return Size(*counts, _total(facts), exported.size_bytes)
    assert agent is not None
    found = count(trace(deployed(agent)))
    return Size(found.n_params, found.n_constants, found.multiply_adds, _total(agent.facts))


def _total(facts: Mapping[str, Any]) -> int | None:
    total = facts.get("total_params")
    return total if isinstance(total, int) else None
