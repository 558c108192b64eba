"""What can be said about improving an agent before it begins."""

from __future__ import annotations

from kdcli.agents.agent import Agent
from kdcli.applies import Applies, given_fields, refuse_idle
from kdcli.errors import RefusedError, option
from kdcli.improvement.config import ImproveConfig
from kdcli.networks.activation_grid import GridLayer
from kdcli.networks.mlp import MLP

RULES: tuple[Applies[ImproveConfig], ...] = (
    Applies("judge_every", lambda c: c.generations > 1, "one generation is judged once", "give more generations"),
)


def check_improvement(config: ImproveConfig, agent: Agent | None = None) -> None:
    """Say all that can be said before work begins; more, once the agent is there.

    Raises:
        UsageError: an option would change nothing.
        RefusedError: the agent's network is no MLP, or quantized.
    """
    refuse_idle(given_fields(config), RULES, config)
    if agent is None:
        return
    if agent.policy.packing or any(isinstance(module, GridLayer) for module in agent.policy.modules()):
        raise RefusedError(
            f"{agent.name} is quantized", "its weights would leave their levels", "improve it, then quantize"
        )
    if not isinstance(agent.policy.network, MLP):
        why = f"weights are searched for in linear and MLP agents, this one is {agent.policy.network}"
        fix = f"distill it into one that is: {option('student', 'mlp:16')}"
        raise RefusedError(f"{agent.name} cannot be improved this way", why, fix)
