"""Losses: two sets of heads in, one number a sample out (B,). No weight, mean or tau^2 here; the objective has those.

A teacher that gives Q-values instead of logits teaches through them (Rusu et al. 2015, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.errors import UsageError

Loss = Callable[[Heads, Heads, float], Tensor]

# The losses whose gradient shrinks with tau^2, which the objective gives back (Hinton et al. 2015, section 2).
TEMPERED = frozenset({"kl"})
# The teacher's heads that each loss reads; a foreign loss may read all.
READS: dict[str, frozenset[str]] = {
    "kl": frozenset({"logits", "q", "mean", "log_std"}),
    "nll": frozenset({"choice"}),
    "action": frozenset({"action", "side"}),
    "huber": frozenset({"action", "side"}),
    "mean": frozenset({"mean"}),
    "logits": frozenset({"logits", "q"}),
    "q": frozenset({"q"}),
    "q_huber": frozenset({"q"}),
    "value": frozenset({"value"}),
}
# What the student's outputs mean under a loss; the others leave it to the action space.
ON_Q = frozenset({"q", "q_huber"})


def _need(heads: Heads, name: str, who: str) -> Tensor:
    tensor: Tensor | None = getattr(heads, name)
    if tensor is None:
        has = ", ".join(heads.present())
        raise UsageError(f"this loss needs the {who}'s {name}", f"it gives {has}", "choose another --loss")
    return tensor


def _scores(heads: Heads, who: str) -> Tensor:
    return heads.logits if heads.logits is not None else _need(heads, "q", who)


def _groups(scores: Tensor, heads: Heads) -> list[Tensor]:
    return list(scores.split(list(heads.groups), dim=1)) if len(heads.groups) > 1 else [scores]


def kl(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """KL(teacher || student) at temperature tau, in nats; logits (B, A) -> (B,). Hinton et al. 2015, eq. 1.

    Summed over the groups of a MultiDiscrete action and the bits of a MultiBinary one. For Gaussians the student takes
    over the teacher's spread, so that it is the squared distance in units of tau variances, halved.
    """
    if teacher.mean is not None and teacher.logits is None:
        return _kl_gauss(student, teacher, tau)
    ours, theirs = _scores(student, "student") / tau, _scores(teacher, "teacher") / tau
    if teacher.bits:
        return _kl_bits(ours, theirs)
    pairs = zip(_groups(ours, teacher), _groups(theirs, teacher), strict=True)
    return torch.stack([_kl_one(a, b) for a, b in pairs]).sum(0) if len(teacher.groups) > 1 else _kl_one(ours, theirs)


def _kl_one(ours: Tensor, theirs: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(theirs, 1), F.log_softmax(ours, 1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def _kl_bits(ours: Tensor, theirs: Tensor) -> Tensor:
    p = theirs.sigmoid()
    yes, no = F.logsigmoid(theirs) - F.logsigmoid(ours), F.logsigmoid(-theirs) - F.logsigmoid(-ours)
    return (p * yes + (1 - p) * no).sum(1)


def _kl_gauss(student: Heads, teacher: Heads, tau: float) -> Tensor:
    spread = _need(teacher, "log_std", "teacher")
    gap = _need(student, "mean", "student") - _need(teacher, "mean", "teacher")
    return (gap**2 * (-2.0 * spread).exp()).sum(1) / (2.0 * tau)


def nll(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """-log pi_student(teacher's greedy action), in nats -> (B,). Rusu et al. 2015, eq. 1."""
    choice, scores = _need(teacher, "choice", "teacher"), _scores(student, "student")
    if teacher.bits:
        return F.binary_cross_entropy_with_logits(scores, choice.float(), reduction="none").sum(1)
    if len(teacher.groups) > 1:
        parts = zip(_groups(scores, teacher), choice.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(part, c, reduction="none") for part, c in parts]).sum(0)
    return F.cross_entropy(scores, choice, reduction="none")


def _squared(ours: Tensor, theirs: Tensor) -> Tensor:
    """(ours - theirs)^2, element by element, in one operation."""
    return F.mse_loss(ours, theirs, reduction="none")


def _gap(student: Heads, teacher: Heads) -> Tensor:
    """Student - teacher of the actions (B, A), 0 where the student only goes beyond a bound the teacher sits on."""
    gap = _need(student, "action", "student") - _need(teacher, "action", "teacher")
    if teacher.side is not None:
        # In place and unseen by autograd: what squares the zeros gives them no gradient, and a step is a tenth shorter.
        hidden = gap.detach()
        hidden.masked_fill_(hidden * teacher.side > 0, 0.0)
    return gap


def action(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Squared distance of continuous actions (B, A) -> (B,); units: half the range of the action."""
    return _gap(student, teacher).square().sum(1)


def huber(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Huber error of continuous actions, summed over A -> (B,); quadratic below 0.1 of half the range."""
    gap = _gap(student, teacher)
    return F.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=0.1).sum(1)


def mean(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Squared distance of the means before squashing -> (B,)."""
    return _squared(_need(student, "mean", "student"), _need(teacher, "mean", "teacher")).sum(1)


def logits(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Squared error of the centred logits, averaged over A -> (B,): the limit of KL at high temperature."""
    ours, theirs = _need(student, "logits", "student"), _scores(teacher, "teacher")
    if not teacher.bits:
        ours, theirs = ours - ours.mean(1, keepdim=True), theirs - theirs.mean(1, keepdim=True)
    return _squared(ours, theirs).mean(1)


def q(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Squared error of the Q-values, averaged over A -> (B,), in squared units of return."""
    return _squared(_need(student, "q", "student"), _need(teacher, "q", "teacher")).mean(1)


def q_huber(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Huber error of the Q-values (delta 1), averaged over A -> (B,)."""
    return F.huber_loss(_need(student, "q", "student"), _need(teacher, "q", "teacher"), reduction="none").mean(1)


def value(student: Heads, teacher: Heads, tau: float) -> Tensor:
    """Squared error of the state value -> (B,), in squared units of return."""
    return _squared(_need(student, "value", "student"), _need(teacher, "value", "teacher"))
