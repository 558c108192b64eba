"""Whole episodes: what an agent's return is, and the states it really visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.memory import Memory, Turn
from kdcli.envs.make import check_fits
from kdcli.envs.vector import Vector
from kdcli.progress import Event, Listener, silent
from kdcli.rollouts.random_policy import random_actions
from kdcli.rollouts.step_loop import Steps, stream
from kdcli.spec import Box, EnvSpec, Part

N_SLOTS = 16
MOST_TURNS = 5000


@dataclass(frozen=True)
class Episodes:
    """Undiscounted return and length of one episode a seed, in the order of `seeds`; each array (n,).

    `success` is 1 or 0 as the env says at the end, nan where it does not. `smoothness` is the mean of |a_t - a_t-1| (0
    of a single step) and `energy` that of a^2, over steps and dimensions, nan where actions are choices.
    """

    seeds: tuple[int, ...]
    returns: np.ndarray
    lengths: np.ndarray
    success: np.ndarray
    smoothness: np.ndarray
    energy: np.ndarray

    def followed_by(self, further: Episodes) -> Episodes:
        """These episodes and then the `further` ones."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(further, name)])
            for name in ("returns", "lengths", "success", "smoothness", "energy")
        }
        return Episodes((*self.seeds, *further.seeds), **arrays)


def seeds_from(base: int, n: int) -> range:
    """The seeds of `n` paired episodes: base, base + 1, ..."""
    return range(base, base + n)


def open_vector(spec: EnvSpec, agent: Actor | None, n: int = N_SLOTS) -> Vector:
    """Make `n` envs and check that the agent fits them.

    Raises:
        UsageError: the env cannot be made, or its spaces are not the agent's.
    """
    vector = Vector(spec, n)
    if agent is not None:
        check_fits(spec, (vector.observation, vector.action), (agent.observation, agent.action))
    return vector


def play(
    agent: Actor | None,
    vector: Vector,
    seeds: Sequence[int],
    rng: np.random.Generator | None = None,
    listener: Listener = silent,
) -> Episodes:
    """One episode per seed, all counted, so short episodes get no more weight than long ones.

    `agent` None is the uniformly random policy. Play is deterministic without `rng`, else sampled from it.
    """
    noise = rng or np.random.default_rng(seeds[0] if seeds else 0)
    memory = None if agent is None else Memory(agent)

    def act(turn: Turn) -> np.ndarray:
        return random_actions(vector.action, turn.obs, noise) if memory is None else memory.act(turn, rng)

    n, over = len(seeds), 0
    returns, lengths, success, motion = (
        np.zeros(n),
        np.zeros(n, np.int64),
        np.full(n, np.nan),
        _Motion(vector.action, n),
    )
    for steps in stream(vector, seeds, act):
        returns[steps.episode] += steps.reward
        lengths[steps.episode] += 1
        success[steps.episode] = steps.success
        motion.hear(steps)
        if steps.done.any():
            over += int(steps.done.sum())
            listener(Event("play", over, len(seeds)))
    return Episodes(tuple(seeds), returns, lengths, success, *motion.means(lengths))


class _Motion:
    """Sums over the steps of `n` episodes: of changes of the action, and of its squares."""

    def __init__(self, space: Part, n: int) -> None:
        self._last = np.zeros((n, *space.shape)) if isinstance(space, Box) else None
        self._changes, self._squares = np.zeros(n), np.zeros(n)

    def hear(self, steps: Steps) -> None:
        """Add one step of some episodes."""
        if self._last is None:
            return
        actions, rest = np.asarray(steps.action, np.float64), tuple(range(1, steps.action.ndim))
        moved = np.abs(actions - self._last[steps.episode]).mean(rest)
        self._changes[steps.episode] += np.where(steps.t > 0, moved, 0.0)
        self._squares[steps.episode] += np.square(actions).mean(rest)
        self._last[steps.episode] = actions

    def means(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smoothness and energy of every episode (n,)."""
        if self._last is None:
            return np.full(len(lengths), np.nan), np.full(len(lengths), np.nan)
        return self._changes / np.maximum(lengths - 1, 1), self._squares / np.maximum(lengths, 1)


def collect_observations(agent: Actor, vector: Vector, n: int, seed: int) -> np.ndarray:
    """`n` raw observations (n, *shape) from the agent's own deterministic play."""
    return collect_turns(agent, vector, n, seed)[0][:n]


def collect_turns(
    agent: Actor, vector: Vector, n: int, seed: int, whole: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Raw observations (N, *shape) of the agent's own deterministic play, and where episodes begin (N,).

    They are turns of all slots, one after the other, at least `n` observations; with `whole`, until an episode is over,
    too, or MOST_TURNS have passed.
    """
    memory, rows, begins, over = Memory(agent), [], [], False
    for steps in stream(vector, count(seed), memory.act):
        rows.append(steps.obs)
        begins.append(steps.t == 0)
        over = over or not whole or bool(steps.done.any())
        if len(rows) * len(vector) >= n and (over or len(rows) >= MOST_TURNS):
            break
    return np.concatenate(rows), np.concatenate(begins)
