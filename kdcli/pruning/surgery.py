"""Agents for surgery: networks in one form, nothing on few levels, other networks behind the same rule."""

from __future__ import annotations

from dataclasses import replace

from kdcli.agents.agent import Agent
from kdcli.agents.policy import Network, Policy
from kdcli.errors import UsageError
from kdcli.networks.activation_grid import GridLayer
from kdcli.networks.surgery import Tensors, as_stack, built, like, tensors_of

__all__ = ["Tensors", "as_stack", "built", "check_whole", "like", "tensors_of", "with_network"]


def check_whole(agent: Agent) -> None:
    """Raise UsageError for an agent whose numbers were put on few levels already."""
    if agent.policy.packing or any(isinstance(module, GridLayer) for module in agent.policy.modules()):
        why = "what is cut or folded then would leave its levels"
        raise UsageError(f"{agent.name} is quantized", why, "prune first, then quantize")


def with_network(agent: Agent, network: Network, quantiles: int | None = None) -> Agent:
    """The agent with another network behind the same rule, and no heads beside it."""
    old = agent.policy
    n = old.quantiles if quantiles is None else quantiles
    policy = Policy(network, old.rule, old.signal, quantiles=n, atoms=old.atoms)
    return replace(agent, policy=policy.eval().requires_grad_(False))
