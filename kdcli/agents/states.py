"""Observations to compare agents on, and what an agent does there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.memory import Memory, Turn

Source = Literal["given", "rollout", "sampled"]


@dataclass(frozen=True, eq=False)
class States:
    """Raw observations (N, *shape): from the agent's own play (`rollout`), drawn (`sampled`), or the caller's.

    For an agent with memory they are turns of `slots` episodes side by side, (N / slots, slots) in rows, and `begins`
    (N,) says where an episode begins; without it all begin at the first turn.
    """

    observations: np.ndarray
    source: Source = "given"
    slots: int = 1
    begins: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.observations)

    def turns(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations (T, slots, *shape) and where episodes begin (T, slots)."""
        n = len(self) // self.slots
        obs = self.observations[: n * self.slots].reshape(n, self.slots, *self.observations.shape[1:])
        if self.begins is not None:
            return obs, self.begins[: n * self.slots].reshape(n, self.slots)
        return obs, np.repeat(np.arange(n) == 0, self.slots).reshape(n, self.slots)


def actions(agent: Actor, states: States) -> np.ndarray:
    """Env-ready actions (N, *shape); an agent with memory goes through the episodes from their beginning."""
    if not agent.state_size:
        return agent.act(states.observations)
    memory, slots = Memory(agent), np.arange(states.slots)
    turns = zip(*states.turns(), strict=True)
    return np.concatenate([memory.act(Turn(obs, slots, begins)) for obs, begins in turns])
