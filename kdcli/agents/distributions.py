"""Sampled play: what a stochastic policy does instead of its mode. All randomness comes from the generator given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.spec import MultiBinary


def _noise(draw: np.ndarray) -> Tensor:
    return torch.from_numpy(draw.astype(np.float32))


def sample(heads: Heads, rule: ActionRule, rng: np.random.Generator) -> Tensor:
    """Env-ready actions (B, *shape) drawn from the policy; Q-values have no distribution and are played greedily."""
    if heads.q is not None:
        return rule.decode(heads.q)
    if heads.logits is not None:
        return _sample_logits(heads.logits, rule, rng)
    assert heads.mean is not None
    if heads.log_std is None:
        return rule.decode(heads.mean)
    return rule.decode(heads.mean + heads.log_std.exp() * _noise(rng.standard_normal(heads.mean.shape)))


def _sample_logits(logits: Tensor, rule: ActionRule, rng: np.random.Generator) -> Tensor:
    """The argmax of logits plus Gumbel noise is a categorical draw (Maddison et al. 2014); for bits, logistic noise."""
    if isinstance(rule.space, MultiBinary):
        return rule.decode(logits + _noise(rng.logistic(size=logits.shape)))
    return rule.decode(logits + _noise(rng.gumbel(size=logits.shape)))
