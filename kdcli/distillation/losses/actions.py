"""Losses between continuous actions, and between the Gaussians they are drawn from.

A student without a spread of its own takes over the teacher's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, need


def _gap(student: Heads, teacher: Heads) -> Tensor:
    """Student - teacher of the actions (B, A), 0 where the student only goes beyond a bound the teacher sits on."""
    gap = need(student, "action", "student") - need(teacher, "action", "teacher")
    if teacher.side is not None:
        # In place and unseen by autograd: what squares the zeros gives them no gradient, and a step is a tenth shorter.
        hidden = gap.detach()
        hidden.masked_fill_(hidden * teacher.side > 0, 0.0)
    return gap


@loss(reads=("action", "side"), of="continuous")
def action(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared distance of continuous actions (B, A) -> (B,); units: half the range of the action."""
    return _gap(student, teacher).square().sum(1)


@loss(reads=("action", "side"), of="continuous")
def huber(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of continuous actions, summed over A -> (B,); quadratic below 0.1 of half the range."""
    gap = _gap(student, teacher)
    return F.huber_loss(gap, torch.zeros_like(gap), reduction="none", delta=0.1).sum(1)


def _means(student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    return need(student, "mean", "student"), need(teacher, "mean", "teacher")


@loss(reads=("mean",), of="continuous")
def mean(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared distance of the means before squashing -> (B,)."""
    return F.mse_loss(*_means(student, teacher), reduction="none").sum(1)


@loss(reads=("mean",), of="continuous")
def mean_huber(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of the means before squashing (delta 1), summed over A -> (B,)."""
    return F.huber_loss(*_means(student, teacher), reduction="none").sum(1)


def _spreads(student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    """log standard deviations (B, A)."""
    theirs = need(teacher, "log_std", "teacher")
    return theirs if student.log_std is None else student.log_std, theirs


def _kl(gap: Tensor, log_p: Tensor, log_q: Tensor, tau: Tau) -> Tensor:
    """KL(N(., exp(log_p)) || N(. + gap, exp(log_q))), both variances times tau, (B, A) -> (B,)."""
    ratio, reach = (2.0 * (log_p - log_q)).exp(), gap.square() * (-2.0 * log_q).exp()
    return 0.5 * (ratio - 1.0 - 2.0 * (log_p - log_q)).sum(1) + 0.5 * (reach / tau).sum(1)


def kl_gauss(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(teacher || student) of diagonal Gaussians, their variances times tau, in nats -> (B,)."""
    ours, theirs = _means(student, teacher)
    log_q, log_p = _spreads(student, teacher)
    return _kl(ours - theirs, log_p, log_q, tau)


def reverse_kl_gauss(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """KL(student || teacher) of diagonal Gaussians, their variances times tau, in nats -> (B,)."""
    ours, theirs = _means(student, teacher)
    log_q, log_p = _spreads(student, teacher)
    return _kl(ours - theirs, log_q, log_p, tau)


@loss(reads=("mean", "log_std"), of="continuous")
def wasserstein(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared Wasserstein-2 distance of diagonal Gaussians -> (B,), in squared units of the mean.

    |mean_s - mean_t|^2 + |std_s - std_t|^2; Olkin and Pukelsheim 1982, for commuting covariances.
    """
    log_q, log_p = _spreads(student, teacher)
    return mean(student, teacher, tau) + (log_q.exp() - log_p.exp()).square().sum(1)


def nll_gauss(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """-log N(teacher's mean; student's mean and spread) -> (B,), in nats; below zero where a density is above 1."""
    ours, theirs = _means(student, teacher)
    log_std = need(student, "log_std", "student")
    z = (theirs - ours) * (-log_std).exp()
    return (0.5 * z.square() + log_std + 0.5 * math.log(2.0 * math.pi)).sum(1)
