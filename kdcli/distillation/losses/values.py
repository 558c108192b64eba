"""Losses between values: of states, and of actions in states."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.reading import Tau, need


def _both(name: str, student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    return need(student, name, "student"), need(teacher, name, "teacher")


def q(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared error of the Q-values, averaged over A -> (B,), in squared units of return."""
    return F.mse_loss(*_both("q", student, teacher), reduction="none").mean(1)


def q_huber(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of the Q-values (delta 1), averaged over A -> (B,)."""
    return F.huber_loss(*_both("q", student, teacher), reduction="none").mean(1)


def value(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared error of the state value -> (B,), in squared units of return."""
    return F.mse_loss(*_both("value", student, teacher), reduction="none")


def value_l1(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Absolute error of the state value -> (B,), in units of return: rare large errors weigh less."""
    return F.l1_loss(*_both("value", student, teacher), reduction="none")
