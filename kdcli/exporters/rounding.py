"""Weights rounded to half precision, and what that changes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.agents.agreement import agreement
from kdcli.agents.states import States, actions
from kdcli.errors import UsageError


def rounded(agent: Agent) -> Agent:
    """The agent with the weights of its layers rounded to float16, and computing in float32 as before.

    Raises:
        UsageError: a weight is too large for float16.
    """
    policy = copy.deepcopy(agent.policy)
    for network in (policy.network, policy.value):
        for parameter in network.parameters() if network is not None else ():
            parameter.data = parameter.data.half().float()
    if not all(torch.isfinite(parameter).all() for parameter in policy.parameters()):
        raise UsageError(f"{agent.name} cannot be written in fp16", "a weight is above 65504", "leave --precision out")
    return replace(agent, policy=policy)


def compared(agent: Agent, other: Agent, states: States) -> dict[str, Any]:
    """How alike the two act on the states: `agreement` as in `kdcli.agents.agreement`, and the largest difference."""
    ours, theirs = actions(other, states), actions(agent, states)
    gap = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return {"agreement": agreement(ours, theirs, agent.action), "max_abs_difference": float(gap.max())}
