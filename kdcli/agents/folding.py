"""Fewer operations for the same actions: what is done to observations, folded into the layers that read them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.packed_weights import is_quantized
from kdcli.agents.policy import Policy
from kdcli.networks.mlp import MLP
from kdcli.networks.rescale import can_rescale, rescaled
from kdcli.networks.stack import Stack

# Beyond this, raw observations are so far from zero beside their spread that float32 would lose what tells them apart.
_FURTHEST = 30.0
_BRIGHTEST = 255.0


def can_fold(agent: Agent) -> bool:
    """Whether what is done to observations is a plain scaling that the first layers can do.

    Never into weights that lie on few levels, nor before a grid: columns of different sizes would leave them.
    """
    return not is_quantized(agent.policy) and (_is_scaled(agent) or _is_image(agent))


def _is_scaled(agent: Agent) -> bool:
    """Whether the normalizer is a plain scaling: not clipped, not followed by anything, not far from zero."""
    norm = agent.preprocess.normalizer
    if norm is None or np.isfinite(norm.clip) or agent.preprocess.image:
        return False
    networks = (agent.policy.network, agent.policy.value)
    if not all(can_rescale(network) for network in networks if isinstance(network, Stack)):
        return False
    return bool((np.abs(norm.mean) <= _FURTHEST * norm.scale).all())


def _is_image(agent: Agent) -> bool:
    """Whether an image is all that is seen, divided by 255, and every network begins with layers of weights."""
    sees = agent.preprocess
    if not isinstance(sees, Preprocess) or not sees.image or sees.normalizer is not None:
        return False
    return all(layer is not None for layer in _first_layers(agent.policy))


def _first_layers(policy: Policy) -> Iterator[nn.Linear | nn.Conv2d | None]:
    """The layers that read the features; None for what reads them in another way."""
    for network in (policy.network, policy.value):
        if isinstance(network, MLP):
            yield network.linears()[0]
        elif isinstance(network, Stack):
            for layers in network.branches:
                first = next((x for x in layers if not isinstance(x, nn.Flatten)), None)  # type: ignore[attr-defined]
                yield first if isinstance(first, nn.Linear | nn.Conv2d) else None


def deployed(agent: Agent) -> Agent:
    """The agent as it is shipped: folded where it can be."""
    return fold(agent) if can_fold(agent) else agent


def fold(agent: Agent) -> Agent:
    """A new agent that acts alike and reads raw observations: w (x - mean) / scale + b = (w / scale) x + b'."""
    policy, preprocess = copy.deepcopy(agent.policy), agent.preprocess
    assert isinstance(preprocess, Preprocess)
    policy.critics = nn.ModuleList()  # they read features that are not there any more, and ship with nobody
    norm = preprocess.normalizer
    if norm is None:
        for layer in _first_layers(policy):
            assert layer is not None
            layer.weight = nn.Parameter((layer.weight.detach().double() / _BRIGHTEST).float(), requires_grad=False)
        return replace(agent, preprocess=replace(preprocess, image=False), policy=policy)
    policy.network = _folded(policy.network, norm)
    policy.value = policy.value if policy.value is None else _folded(policy.value, norm)
    return replace(agent, preprocess=replace(preprocess, normalizer=None), policy=policy)


def _folded(network: nn.Module, norm: Normalizer) -> Any:
    """A network that reads what is not normalized; a head on another network is left as it is."""
    mean, scale = (torch.from_numpy(part.reshape(-1)) for part in (norm.mean, norm.scale))
    if isinstance(network, Stack):
        return rescaled(network, 1 / scale, -mean / scale)
    if isinstance(network, MLP):
        first = network.linears()[0]
        weight = first.weight.detach().double() / scale
        bias = -weight @ mean + (0.0 if first.bias is None else first.bias.detach().double())
        first.weight, first.bias = (nn.Parameter(t.float(), requires_grad=False) for t in (weight, bias))
    return network
