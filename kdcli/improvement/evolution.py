"""Weights improved by return: covariance matrix adaptation from those that imitation found.

Imitation makes a small network err least on average; where it cannot do as its teacher does, the best policy of its
size is another one (Mania et al. 2018 find linear policies for the MuJoCo tasks by random search alone).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cmaes import CMA, SepCMA

from kdcli.agents.agent import Agent
from kdcli.envs.vector import Vector
from kdcli.improvement.config import ImproveConfig
from kdcli.improvement.population import Population
from kdcli.progress import Event, Listener, silent
from kdcli.rollouts.evaluate import seeds_from
from kdcli.rollouts.seeds import first_seed

# Above so many weights, the covariance matrix costs more than the episodes: only its diagonal is learned.
WHOLE = 400
GiveUp = Callable[["Judged"], bool]


@dataclass(frozen=True)
class Judged:
    """After so many generations: the mean returns of a generation, of its center, and of the best center so far."""

    generation: int
    population: float
    center: float
    best: float


@dataclass(frozen=True, eq=False)
class Improved:
    """The agent with the best weights found, and how they were found; `judged[0]` is of the agent as it was."""

    agent: Agent
    judged: tuple[Judged, ...]
    episodes: int


def improve(
    agent: Agent, vector: Vector, config: ImproveConfig, listener: Listener = silent, give_up: GiveUp | None = None
) -> Improved:
    """Move the weights of a linear or MLP agent uphill on its mean return.

    CMA-ES (Hansen 2016; Ros and Hansen 2008 with a diagonal matrix for more than `WHOLE` weights) on new initial
    states every generation; the center is judged on states of its own, and the best one is kept, so that the agent
    never becomes worse there. `give_up` ends the search early.
    """
    population = Population(agent)
    start = population.weights
    scale = float(np.sqrt(np.mean(start**2))) or 1.0
    search = _search(start / scale, config)
    judged_on = seeds_from(first_seed("select", config.seed), config.episodes)
    played = seeds_from(first_seed("evolve", config.seed), config.generations * config.rollouts)
    best, weights = float(population.returns(start[None], vector, judged_on).mean()), start
    judged = [Judged(0, best, best, best)]
    for generation in range(1, config.generations + 1):
        seeds = played[(generation - 1) * config.rollouts : generation * config.rollouts]
        asked = np.stack([search.ask() for _ in range(search.population_size)])
        returns = population.returns(asked * scale, vector, seeds).mean(1)
        search.tell([(one, -value) for one, value in zip(asked, returns.tolist(), strict=True)])
        if generation % config.judge_every and generation < config.generations:
            continue
        center = search.mean * scale
        value = float(population.returns(center[None], vector, judged_on).mean())
        if value > best:
            best, weights = value, center
        judged.append(Judged(generation, float(returns.mean()), value, best))
        listener(Event("improve", generation, config.generations, {"return": value, "best": best}))
        if give_up is not None and give_up(judged[-1]):
            break
    episodes = len(judged) * config.episodes + judged[-1].generation * config.population * config.rollouts
    return Improved(population.agent_of(weights), tuple(judged), episodes)


def _search(start: np.ndarray, config: ImproveConfig) -> CMA | SepCMA:
    kind = CMA if len(start) <= WHOLE else SepCMA
    return kind(mean=start, sigma=config.sigma, population_size=config.population, seed=config.seed)
