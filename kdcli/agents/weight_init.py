"""A student agent that begins with its teacher's layers, also where the two see the world in other units."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Network, Policy
from kdcli.errors import UsageError
from kdcli.networks.rescale import rescaled
from kdcli.networks.surgery import as_stack, built, like, tensors_of
from kdcli.networks.weight_init import transfer_weights


def init_from_teacher(student: Agent, teacher: Agent) -> Agent:
    """A new student with the layers that its network has in common with the teacher's, see `networks.inherit`.

    Where their normalizers differ, the layers that read features are scaled so that they get what the teacher's got,
    clips aside. Quantiles of a teacher's Q-values become their mean.

    Raises:
        UsageError: they have no layer in common, or do not see the same things.
    """
    network = transfer_weights(student.policy.network, _pooled(teacher.policy))
    scale, shift = _units(student, teacher)
    if (scale != 1).any() or (shift != 0).any():
        network = rescaled(network, torch.from_numpy(scale), torch.from_numpy(shift))
    policy = copy.deepcopy(student.policy)
    policy.network = network
    return replace(student, policy=policy)


def _pooled(policy: Policy) -> Network:
    """The network, its quantiles averaged: the mean of linear outputs is that of their weights."""
    network, n = policy.network, policy.quantiles
    if not n:
        return network
    stack = as_stack(network)
    tensors = {
        key: tensor.unflatten(0, (n, -1)).mean(0) if key.startswith("head.") else tensor
        for key, tensor in tensors_of(stack).items()
    }
    return like(built({**stack.config(), "outputs": stack.outputs // n}, tensors), network)


def _units(student: Agent, teacher: Agent) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift (F,) from the student's features to the teacher's."""
    ours, theirs = student.preprocess.parts, teacher.preprocess.parts
    pairs = [(part, theirs.get(name)) for name, part in ours.items()]
    if len(ours) != len(theirs) or not all(other and _alike(part, other) for part, other in pairs):
        raise UsageError(
            "the student cannot begin with its teacher's layers", "the two do not see the same things", "see them alike"
        )
    moved = [_moved(part, other) for part, other in pairs if other]
    scale, shift = (np.concatenate([pair[i] for pair in moved]) for i in range(2))
    n_seen = student.policy.network.inputs  # the mask comes after
    return scale[:n_seen], shift[:n_seen]


def _alike(one: Preprocess, other: Preprocess) -> bool:
    """Whether both read the same numbers, in whatever units."""
    ways = [(part.space.shape, part.n_features, part.image, part.channels_last, part.columns) for part in (one, other)]
    return ways[0] == ways[1]


def _moved(ours: Preprocess, theirs: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """(x - m') / s' as a (x - m) / s + b: a = s / s', b = (m - m') / s'."""
    (mean, scale), (other_mean, other_scale) = _moments(ours), _moments(theirs)
    return scale / other_scale, (mean - other_mean) / other_scale


def _moments(part: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """What is taken away from the features, and what they are divided by, (F,)."""
    norm = part.normalizer
    if norm is None:
        return np.zeros(part.n_features), np.ones(part.n_features)
    turned = part.channels_last and part.columns is None
    mean, scale = (np.moveaxis(a, -1, 0) if turned else a for a in (norm.mean, norm.scale))
    return mean.reshape(-1), scale.reshape(-1)
