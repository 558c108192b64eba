"""Losses between distributions over choices: categorical ones, several side by side, or one bit each."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, groups, need, scores

# log p and log q (B, n), both of all n outcomes -> (B,).
Divergence = Callable[[Tensor, Tensor], Tensor]


def _between(divergence: Divergence, teacher: Heads, ours: Tensor, theirs: Tensor) -> Tensor:
    """The divergence of logits (B, A), summed over the groups of MultiDiscrete actions or the bits of MultiBinary."""
    if teacher.bits:
        return divergence(_outcomes(theirs), _outcomes(ours)).sum(1)
    pairs = zip(groups(theirs, teacher), groups(ours, teacher), strict=True)
    found = [divergence(F.log_softmax(a, 1), F.log_softmax(b, 1)) for a, b in pairs]
    return torch.stack(found).sum(0) if len(found) > 1 else found[0]


def _outcomes(logits: Tensor) -> Tensor:
    """Log-probabilities of 1 and 0 of each bit, (B, A) -> (B, A, 2)."""
    return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], -1)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _js(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_m = torch.logaddexp(log_p, log_q) - 0.6931471805599453
    return 0.5 * (_kl(log_p, log_m) + _kl(log_q, log_m))


def _tempered(student: Heads, teacher: Heads, tau: Tau) -> tuple[Tensor, Tensor]:
    return scores(student, "student") / tau, scores(teacher, "teacher") / tau


def kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(teacher || student) at temperature tau, in nats; logits (B, A) -> (B,). Hinton et al. 2015, eq. 1."""
    return _between(_kl, teacher, *_tempered(student, teacher, tau))


def reverse_kl(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(student || teacher) at temperature tau, in nats -> (B,): seeks one mode. Gu et al. 2024 (MiniLLM), eq. 2."""
    return _between(lambda p, q: _kl(q, p), teacher, *_tempered(student, teacher, tau))


@loss(reads=("logits", "q"), of="choices", tempered=True, rescaled=True)
def js(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Jensen-Shannon divergence at temperature tau, in nats, at most log 2 -> (B,). Lin 1991, eq. 3.13."""
    return _between(_js, teacher, *_tempered(student, teacher, tau))


@loss(reads=("logits", "q"), of="choices", tempered=True, rescaled=True)
def cross_entropy(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """-sum p_teacher log p_student at temperature tau, in nats -> (B,): KL plus the teacher's entropy.

    Hinton et al. 2015, section 2; least, not zero, where the two are equal.
    """
    return _between(lambda p, q: -(p.exp() * q).sum(-1), teacher, *_tempered(student, teacher, tau))


@loss(reads=("logits", "q"), of="choices", tempered=True)
def softmax_q(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(softmax(teacher's Q / tau) || softmax(student)), in nats -> (B,). Rusu et al. 2015, eq. 3.

    Q-values are close to each other where it matters little: tau below 1 (0.01 there) sharpens them. The student's
    own outputs are not divided, so that its gradient does not shrink with tau.
    """
    return _between(_kl, teacher, scores(student, "student"), scores(teacher, "teacher") / tau)


def nll(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """-log pi_student(teacher's greedy action), in nats -> (B,). Rusu et al. 2015, eq. 1."""
    choice, ours = need(teacher, "choice", "teacher"), scores(student, "student")
    if teacher.bits:
        return F.binary_cross_entropy_with_logits(ours, choice.float(), reduction="none").sum(1)
    if len(teacher.groups) > 1:
        parts = zip(groups(ours, teacher), choice.unbind(1), strict=True)
        return torch.stack([F.cross_entropy(part, c, reduction="none") for part, c in parts]).sum(0)
    return F.cross_entropy(ours, choice, reduction="none")


def _centred(student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    """Logits (B, A) whose mean over each choice is zero, since a common shift changes no probability."""
    ours, theirs = need(student, "logits", "student"), scores(teacher, "teacher")
    if teacher.bits:
        return ours, theirs

    def centre(values: Tensor) -> Tensor:
        return torch.cat([part - part.mean(1, keepdim=True) for part in groups(values, teacher)], 1)

    return centre(ours), centre(theirs)


@loss(reads=("logits", "q"), of="choices")
def logits(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared error of the centred logits, averaged over A -> (B,): the limit of KL at high temperature."""
    return F.mse_loss(*_centred(student, teacher), reduction="none").mean(1)


@loss(reads=("logits", "q"), of="choices")
def logits_huber(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of the centred logits (delta 1), averaged over A -> (B,): far logits weigh less."""
    return F.huber_loss(*_centred(student, teacher), reduction="none").mean(1)
