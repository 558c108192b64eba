"""What an agent may cost: `params<=2000`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kdcli.agents.agent import Agent
from kdcli.errors import UsageError
from kdcli.graph.count import count
from kdcli.graph.trace import trace
from kdcli.pruning import BUDGETS
from kdcli.pruning.structured import Measure

_BUDGET = re.compile(r"\s*([\w.:]+?)\s*<=\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*([kM]?)\s*")
_TIMES = {"": 1.0, "k": 1e3, "M": 1e6}


@dataclass(frozen=True)
class Budget:
    """A measure by name, how it is taken, and what it may come to."""

    name: str
    measure: Measure
    most: float

    @classmethod
    def parse(cls, text: str, others: Mapping[str, Measure] | None = None) -> Budget:
        """`params<=2000`, `macs<=10k`; `others` are measures that the caller takes, by name.

        Raises:
            UsageError: not a budget, or of a measure that is not known.
        """
        found, given = _BUDGET.fullmatch(text), others or {}
        if found is None:
            raise UsageError(f"cannot read the budget {text!r}", "a measure, <= and a number", "e.g. params<=2000")
        name, most = found[1], float(found[2].replace(",", "").replace("_", "")) * _TIMES[found[3]]
        return cls(name, given[name] if name in given else BUDGETS.load(name), most)


def params(agent: Agent) -> float:
    """Weights and biases of the network that acts."""
    return agent.n_params


def macs(agent: Agent) -> float:
    """Multiply-adds of one decision."""
    return count(trace(agent)).multiply_adds


def nonzeros(agent: Agent) -> float:
    """Weights and biases that are not zero."""
    return sum(int(p.count_nonzero()) for p in agent.policy.network.parameters())
