"""Entropies of choices, two of one policy: how much it decides by what it sees, and how much by chance.

The entropy of what it does over all states is the sum of both: what it sees decides (the mutual information of state
and action), and the noise in each state. A student is to keep the first and may lose the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdcli.agents.distributions import entropy
from kdcli.agents.heads import Heads
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, groups, scores


@loss(reads=(), of="choices")
def noise_entropy(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Entropy of the student's choice in each state, in nats -> (B,); 0 where it is certain."""
    scores(student, "student")
    return entropy(student)


@loss(reads=("logits", "q"), of="choices")
def decision_entropy(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared difference of student's and teacher's decision entropies over the batch, the same for all -> (B,)."""
    ours, theirs = decided(student, "student"), decided(teacher, "teacher")
    return (ours - theirs).square().expand(len(scores(student, "student")))


def decided(heads: Heads, who: str = "policy") -> Tensor:
    """Mutual information of state and choice over B states, in nats -> scalar: H(mean policy) - mean of H(policy)."""
    p = _probabilities(heads, who)
    return torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()


def entropies(heads: Heads) -> dict[str, float]:
    """What is reported of choices, in nats: `decision` and `noise`."""
    noise = torch.special.entr(_probabilities(heads, "policy")).sum(1).mean()
    return {"decision": float(decided(heads)), "noise": float(noise)}


def _probabilities(heads: Heads, who: str) -> Tensor:
    """(B, n) of every outcome of every choice side by side; of bits both outcomes."""
    said = scores(heads, who)
    if heads.bits:
        return torch.cat([said.sigmoid(), (-said).sigmoid()], 1)
    return torch.cat([part.softmax(1) for part in groups(said, heads)], 1)
