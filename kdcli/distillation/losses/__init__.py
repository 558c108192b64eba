"""Losses: two sets of heads in, one number a sample out (B,). No weight, mean or tau^2 here; the objective has those.

A loss of distributions is given by what the heads hold: choices (`choices`) or Gaussians (`actions`).
"""

from __future__ import annotations

from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses import actions, choices
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau

_DISTRIBUTION = ("logits", "q", "mean", "log_std")


def _is_gaussian(teacher: Heads) -> bool:
    return teacher.mean is not None and teacher.logits is None


@loss(reads=_DISTRIBUTION, tempered=True, rescaled=True)
def kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(teacher || student) at temperature tau, in nats -> (B,); of Gaussians, variances times tau."""
    return (actions.kl_gauss if _is_gaussian(teacher) else choices.kl)(student, teacher, tau)


@loss(reads=_DISTRIBUTION, tempered=True, rescaled=True)
def reverse_kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(student || teacher) at temperature tau, in nats -> (B,); of Gaussians, variances times tau."""
    return (actions.reverse_kl_gauss if _is_gaussian(teacher) else choices.reverse_kl)(student, teacher, tau)


@loss(reads=("choice", "mean"), spread=True)
def nll(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """-log of the student's probability, or density, of the teacher's greedy action, in nats -> (B,)."""
    return (actions.nll_gauss if _is_gaussian(teacher) else choices.nll)(student, teacher, tau)
