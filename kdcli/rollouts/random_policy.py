"""What chance does: the policy that a score of 0 belongs to."""

from __future__ import annotations

import numpy as np
import torch

from kdcli.agents.action import ActionRule
from kdcli.spec import MASK, Discrete, MultiBinary, MultiDiscrete, Part


def random_actions(space: Part, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniformly random actions (B, *shape) for raw observations (B, *shape), among those a mask there allows.

    A dimension without bounds is drawn from a standard normal.
    """
    n = len(obs)
    if obs.dtype.names is not None and MASK in obs.dtype.names:
        return _among_allowed(space, obs[MASK], rng)
    match space:
        case Discrete():
            return rng.integers(space.start, space.start + space.n, n).astype(space.dtype)
        case MultiDiscrete():
            return rng.integers(0, space.nvec, (n, len(space.nvec))).astype(space.dtype)
        case MultiBinary():
            return rng.integers(0, 2, (n, space.n)).astype(space.dtype)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, 0.0), np.where(bounded, space.high, 0.0)
    draws = rng.uniform(low, high, (n, *space.shape))
    return np.where(bounded, draws, rng.standard_normal(draws.shape)).astype(space.dtype)


def _among_allowed(space: Part, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The largest of equal noise: each of those allowed is as likely."""
    rule = ActionRule(space, masked=True)
    noise = torch.from_numpy(rng.uniform(-1.0, 1.0, (len(mask), rule.n_outputs)).astype(np.float32))
    return rule.decode(rule.allow(noise, torch.from_numpy(mask))).numpy().astype(space.dtype)
