"""Losses: two sets of heads in, one number a sample out (B,). No weight, mean or tau^2 here; the objective has those.

A loss of distributions is given by what the heads hold: choices (`choices`) or Gaussians (`actions`).
"""

from __future__ import annotations

from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses import actions, choices
from kdcli.distillation.losses.reading import Tau

# The losses whose gradient shrinks with tau^2, which the objective gives back (Hinton et al. 2015, section 2).
TEMPERED = frozenset({"kl", "reverse_kl", "js", "cross_entropy"})
_DISTRIBUTION = frozenset({"logits", "q", "mean", "log_std"})
# The teacher's heads that each loss reads; a foreign loss may read all.
READS: dict[str, frozenset[str]] = {
    "kl": _DISTRIBUTION,
    "reverse_kl": _DISTRIBUTION,
    "js": frozenset({"logits", "q"}),
    "cross_entropy": frozenset({"logits", "q"}),
    "softmax_q": frozenset({"q", "logits"}),
    "nll": frozenset({"choice", "mean"}),
    "action": frozenset({"action", "side"}),
    "huber": frozenset({"action", "side"}),
    "mean": frozenset({"mean"}),
    "mean_huber": frozenset({"mean"}),
    "wasserstein": frozenset({"mean", "log_std"}),
    "logits": frozenset({"logits", "q"}),
    "logits_huber": frozenset({"logits", "q"}),
    "q": frozenset({"q"}),
    "q_huber": frozenset({"q"}),
    "value": frozenset({"value"}),
    "value_l1": frozenset({"value"}),
    "regret": frozenset({"q"}),
    "gated": frozenset({"members", "shares"}),
    "hint": frozenset({"features"}),
    "state_hint": frozenset({"state"}),
    "attention": frozenset({"attention"}),
    "rkd_distance": frozenset({"features"}),
    "rkd_angle": frozenset({"features"}),
    "noise_entropy": frozenset(),
    "decision_entropy": frozenset({"logits", "q"}),
}
# The losses that read a head in units of the teacher's own variation (see `distillation.units`), and which.
IN_UNITS = {
    "q": "q",
    "q_huber": "q",
    "regret": "q",
    "value": "value",
    "value_l1": "value",
    "hint": "features",
    "state_hint": "state",
}
# What the student's outputs mean under a loss; the others leave it to the action space.
ON_Q = frozenset({"q", "q_huber"})
# Losses that need a student with a critic of states.
VALUE = frozenset({"value", "value_l1"})


def _is_gaussian(teacher: Heads) -> bool:
    return teacher.mean is not None and teacher.logits is None


def kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(teacher || student) at temperature tau, in nats -> (B,); of Gaussians, variances times tau."""
    return (actions.kl_gauss if _is_gaussian(teacher) else choices.kl)(student, teacher, tau)


def reverse_kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(student || teacher) at temperature tau, in nats -> (B,); of Gaussians, variances times tau."""
    return (actions.reverse_kl_gauss if _is_gaussian(teacher) else choices.reverse_kl)(student, teacher, tau)


def nll(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """-log of the student's probability, or density, of the teacher's greedy action, in nats -> (B,)."""
    return (actions.nll_gauss if _is_gaussian(teacher) else choices.nll)(student, teacher, tau)
