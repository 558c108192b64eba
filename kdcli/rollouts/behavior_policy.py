"""Who acts while data is collected: the teacher, the student, chance, or a mixture; the teacher labels every state."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.labels import label_turn
from kdcli.agents.memory import Memory, Turn
from kdcli.rollouts.random_policy import random_actions
from kdcli.spec import Box, Part

TEACHER, STUDENT, RANDOM = 0, 1, 2
# One number, or one for each dimension of a continuous action, in its shape.
Noise = float | np.ndarray


class Decision(NamedTuple):
    """For b states: the `action` taken, who chose it (`behaviour`, int8), and the teacher's `labels`.

    `state` (b, S) is what a teacher with memory remembered before; it watches whoever acts.
    """

    action: np.ndarray
    behaviour: np.ndarray
    labels: Mapping[str, np.ndarray]
    state: np.ndarray


class Mixture:
    """In each state the teacher acts with probability `beta`, else the student (DAgger: Ross et al. 2011, sec. 3).

    Without a student, the other actions are random ones. `noise` perturbs what is done, not what is labelled:
    Gaussian, in half-ranges of the action, or for discrete actions the probability of a random one. `inside` are the
    heads of `teaching.INSIDE` that labels hold, too.
    """

    def __init__(
        self,
        teacher: Actor,
        student: Actor | None,
        beta: float,
        noise: Noise = 0.0,
        seed: int = 0,
        sampled: bool = False,
        inside: Collection[str] = (),
    ) -> None:
        self._teacher, self.beta, self.noise, self._inside = teacher, beta, noise, tuple(inside)
        self._watching = Memory(teacher)
        self.follow(student)
        self._rng, self._sampled = np.random.default_rng(seed), sampled

    def follow(self, student: Actor | None) -> None:
        """Let this student be the other one who acts; it remembers nothing of episodes that are under way."""
        self._other = None if student is None else Memory(student)

    def state(self) -> dict[str, np.ndarray]:
        """What it would need to go on: chance, and what the teacher remembers."""
        chance = json.dumps(self._rng.bit_generator.state).encode()
        return {"rng": np.frombuffer(chance, np.uint8), "watching": self._watching.states}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from where `state` was taken."""
        self._rng.bit_generator.state = json.loads(bytes(state["rng"]))
        self._watching.states = np.array(state["watching"])

    def decide(self, turn: Turn) -> Decision:
        """What to do in b states and what the teacher says."""
        before = self._watching.recall(turn)
        labels = label_turn(self._watching, turn, self._inside)
        action = self._drawn(turn.obs, before) if self._sampled else labels["greedy"]
        behaviour = np.full(len(turn.obs), TEACHER, np.int8)
        others = self._rng.random(len(turn.obs)) >= self.beta
        if others.any():
            action = np.where(others.reshape(-1, *[1] * (action.ndim - 1)), self._chosen(turn), action)
            behaviour[others] = RANDOM if self._other is None else STUDENT
        return Decision(self._perturbed(action, turn.obs), behaviour, labels, before)

    def _drawn(self, obs: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The teacher's action as it samples it."""
        if not self._teacher.state_size:
            return self._teacher.act(obs, self._rng)
        return self._teacher.step(obs, before, self._rng)[0]

    def _chosen(self, turn: Turn) -> np.ndarray:
        if self._other is None:
            return random_actions(self._teacher.action, turn.obs, self._rng)
        return self._other.act(turn)

    def _perturbed(self, action: np.ndarray, obs: np.ndarray) -> np.ndarray:
        if not np.any(self.noise):
            return action
        return perturb(action, self._teacher.action, obs, self.noise, self._rng)


def perturb(action: np.ndarray, space: Part, obs: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """Actions (b, *shape) in states (b, *shape) with noise added, inside the space."""
    if isinstance(space, Box):
        half = np.where(np.isfinite(space.high - space.low), (space.high - space.low) / 2, 1.0)
        moved = action + noise * half * rng.standard_normal(action.shape)
        return np.clip(moved, space.low, space.high).astype(space.dtype)
    swap = rng.random(len(action)) < noise
    return np.where(swap.reshape(-1, *[1] * (action.ndim - 1)), random_actions(space, obs, rng), action)
