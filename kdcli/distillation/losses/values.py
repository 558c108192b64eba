"""Losses between values: of states, and of actions in states; units are those of what they are given.

The objective gives them units of the teacher's own variation, see `distillation.units`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, groups, need, scores


def _both(name: str, student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    return need(student, name, "student"), need(teacher, name, "teacher")


@loss(reads=("q",), of="choices", q_outputs=True, unit="q")
def q(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared error of the Q-values, averaged over A -> (B,)."""
    return F.mse_loss(*_both("q", student, teacher), reduction="none").mean(1)


@loss(reads=("q",), of="choices", q_outputs=True, unit="q")
def q_huber(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of the Q-values (delta 1), averaged over A -> (B,)."""
    return F.huber_loss(*_both("q", student, teacher), reduction="none").mean(1)


@loss(reads=("value",), critic=True, unit="value")
def value(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared error of the state value -> (B,)."""
    return F.mse_loss(*_both("value", student, teacher), reduction="none")


@loss(reads=("value",), critic=True, unit="value")
def value_l1(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Absolute error of the state value -> (B,): rare large errors weigh less."""
    return F.l1_loss(*_both("value", student, teacher), reduction="none")


@loss(reads=("q",), of="choices", unit="q")
def regret(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """What the student's choice is expected to cost by the teacher's Q-values -> (B,).

    sum_a pi(a) (max Q - Q_a), 0 for a student that is sure of the best action: reinforcement by the teacher's own
    critic. Ross and Bagnell 2014 (AggreVaTe), section 2.
    """
    values, ours = groups(need(teacher, "q", "teacher"), teacher), groups(scores(student, "student"), teacher)
    costs = [(p.softmax(1) * (q.amax(1, keepdim=True) - q)).sum(1) for p, q in zip(ours, values, strict=True)]
    return torch.stack(costs).sum(0)
