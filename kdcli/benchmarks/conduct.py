"""What a return does not show: how often the task is done, and how an agent moves while it does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdcli.rollouts.evaluate import Episodes


@dataclass(frozen=True)
class Success:
    """The share (`rate`) of `n` episodes whose last info said `is_success`, and its interval, each from 0 to 1."""

    n: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Motion:
    """Of real actions, over all steps and dimensions: `smoothness`, mean |a_t - a_t-1|; `energy`, mean a^2 a step.

    Both in the units of the action; less is smoother and cheaper. `smoothness` is None where no episode has two steps.
    """

    smoothness: float | None
    energy: float


def success_of(episodes: Episodes, confidence: float = 0.95) -> Success | None:
    """The success rate, with Wilson's interval (Wilson 1927), over the episodes that tell; None where none does."""
    told = episodes.success[np.isfinite(episodes.success)]
    if not len(told):
        return None
    n, rate = len(told), float(told.mean())
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = (z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) ** 0.5 / (1 + z2 / n)
    return Success(n, rate, max(0.0, middle - half), min(1.0, middle + half))


def motion_of(episodes: Episodes) -> Motion | None:
    """How the agent moved; None where actions are choices."""
    if not np.isfinite(episodes.energy).any():
        return None
    steps, turns = episodes.lengths, np.maximum(episodes.lengths - 1, 0)
    smooth = float((episodes.smoothness * turns).sum() / turns.sum()) if turns.sum() else None
    return Motion(smooth, float((episodes.energy * steps).sum() / steps.sum()))
