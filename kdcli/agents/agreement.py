"""How much one agent does what another does, in the same states."""

from __future__ import annotations

import numpy as np

from kdcli.spec import Box, Space


def agreement(ours: np.ndarray, theirs: np.ndarray, space: Space) -> float:
    """Agreement of env-ready actions (B, *shape) with those of another agent, 1 is always.

    Discrete: the share of states with the same action, all of its parts alike. Continuous: 1 - RMS difference in half
    ranges of each dimension; a dimension without bounds counts in standard deviations of `theirs`.
    """
    if not isinstance(space, Box):
        return float((ours == theirs).reshape(len(ours), -1).all(1).mean())
    a, b = (np.asarray(actions, np.float64).reshape(len(actions), -1) for actions in (ours, theirs))
    return 1.0 - float(np.sqrt(np.mean(((a - b) / _units(space, b)) ** 2)))


def _units(space: Box, actions: np.ndarray) -> np.ndarray:
    """What a difference of 1 is, for each dimension (A,)."""
    span = space.high.reshape(-1).astype(np.float64) - space.low.reshape(-1)
    units = np.where(np.isfinite(span), span / 2, actions.std(0))
    return np.where(units > 0, units, 1.0)
