"""Fewer operations for the same actions: a normalizer folded into the layers that read it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.packing import is_quantized
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.networks.units import in_units, takes_units

# Beyond this, raw observations are so far from zero beside their spread that float32 would lose what tells them apart.
_FURTHEST = 30.0


def can_fold(agent: Agent) -> bool:
    """Whether the normalizer is a plain scaling: not clipped, not followed by anything, not far from zero.

    Never into weights that lie on few levels, nor before a grid: columns of different sizes would leave them.
    """
    if is_quantized(agent.policy):
        return False
    norm = agent.preprocess.normalizer
    if norm is None or np.isfinite(norm.clip) or agent.preprocess.image:
        return False
    networks = (agent.policy.network, agent.policy.value)
    if not all(takes_units(network) for network in networks if isinstance(network, Stack)):
        return False
    return bool((np.abs(norm.mean) <= _FURTHEST * norm.scale).all())


def deployed(agent: Agent) -> Agent:
    """The agent as it is shipped: folded where it can be."""
    return fold(agent) if can_fold(agent) else agent


def fold(agent: Agent) -> Agent:
    """A new agent that acts alike and reads raw observations: w (x - mean) / scale + b = (w / scale) x + b'."""
    policy, preprocess = copy.deepcopy(agent.policy), agent.preprocess
    assert isinstance(preprocess, Preprocess)
    norm = preprocess.normalizer
    assert norm is not None
    policy.network = _folded(policy.network, norm)
    policy.value = policy.value if policy.value is None else _folded(policy.value, norm)
    return replace(agent, preprocess=replace(preprocess, normalizer=None), policy=policy)


def _folded(network: nn.Module, norm: Normalizer) -> Any:
    """A network that reads what is not normalized; a head on another network is left as it is."""
    mean, scale = (torch.from_numpy(part.reshape(-1)) for part in (norm.mean, norm.scale))
    if isinstance(network, Stack):
        return in_units(network, 1 / scale, -mean / scale)
    if isinstance(network, MLP):
        first = network.linears()[0]
        weight = first.weight.detach().double() / scale
        bias = -weight @ mean + (0.0 if first.bias is None else first.bias.detach().double())
        first.weight, first.bias = (nn.Parameter(t.float(), requires_grad=False) for t in (weight, bias))
    return network
