"""An endless stream of steps that can be left and taken up again: running episodes are played up to where they were."""

from __future__ import annotations

from itertools import count

import numpy as np

from kdcli.agents.memory import Turn
from kdcli.envs.vector import Vector
from kdcli.rollouts.step_loop import Act, Running, Steps, stream


class Track:
    """Episodes with consecutive seeds from `first_seed` on, in every slot of `vector`, one after the other."""

    def __init__(self, vector: Vector, first_seed: int, act: Act) -> None:
        self._vector, self._first, self._act = vector, first_seed, act
        self._episode, self._next = np.arange(len(vector)), len(vector)
        self._actions: list[list[np.ndarray]] = [[] for _ in range(len(vector))]
        self._steps = stream(vector, count(first_seed), self._recorded)

    def __len__(self) -> int:
        return len(self._vector)

    def _recorded(self, turn: Turn) -> np.ndarray:
        actions = self._act(turn)
        for slot, action in zip(turn.slots, actions, strict=True):
            self._actions[slot].append(np.array(action))
        return actions

    def __next__(self) -> Steps:
        steps = next(self._steps)
        for slot in np.flatnonzero(steps.done):
            self._episode[slot], self._next = self._next, self._next + 1
            self._actions[slot].clear()
        return steps

    def state(self) -> dict[str, np.ndarray]:
        """Where it is: which episode every slot plays, and what was done in it so far."""
        lengths = np.array([len(actions) for actions in self._actions])
        done = [action for actions in self._actions for action in actions]
        space = self._vector.action
        actions = np.stack(done) if done else np.zeros((0, *space.shape), space.dtype)
        return {"episode": self._episode.copy(), "next": np.array(self._next), "lengths": lengths, "actions": actions}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go to where `state` was taken: seeds and actions repeat the running episodes."""
        self._episode, self._next = state["episode"].copy(), state["next"].item()
        ends = np.cumsum(state["lengths"])
        for slot, actions in enumerate(np.split(state["actions"], ends[:-1])):
            self._vector.reset(slot, self._first + int(self._episode[slot]))
            for action in actions:
                self._vector.step([slot], action[None])
            self._actions[slot] = list(actions)
        running = Running(self._episode.copy(), state["lengths"].copy(), self._next)
        self._steps = stream(self._vector, count(self._first + self._next), self._recorded, running)
