"""Whole episodes: what an agent's return is, and the states it really visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from kdcli.agents.agent import Acts
from kdcli.envs.make import check_fits
from kdcli.envs.stream import stream
from kdcli.envs.vector import Vector, random_actions
from kdcli.progress import Event, Listener, silent
from kdcli.spec import EnvSpec

N_SLOTS = 16


@dataclass(frozen=True)
class Episodes:
    """Undiscounted return and length of one episode a seed, in the order of `seeds`."""

    seeds: tuple[int, ...]
    returns: np.ndarray
    lengths: np.ndarray


def seeds_from(base: int, n: int) -> range:
    """The seeds of `n` paired episodes: base, base + 1, ..."""
    return range(base, base + n)


def open_vector(spec: EnvSpec, agent: Acts | None, n: int = N_SLOTS) -> Vector:
    """Make `n` envs and check that the agent fits them.

    Raises:
        UsageError: the env cannot be made, or its spaces are not the agent's.
    """
    vector = Vector(spec, n)
    if agent is not None:
        check_fits(spec, (vector.observation, vector.action), (agent.observation, agent.action))
    return vector


def play(
    agent: Acts | None,
    vector: Vector,
    seeds: Sequence[int],
    rng: np.random.Generator | None = None,
    listener: Listener = silent,
) -> Episodes:
    """One episode per seed, all counted, so short episodes get no more weight than long ones.

    `agent` None is the uniformly random policy. Play is deterministic without `rng`, else sampled from it.
    """
    noise = rng or np.random.default_rng(seeds[0] if seeds else 0)

    def act(obs: np.ndarray) -> np.ndarray:
        return random_actions(vector.action, len(obs), noise) if agent is None else agent.act(obs, rng)

    returns, lengths, over = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64), 0
    for steps in stream(vector, seeds, act):
        returns[steps.episode] += steps.reward
        lengths[steps.episode] += 1
        if steps.done.any():
            over += int(steps.done.sum())
            listener(Event("play", over, len(seeds)))
    return Episodes(tuple(seeds), returns, lengths)


def collect_observations(agent: Acts, vector: Vector, n: int, seed: int) -> np.ndarray:
    """`n` raw observations (n, *shape) from the agent's own deterministic play."""
    rows: list[np.ndarray] = []
    for steps in stream(vector, count(seed), agent.act):
        rows.append(steps.obs)
        if sum(map(len, rows)) >= n:
            break
    return np.concatenate(rows)[:n]
