"""The one loop over environment steps: rollouts, evaluation and distillation all read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from kdcli.agents.memory import Turn
from kdcli.envs.vector import Vector

Act = Callable[[Turn], np.ndarray]


@dataclass(frozen=True)
class Steps:
    """One step of b slots: row i belongs to episode `episode[i]`, at its time `t[i]`.

    `obs` (b, *shape) is what was seen before acting, `action` (b, *shape) what was done, `reward` (b,) what came of it.
    `success` (b,) is 1 or 0 where an episode ended and its env says which, else nan.
    """

    episode: np.ndarray
    t: np.ndarray
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray

    @property
    def done(self) -> np.ndarray:
        """(b,) whether the episode ended with this step."""
        return self.terminated | self.truncated


@dataclass(frozen=True)
class Running:
    """Slots that play already: the number of each one's episode (n,), its steps so far (n,), and the next number."""

    episode: np.ndarray
    t: np.ndarray
    next: int


def stream(vector: Vector, seeds: Iterable[int], act: Act, running: Running | None = None) -> Iterator[Steps]:
    """Play one episode per seed, in order, until all are over; episode k is the k-th seed's.

    A slot that ends an episode takes the next seed at once. With endless seeds the stream is endless. With `running`,
    every slot goes on with what it plays, and the seeds are of the episodes after those.
    """
    n = len(vector)
    queue = enumerate(iter(seeds), running.next if running else 0)
    episode, t, live = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, running is not None)
    if running is not None:
        episode[:], t[:] = running.episode, running.t

    def begin(slot: int) -> None:
        following = next(queue, None)
        live[slot] = following is not None
        if following is not None:
            episode[slot], seed = following
            t[slot] = 0
            vector.reset(slot, seed)

    for slot in np.flatnonzero(~live):
        begin(int(slot))
    while live.any():
        slots = np.flatnonzero(live)
        obs = vector.obs[slots]
        action = act(Turn(obs, slots, t[slots] == 0, episode[slots]))
        outcome = vector.step(slots.tolist(), action)
        steps = Steps(episode[slots], t[slots], obs, action, *outcome, vector.success[slots])
        t[slots] += 1
        for slot in slots[steps.done]:
            begin(slot)
        yield steps
