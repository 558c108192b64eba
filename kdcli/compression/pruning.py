"""Pruning with all it needs: real states, recovery by distillation, scores on paired seeds, sizes of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.benchmarks.verdict import Comparison, compare
from kdcli.compression.file_costs import Cost, costs
from kdcli.compression.recovery import Recovery, training_config_of
from kdcli.distillation.online import judge_of
from kdcli.errors import UsageError, option
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.graph.count import count
from kdcli.graph.trace import trace
from kdcli.progress import Listener, silent
from kdcli.pruning.config import PruneConfig
from kdcli.pruning.loop import Pruned, Recover, Tools, prune
from kdcli.pruning.lossless import Proved, proved
from kdcli.pruning.size_targets import Budget
from kdcli.pruning.sparse import storage
from kdcli.pruning.states import real_states
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import Purpose, first_seed

_SLOTS = 16
_TIMED_SECONDS, _TIMED_ON = 1.0, 256  # for all files together; states


@dataclass(frozen=True)
class Row:
    """One agent: what it costs and what it returns.

    `sparse_bytes` are those of its parameters with zeros left out, indices and all; `cost` is that of its ONNX file,
    beside the agent's before.
    """

    name: str
    network: str
    params: int
    nonzeros: int
    macs: int
    cost: Cost
    sparse_bytes: int
    mean_return: float
    comparison: Comparison | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """The agent as it was, without what it did not need, and pruned."""

    proved: Proved
    pruned: Pruned
    rows: tuple[Row, ...]


class Scale:
    """Scores on paired seeds: 1 is the teacher's mean return, 0 that of random play."""

    def __init__(self, teacher: Agent, purpose: Purpose, config: PruneConfig) -> None:
        assert teacher.env is not None
        self._vector = open_vector(teacher.env, teacher, min(_SLOTS, config.episodes))
        self._seeds = seeds_from(first_seed(purpose, config.seed), config.episodes)
        self.teacher, self.random = self.returns(teacher), self.returns(None)
        if self.teacher.mean() <= self.random.mean():
            what = f"the agent returns {self.teacher.mean():.1f}, random play {self.random.mean():.1f}"
            fix = f"name the env and the wrappers it was trained in: {option('env')}, {option('wrapper')}"
            raise UsageError(what, "there is nothing to hold", f"{fix}; bench shows how it plays")

    def returns(self, agent: Actor | None) -> np.ndarray:
        """One return a seed (n,)."""
        return play(agent, self._vector, self._seeds).returns

    def score(self, agent: Actor) -> float:
        """The share of the teacher's gain over random play."""
        chance = self.random.mean()
        return float((self.returns(agent).mean() - chance) / (self.teacher.mean() - chance))


def run(agent: Agent, config: PruneConfig, listener: Listener = silent) -> Outcome:
    """Lossless first, then rounds of cutting, recovering and scoring, then a table of all three agents.

    Raises:
        UsageError: no env, a budget that cannot be met, options that do not go together.
        RefusedError: what was to change no action does.
    """
    budget = _budget(config, agent)
    first = proved(agent, lambda seed: real_states(agent, config.states, config.seed + seed))
    states = some_of(agent, real_states(agent, config.states, config.seed), config.importance_states)
    tools = Tools(_recovery(agent, config), Scale(agent, "screen", config).score, budget)
    done = prune(first.agent, states, config, tools, listener)
    scale = Scale(agent, "bench", config)
    named = {"before": agent, "lossless": first.agent, "pruned": done.agent}
    cost = costs_of(named, states)
    rows = tuple(_row(name, found, cost[name], scale, config) for name, found in named.items())
    return Outcome(first, done, rows)


def costs_of(agents: Mapping[str, Agent], states: States) -> dict[str, Cost]:
    """What the agents' ONNX files cost, beside the first."""
    files = {name: convert(agent, states, ExportConfig()).agent for name, agent in agents.items()}
    return costs(files, states.observations, _TIMED_SECONDS)


def some_of(agent: Agent, states: States, n: int) -> States:
    """At most about `n` of the states: evenly drawn; of an agent with memory, the first turns of all episodes."""
    if n >= len(states):
        return states
    if not agent.state_size:
        return States(states.observations[np.arange(n) * len(states) // n], states.source)
    rows = max(1, n // states.slots) * states.slots
    begins = None if states.begins is None else states.begins[:rows]
    return replace(states, observations=states.observations[:rows], begins=begins)


def _budget(config: PruneConfig, agent: Agent) -> Budget:
    """What the agent shall come to; of N:M nothing is asked but the pattern."""
    config.check()
    if config.to is None:
        return Budget.parse("nonzeros<=1")
    return Budget.parse(config.to, {"latency_us": _timed(agent)})


def _timed(agent: Agent) -> Any:
    """Microseconds of one decision in onnxruntime, the median of about a second."""
    drawn: list[States] = []

    def measure(found: Agent) -> float:
        if not drawn:
            drawn.append(real_states(agent, _TIMED_ON, 0))
        latency = costs_of({"it": found}, drawn[0])["it"].latency_us
        assert latency is not None
        return latency

    return measure


def _recovery(agent: Agent, config: PruneConfig) -> Recover:
    if not config.recover:
        return lambda found: found
    assert agent.env is not None
    training_config = training_config_of(config.recover, config.labels, config.lr, config.seed)
    vector = open_vector(agent.env, agent, training_config.envs)
    return Recovery(
        agent, vector, training_config, judge_of(agent, agent.env, training_config), config.pattern != "units"
    )


def lossless_costs(before: Agent, after: Agent) -> dict[str, Cost]:
    """What an agent's file cost before and after, timed on states of its own play."""
    return costs_of({"before": before, "after": after}, real_states(before, _TIMED_ON, 0))


def _row(name: str, agent: Agent, cost: Cost, scale: Scale, config: PruneConfig) -> Row:
    counted = count(trace(agent))
    returns = scale.teacher if name == "before" else scale.returns(agent)
    judged = None if name == "before" else compare(returns, scale.teacher, scale.random, config.min_score)
    return Row(
        name=name,
        network=str(agent.policy.network),
        params=counted.n_params,
        nonzeros=sum(int(p.count_nonzero()) for p in agent.policy.network.parameters()),
        macs=counted.multiply_adds,
        cost=cost,
        sparse_bytes=storage(agent).smallest,
        mean_return=float(returns.mean()),
        comparison=judged,
    )
