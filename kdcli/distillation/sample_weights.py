"""How much a state matters: from what the teacher says of it to one number a sample, not negative."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.choice import Choice
from kdcli.distillation import WEIGHINGS
from kdcli.distillation.losses.reading import groups, need, scores
from kdcli.distillation.temperatures import entropy_share

# The teacher's heads -> (B,).
Weighing = Callable[[Heads], Tensor]


def uniform(teacher: Heads) -> Tensor:
    """Every state as much, (B,)."""
    return torch.ones(len(next(iter(teacher.present().values()))))


def criticality(teacher: Heads) -> Tensor:
    """What the worst action would cost: the largest minus the least Q-value, (B,). Bastani et al. 2018 (VIPER), eq. 4.

    Of a teacher with logits, the gap of its log-probabilities, which are Q-values of a maximum-entropy policy.
    """
    parts = groups(scores(teacher, "teacher"), teacher)
    return torch.stack([part.amax(1) - part.amin(1) for part in parts]).sum(0)


def margin(teacher: Heads) -> Tensor:
    """What the second best action would cost: the largest minus the next, (B,)."""
    parts = groups(scores(teacher, "teacher"), teacher)
    best = [part.topk(min(2, part.shape[1]), dim=1).values for part in parts]
    return torch.stack([top[:, 0] - top[:, -1] for top in best]).sum(0)


def confidence(teacher: Heads) -> Tensor:
    """1 where the teacher is sure, 0 where it is indifferent: 1 - entropy / largest entropy, (B,)."""
    return 1.0 - entropy_share(scores(teacher, "teacher"), teacher)


def advantage(teacher: Heads) -> Tensor:
    """exp(A / std(A)), A being the greedy action's Q-value above the mean of all, (B,). Peng et al. 2019, eq. 3."""
    q = need(teacher, "q", "teacher")
    gain = q.amax(1) - q.mean(1)
    return ((gain - gain.mean()) / gain.std().clamp(min=1e-6)).clamp(max=3.0).exp()


def in_the_mean(weights: Tensor) -> Tensor:
    """Weights (B,) with mean 1, so that a weighing changes no learning rate; all 1 where nothing matters."""
    mean = weights.detach().mean()
    return weights / mean if float(mean) > 1e-12 else torch.ones_like(weights)


def parse_weighing(text: str) -> Weighing:
    """A weighing by its name.

    Raises:
        UsageError: unknown name.
    """
    return WEIGHINGS.load(Choice.parse(text).only().name)
