"""Who acts while data is collected: the teacher, the student, chance, or a mixture; the teacher labels every state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from kdcli.agents.agent import Acts
from kdcli.agents.teaching import label
from kdcli.envs.vector import random_actions
from kdcli.spec import Box, Space

TEACHER, STUDENT, RANDOM = 0, 1, 2


class Decision(NamedTuple):
    """For b states: the `action` taken, who chose it (`behaviour`, int8), and the teacher's `labels`."""

    action: np.ndarray
    behaviour: np.ndarray
    labels: Mapping[str, np.ndarray]


class Mixture:
    """In each state the teacher acts with probability `beta`, else the student (DAgger: Ross et al. 2011, sec. 3).

    Without a student, the other actions are random ones. `noise` perturbs what is done, not what is labelled:
    Gaussian, in half-ranges of the action, or for discrete actions the probability of a random one.
    """

    def __init__(
        self, teacher: Acts, student: Acts | None, beta: float, noise: float = 0.0, seed: int = 0, sampled: bool = False
    ) -> None:
        self._teacher, self.student, self.beta = teacher, student, beta
        self._noise, self._rng, self._sampled = noise, np.random.default_rng(seed), sampled

    def decide(self, obs: np.ndarray) -> Decision:
        """Raw observations (b, *shape) -> what to do and what the teacher says."""
        labels = label(self._teacher, obs)
        action = self._teacher.act(obs, self._rng) if self._sampled else labels["greedy"]
        behaviour = np.full(len(obs), TEACHER, np.int8)
        others = self._rng.random(len(obs)) >= self.beta
        if others.any():
            action = np.where(others.reshape(-1, *[1] * (action.ndim - 1)), self._other(obs), action)
            behaviour[others] = RANDOM if self.student is None else STUDENT
        return Decision(self._perturbed(action), behaviour, labels)

    def _other(self, obs: np.ndarray) -> np.ndarray:
        if self.student is None:
            return random_actions(self._teacher.action, len(obs), self._rng)
        return self.student.act(obs)

    def _perturbed(self, action: np.ndarray) -> np.ndarray:
        return perturb(action, self._teacher.action, self._noise, self._rng) if self._noise else action


def perturb(action: np.ndarray, space: Space, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Actions (b, *shape) with noise added, inside the space."""
    if isinstance(space, Box):
        half = np.where(np.isfinite(space.high - space.low), (space.high - space.low) / 2, 1.0)
        moved = action + noise * half * rng.standard_normal(action.shape)
        return np.clip(moved, space.low, space.high).astype(space.dtype)
    swap = rng.random(len(action)) < noise
    return np.where(swap.reshape(-1, *[1] * (action.ndim - 1)), random_actions(space, len(action), rng), action)
