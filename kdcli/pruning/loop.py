"""Rounds of cutting and recovering, until the agent is as small as asked or its return says stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.errors import UsageError, option
from kdcli.progress import Event, Listener, silent
from kdcli.pruning import IMPORTANCE, PACES
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.importance import OF_OUTPUTS
from kdcli.pruning.masks import masked, n_of_m, sparsest, weight_scores
from kdcli.pruning.size_targets import Budget
from kdcli.pruning.structured import order, shrink
from kdcli.pruning.surgery import check_whole, with_network
from kdcli.pruning.unit_stats import UnitStats

Recover = Callable[[Agent], Agent]
Judge = Callable[[Actor], float]


@dataclass(frozen=True)
class Cut:
    """One round: what was asked for, what the agent came to, and its score after recovery."""

    asked: float
    size: float
    n_params: int
    score: float


@dataclass(frozen=True, eq=False)
class Pruned:
    """The smallest agent that passed, all rounds, and whether the last of them is what was asked for."""

    agent: Agent
    rounds: tuple[Cut, ...]
    reached: bool


@dataclass(frozen=True)
class Tools:
    """What a caller brings along: recovery after a cut, the score of an agent, and the budget."""

    recover: Recover
    judge: Judge
    budget: Budget


def prune(agent: Agent, states: States, config: PruneConfig, tools: Tools, listener: Listener = silent) -> Pruned:
    """Cut in rounds; after each the agent recovers and is judged. One that scores less than asked ends it.

    `states` are what importance is measured on. Nothing is cut whose score was not looked at.

    Raises:
        UsageError: a budget that cannot be met, a name that is not known, an agent that is quantized.
    """
    config.check()
    check_whole(agent)
    current, before, rounds = with_network(agent, agent.policy.network), None, list[Cut]()
    if config.importance == "movement":
        before, current = current, tools.recover(current)
    start, n = tools.budget.measure(current), 1 if config.block else config.rounds
    for index in range(1, n + 1):
        asked = PACES.load(config.pace)(start, tools.budget.most, index / n)
        thin = _cut(UnitStats(current, states, before), config, tools.budget, asked)
        found = tools.recover(thin)
        rounds.append(Cut(asked, tools.budget.measure(found), found.n_params, tools.judge(found)))
        listener(Event("prune", index, n, {tools.budget.name: rounds[-1].size, "score": rounds[-1].score}))
        if rounds[-1].score < config.min_score:
            return Pruned(current, tuple(rounds), reached=False)
        before, current = thin, found
    return Pruned(current, tuple(rounds), reached=True)


def _cut(unit_stats: UnitStats, config: PruneConfig, budget: Budget, size: float) -> Agent:
    """The agent at `size`, by the pattern of what goes."""
    if config.pattern == "units":
        return _without_units(unit_stats, config, budget, size)
    scores = weight_scores(unit_stats, config.importance)
    if config.block is not None:
        return masked(unit_stats, n_of_m(scores, *config.block))
    if budget.name != "nonzeros":
        why, fix = "the shapes stay", f"give {option('to', 'nonzeros<=...')}"
        raise UsageError(f"zeros do not change {budget.name}", why, fix)
    return masked(unit_stats, sparsest(unit_stats, scores, int(size), config.allocation == "uniform"))


def _without_units(unit_stats: UnitStats, config: PruneConfig, budget: Budget, size: float) -> Agent:
    judged: Any = IMPORTANCE.load(config.importance)
    going = order(unit_stats, judged(unit_stats), config.allocation, config.importance in OF_OUTPUTS)
    return shrink(unit_stats, going, budget.measure, size)
