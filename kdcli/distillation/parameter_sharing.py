"""Students of several tasks that share what lies between their input layers and their heads."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy
from kdcli.errors import UsageError, option


def share_trunk(students: Sequence[Agent]) -> tuple[Agent, ...]:
    """The same students with the trunk of the first: who trains one of them moves it for all.

    Each keeps its input layer (of a network with branches: those and the layer that joins them) and its head, so
    observations and actions may differ (Rusu et al. 2016, Policy Distillation, on multi-task agents).

    Raises:
        UsageError: their layers differ, or there are none between the first and the head.
    """
    return students[0], *(_joined(students[0].policy, student) for student in students[1:])


def _joined(first: Policy, student: Agent) -> Agent:
    """`student` with the shared layers of `first` in the place of its own."""
    policy = copy.deepcopy(student.policy)
    start = _start(policy.network.trunk)
    theirs, ours = (list(network.trunk)[start:] for network in (first.network, policy.network))
    if _shapes(theirs) != _shapes(ours) or start != _start(first.network.trunk):
        why = f"{first.network} and {policy.network}"
        raise UsageError("tasks share layers of one shape", why, f"name one {option('student')} for all")
    if not _shapes(ours):
        why = f"{policy.network} has none between its input layer and its head"
        raise UsageError("there are no layers to share", why, "give two hidden layers or more, e.g. mlp:32x32")
    policy.network.trunk = nn.ModuleList([*policy.network.trunk[:start], *theirs])
    return replace(student, policy=policy)


def _start(trunk: nn.ModuleList) -> int:
    """The first layer after the input layer, which is the first with weights."""
    weighty = [i for i, module in enumerate(trunk) if list(module.parameters())]
    return weighty[0] + 1 if weighty else len(trunk)


def _shapes(layers: Iterable[nn.Module]) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for layer in layers for p in layer.parameters()]


def shared_parameters(student: Agent) -> list[nn.Parameter]:
    """Weights and biases between the input layer and the head."""
    trunk = student.policy.network.trunk
    return [p for layer in list(trunk)[_start(trunk) :] for p in layer.parameters()]


def n_shared(students: Sequence[Agent]) -> int:
    """Weights and biases of all their networks, those that are shared counted once."""
    found = {id(p): p.numel() for student in students for p in student.policy.network.parameters()}
    return sum(found.values())


def copy_together(students: Sequence[Agent]) -> tuple[Agent, ...]:
    """The same students with weights of their own, which they share as before."""
    policies = copy.deepcopy([student.policy.eval() for student in students])
    return tuple(
        replace(student, policy=policy.requires_grad_(False))
        for student, policy in zip(students, policies, strict=True)
    )
