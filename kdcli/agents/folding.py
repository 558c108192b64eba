"""Fewer operations for the same actions: a normalizer folded into the layers that read it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.packing import is_quantized
from kdcli.networks.mlp import MLP

# Beyond this, raw observations are so far from zero beside their spread that float32 would lose what tells them apart.
_FURTHEST = 30.0


def can_fold(agent: Agent) -> bool:
    """Whether the normalizer is a plain scaling: not clipped, not followed by anything, not far from zero.

    Never into weights that lie on few levels, nor before a grid: columns of different sizes would leave them.
    """
    if is_quantized(agent.policy):
        return False
    norm = agent.preprocess.normalizer
    if norm is None or np.isfinite(norm.clip) or agent.preprocess.image or not isinstance(agent.policy.network, MLP):
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
    for network in (policy.network, policy.value):
        if isinstance(network, MLP):
            _fold_into(network, norm)
    return replace(agent, preprocess=replace(preprocess, normalizer=None), policy=policy)


def _fold_into(network: MLP, norm: Normalizer) -> None:
    first = network.linears()[0]
    weight = first.weight.detach().double() / torch.from_numpy(norm.scale.reshape(-1))
    shift = -weight @ torch.from_numpy(norm.mean.reshape(-1))
    bias = shift if first.bias is None else first.bias.detach().double() + shift
    first.weight, first.bias = (nn.Parameter(t.float(), requires_grad=False) for t in (weight, bias))
