"""Sampled play: what a stochastic policy does instead of its mode. All randomness comes from the generator given.

What is drawn is raw: index of a choice (B,) or choices (B, groups), bits (B, bits), or a continuous action before
squashing and clipping (B, A).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.spec import Box, Discrete


def _noise(draw: np.ndarray) -> Tensor:
    return torch.from_numpy(draw.astype(np.float32))


def sample(heads: Heads, rule: ActionRule, rng: np.random.Generator) -> Tensor:
    """Env-ready actions (B, *shape) drawn from the policy; Q-values have no distribution and are played greedily."""
    if heads.q is not None:
        return rule.decode(heads.q)
    if heads.mean is not None and heads.log_std is None:
        return rule.decode(heads.mean)
    return done(drawn(replace(heads, groups=rule.groups, bits=rule.bits), rng), rule)


def drawn(heads: Heads, rng: np.random.Generator) -> Tensor:
    """One draw a sample, raw (B, ...).

    The argmax of logits plus Gumbel noise is a categorical draw (Maddison et al. 2014); for bits, logistic noise.
    """
    if heads.mean is not None:
        assert heads.log_std is not None
        return heads.mean + heads.log_std.exp() * _noise(rng.standard_normal(heads.mean.shape))
    logits = heads.scores()
    if heads.bits:
        return ((logits + _noise(rng.logistic(size=logits.shape))).sigmoid() > 0.5).long()
    noisy = logits + _noise(rng.gumbel(size=logits.shape))
    if len(heads.groups) < 2:
        return noisy.argmax(1)
    return torch.stack([part.argmax(1) for part in noisy.split(list(heads.groups), 1)], 1)


def entropy(heads: Heads) -> Tensor:
    """Entropy of what is drawn -> (B,), in nats: of choices and bits the sum over them, 0 where they are certain.

    Of continuous actions it is that of the Gaussian before squashing and clipping, below 0 where it is narrow.
    """
    if heads.mean is not None:
        assert heads.log_std is not None
        return (heads.log_std + 0.5 * math.log(2.0 * math.pi * math.e)).sum(1)
    logits = heads.scores()
    if heads.bits:
        return torch.special.entr(torch.stack([logits.sigmoid(), (-logits).sigmoid()])).sum((0, 2))
    parts = logits.split(list(heads.groups), 1) if len(heads.groups) > 1 else [logits]
    return torch.stack([torch.special.entr(part.softmax(1)).sum(1) for part in parts]).sum(0)


def done(raw: Tensor, rule: ActionRule) -> Tensor:
    """What was drawn as env-ready actions (B, *shape)."""
    match rule.space:
        case Box():
            return rule.decode(raw)
        case Discrete(start=start):
            return raw + start
    return raw


def log_likelihood(heads: Heads, raw: Tensor) -> Tensor:
    """log of the probability, or density, of what was drawn -> (B,), in nats; squashing is left out."""
    if heads.mean is not None:
        assert heads.log_std is not None
        z = (raw - heads.mean) * (-heads.log_std).exp()
        return -(0.5 * z.square() + heads.log_std + 0.5 * math.log(2.0 * math.pi)).sum(1)
    logits = heads.scores()
    if heads.bits:
        return -F.binary_cross_entropy_with_logits(logits, raw.float(), reduction="none").sum(1)
    if len(heads.groups) < 2:
        return -F.cross_entropy(logits, raw, reduction="none")
    parts = zip(logits.split(list(heads.groups), 1), raw.unbind(1), strict=True)
    return -torch.stack([F.cross_entropy(part, c, reduction="none") for part, c in parts]).sum(0)
