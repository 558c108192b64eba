"""Who remembers what: the states of recurrent agents that play several episodes side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.agents.actor import Actor


@dataclass(frozen=True, eq=False)
class Turn:
    """What those who act are told: raw observations (b, *shape) of `slots` (b,), and where an episode begins (b,).

    `episode` (b,) is the number of each slot's episode, where episodes are counted.
    """

    obs: np.ndarray
    slots: np.ndarray
    begins: np.ndarray
    episode: np.ndarray | None = None


class Memory:
    """The states of one agent in every slot where it plays; nothing for an agent without memory."""

    def __init__(self, agent: Actor) -> None:
        self.agent = agent
        self.states = np.zeros((0, agent.state_size), np.float32)

    def recall(self, turn: Turn) -> np.ndarray:
        """The states (b, S) before this turn: zeros where an episode begins."""
        missing = int(turn.slots.max(initial=-1)) + 1 - len(self.states)
        if missing > 0:
            self.states = np.concatenate([self.states, np.zeros((missing, self.states.shape[1]), np.float32)])
        states = self.states[turn.slots]
        states[turn.begins] = 0.0
        return states

    def keep(self, turn: Turn, states: np.ndarray) -> None:
        """Remember the states (b, S) after this turn."""
        self.states[turn.slots] = states

    def act(self, turn: Turn, rng: np.random.Generator | None = None) -> np.ndarray:
        """Env-ready actions (b, *shape); deterministic without `rng`, else sampled."""
        if not self.agent.state_size:
            return self.agent.act(turn.obs, rng)
        actions, states = self.agent.step(turn.obs, self.recall(turn), rng)
        self.keep(turn, states)
        return actions
