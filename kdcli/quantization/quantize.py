"""The work of this room: an agent and a plan in, a quantized agent out."""

from __future__ import annotations

from collections.abc import Callable

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.quantization.plan import Plan
from kdcli.quantization.qat import prepare, settle

# Trains on the modules of an agent, fake-quantized ones included, and gives back the best it came to.
Recover = Callable[[Agent], Agent]


def quantize(agent: Agent, plan: Plan, states: States, recover: Recover | None = None) -> Agent:
    """A new agent on fewer bits: after training alone, or with `recover`, which trains it as it will be.

    `states` are what activations are calibrated on.

    Raises:
        UsageError: the agent is quantized already.
    """
    fake = prepare(agent, plan, states)
    return settle(fake if recover is None else recover(fake))
