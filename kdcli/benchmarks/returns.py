"""Every contender on the same initial states, and the states that the reference visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.actor_wrapper import ActorWrapper
from kdcli.envs.vector import Vector
from kdcli.progress import Event, Listener, Note, silent
from kdcli.rollouts.evaluate import Episodes, play


@dataclass(frozen=True)
class Played:
    """The episodes of one contender, in the order of their seeds, and what playing them took in seconds."""

    episodes: Episodes
    seconds: float


@dataclass(frozen=True)
class Seeds:
    """The initial states, and where sampled and random actions start."""

    episodes: range
    noise: int
    sampled: bool = False

    def rng(self) -> np.random.Generator | None:
        """A fresh generator, the same for every contender; None for deterministic play."""
        return np.random.default_rng(self.noise) if self.sampled else None


class Run:
    """One contender on its way through the seeds; `agent` None is the uniformly random policy."""

    def __init__(self, agent: Actor | None, seeds: Seeds) -> None:
        self._agent, self._rng = agent, np.random.default_rng(seeds.noise) if agent is None else seeds.rng()
        self._played: Played | None = None

    @property
    def played(self) -> Played:
        """All episodes so far; `go_on` came before."""
        assert self._played is not None
        return self._played

    def go_on(self, vector: Vector, seeds: Sequence[int], listener: Listener = silent) -> Played:
        """Play one episode for each further seed; all episodes so far."""
        began, before = perf_counter(), self._played
        further = play(self._agent, vector, seeds, self._rng, listener)
        episodes = further if before is None else before.episodes.followed_by(further)
        self._played = Played(episodes, (before.seconds if before else 0.0) + perf_counter() - began)
        return self.played


def play_one(agent: Actor | None, vector: Vector, seeds: Seeds, listener: Listener = silent) -> Played:
    """One episode a seed; `agent` None is the uniformly random policy."""
    return Run(agent, seeds).go_on(vector, seeds.episodes, listener)


def counted(listener: Listener, before: int, total: int, name: str) -> Listener:
    """A listener that hears of one contender's episodes as part of all: `before` are over already."""

    def hear(heard: Event | Note) -> None:
        listener(Event("bench", before + heard.done, total, {"playing": name}) if isinstance(heard, Event) else heard)

    return hear


class Recorder(ActorWrapper):
    """An agent that acts as the one it is given, and keeps a uniform sample of the states it acted in."""

    def __init__(self, agent: Actor, n: int, seed: int = 0) -> None:
        super().__init__(agent)
        self._n, self._rng = n, np.random.default_rng(seed)
        self._obs: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """As the agent acts."""
        self._keep(obs)
        return self.agent.act(obs, rng)

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As the agent steps."""
        self._keep(obs)
        return self.agent.step(obs, state, rng)

    def _keep(self, obs: np.ndarray) -> None:
        self._obs.append(obs)
        self._keys.append(self._rng.random(len(obs)))
        if sum(map(len, self._keys)) > 4 * self._n:
            self._thin()

    def states(self) -> np.ndarray:
        """At most `n` of the raw observations so far (n, *shape), every one as likely, in the order they were seen."""
        self._thin()
        return self._obs[0]

    def _thin(self) -> None:
        """Keep the rows with the smallest random keys: a uniform sample of all rows whenever it is done."""
        obs, keys = np.concatenate(self._obs), np.concatenate(self._keys)
        kept = np.sort(np.argsort(keys, kind="stable")[: self._n])
        self._obs, self._keys = [obs[kept]], [keys[kept]]
