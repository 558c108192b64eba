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
from kdcli.rollouts.step_loop import stream
from kdcli.spec import EnvSpec

N_SLOTS = 16
MOST_TURNS = 5000


@dataclass(frozen=True)
class Episodes:
    """Undiscounted return and length of one episode a seed, in the order of `seeds`."""

    seeds: tuple[int, ...]
    returns: np.ndarray
    lengths: np.ndarray


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

    returns, lengths, over = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64), 0
    for steps in stream(vector, seeds, act):
        returns[steps.episode] += steps.reward
        lengths[steps.episode] += 1
        if steps.done.any():
            over += int(steps.done.sum())
            listener(Event("play", over, len(seeds)))
    return Episodes(tuple(seeds), returns, lengths)


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
