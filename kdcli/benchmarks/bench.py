"""Agents side by side on one env: sizes, timings, paired returns, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdcli.agents.memory import Memory, Turn
from kdcli.agents.states import States
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entries import RANDOM
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.latency import Latencies, time_all
from kdcli.benchmarks.returns import Played, Recorder, Run, Seeds, counted
from kdcli.benchmarks.score import Arms, Risk, score
from kdcli.benchmarks.sequential import FIRST, Measure, Plan, Trial
from kdcli.benchmarks.similarity import Similarity, compare_actions
from kdcli.benchmarks.size import Size, measure
from kdcli.benchmarks.statistics import Summary, summary
from kdcli.benchmarks.tail import Tail, describe, tail
from kdcli.benchmarks.verdict import Comparison, compare
from kdcli.envs.make import check_fits
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note, silent
from kdcli.rollouts.evaluate import collect_turns, open_vector, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import EnvSpec, same_space

# What may have to be decided before a benchmark is over.
MEASURES: dict[str, Measure] = {"score": score, "tail": tail}
ALONE = 100  # episodes of an agent that is compared with no other
Bar = tuple[str, float]  # one of MEASURES, and the bound it is to be above or below


@dataclass(frozen=True, eq=False)
class Result:
    """One contender's numbers; the reference has no `comparison`, `tail` and `similarity` with itself."""

    entry: BenchEntry
    size: Size
    played: Played
    returns: Summary
    comparison: Comparison | None = None
    tail: Tail | None = None
    similarity: Similarity | None = None


@dataclass(frozen=True, eq=False)
class Bench:
    """What was measured. The first of `results` is the reference.

    Attributes:
        cap: no episode is longer than this many steps.
        random, random_returns: the uniformly random policy on the same initial states, where a score is 0.
        latencies: None where no time was given to timing.
        states: what the reference observed in its play, on which actions were compared and calls timed.
        repeated: whether `latencies` are a second measurement.
        looks: the episodes after which the verdicts were looked at.
    """

    config: BenchConfig
    env: EnvSpec
    cap: int
    seeds: Seeds
    results: tuple[Result, ...]
    random: Played
    random_returns: Summary
    latencies: Latencies | None
    states: States
    repeated: bool = False
    looks: tuple[int, ...] = ()

    @property
    def reference(self) -> Result:
        """The agent that the others are compared with."""
        return self.results[0]

    def __getitem__(self, name: str) -> Result:
        """The numbers of the contender called `name`."""
        return {result.entry.name: result for result in self.results}[name]


def arena(entries: Sequence[BenchEntry], spec: EnvSpec, config: BenchConfig) -> Vector:
    """The env, its episodes capped as `config` says, in slots for side-by-side play; checked to fit every contender.

    Raises:
        UsageError: the env cannot be made, or see `check_entries`.
    """
    vector = open_vector(replace(spec, max_steps=config.max_steps or spec.max_steps), None)
    check_entries(entries, vector, config)
    return vector


def check_entries(entries: Sequence[BenchEntry], vector: Vector, config: BenchConfig) -> None:
    """Check all that can go wrong before anyone plays.

    Raises:
        UsageError: two contenders share a name; they do not play the same env, or not this one; sampled play is asked
            of a file that holds no distribution.
    """
    names = [entry.name for entry in entries]
    if not names or len({*names, RANDOM}) <= len(names):
        given = ", ".join(names) or "none"
        raise UsageError(
            "agents need names of their own", f"given: {given}; taken: {RANDOM}", "give one of the files another name"
        )
    reference = entries[0].player
    check_fits(vector.spec, (vector.observation, vector.action), (reference.observation, reference.action))
    for entry in entries:
        _check_alike(entry, entries[0])
        if config.sampled:
            _check_sampled(entry, vector)


def _check_alike(entry: BenchEntry, reference: BenchEntry) -> None:
    ours, theirs = entry.player, reference.player
    if not (same_space(ours.observation, theirs.observation) and same_space(ours.action, theirs.action)):
        raise UsageError(
            f"{entry.name} cannot play what {reference.name} plays",
            f"it maps {ours.observation} to {ours.action}, {reference.name} {theirs.observation} to {theirs.action}",
            "compare agents of one env",
        )


def _check_sampled(entry: BenchEntry, vector: Vector) -> None:
    vector.reset(0, 0)
    try:
        first = Turn(vector.obs[:1], np.zeros(1, np.int64), np.ones(1, bool))
        Memory(entry.player).act(first, np.random.default_rng(0))
    except UsageError as error:
        raise UsageError(f"{entry.name}: {error.what}", error.why, error.fix) from None


def bench(
    entries: Sequence[BenchEntry],
    vector: Vector,
    config: BenchConfig | None = None,
    listener: Listener = silent,
    bars: Mapping[str, Sequence[Bar]] | None = None,
) -> Bench:
    """Measure every contender; the first is the reference that the others are compared with.

    Each plays the same initial states, as does the random policy, which a score needs: `config.episodes` of them, or as
    many as decide, up to `config.max_episodes`. What is to be decided are the `bars` of the contenders by name; without
    any, that the score of each candidate is above or below `config.min_score`. Greedy actions are compared and calls
    timed on states of the reference's own play.

    Raises:
        UsageError: see `check_entries`.
    """
    config = config or BenchConfig()
    check_entries(entries, vector, config)
    seeds = Seeds(seeds_from(first_seed("bench", config.seed), 0), config.seed, config.sampled)
    _say_who_is_not_sampled(entries, config, listener)
    recorder, trials = Recorder(entries[0].player, config.states, config.seed), _trials(entries, config, bars)
    players = [recorder, *(entry.player for entry in entries[1:]), None]
    names, runs = [*(entry.name for entry in entries), RANDOM], [Run(player, seeds) for player in players]
    looks = [_first_look(trials, config)]
    while True:
        seeds = _play_on(dict(zip(names, runs, strict=True)), vector, seeds, looks[-1], listener)
        wanted = _look(trials, {name: run.played for name, run in zip(names, runs, strict=True)}, names[0])
        if wanted <= looks[-1]:
            break
        looks.append(wanted)
    *played, random = [run.played for run in runs]
    states = _states(entries, recorder, vector, config.states, seeds)
    return Bench(
        config=config,
        env=vector.spec,
        cap=vector.cap,
        seeds=seeds,
        results=tuple(_results(entries, played, random, states, config)),
        random=random,
        random_returns=summary(random.episodes.returns, config.confidence),
        latencies=time_all(entries, states.observations, config.latency_budget, listener)
        if config.latency_budget
        else None,
        states=states,
        looks=tuple(looks),
    )


def time_again(done: Bench, listener: Listener = silent) -> Bench:
    """The same benchmark with every latency measured anew: what a gate asks for before it fails on a noisy machine."""
    entries = [result.entry for result in done.results]
    latencies = time_all(entries, done.states.observations, done.config.latency_budget, listener)
    return replace(done, latencies=latencies, repeated=True)


def joined(done: Bench, entry: BenchEntry, vector: Vector, listener: Listener = silent) -> Bench:
    """The same benchmark with one more contender, which plays the episodes that the others played."""
    everyone = [*(result.entry for result in done.results), entry]
    check_entries(everyone, vector, done.config)
    played = Run(entry.player, done.seeds).go_on(vector, done.seeds.episodes, counted(listener, 0, 1, entry.name))
    known = [result.played for result in done.results]
    results = _results(everyone, [*known, played], done.random, done.states, done.config)
    return replace(done, results=(*done.results, results[-1]))


def _say_who_is_not_sampled(entries: Sequence[BenchEntry], config: BenchConfig, listener: Listener) -> None:
    greedy = [entry.name for entry in entries if not entry.is_stochastic]
    if config.sampled and greedy:
        listener(Note(f"{', '.join(greedy)}: no distribution to sample from, so played greedily"))


def _trials(
    entries: Sequence[BenchEntry], config: BenchConfig, bars: Mapping[str, Sequence[Bar]] | None
) -> list[tuple[str, Trial]]:
    """What is to be decided, of whom: baselines decide nothing."""
    if bars is None:
        bars = {c.name: [("score", config.min_score)] for c in entries[1:] if not c.baseline}
    first, most = (config.episodes,) * 2 if config.episodes else (FIRST, config.max_episodes)
    risk = Risk(config.confidence, floor=config.floor)
    return [
        (name, Trial(Plan(bound, first, most, risk, MEASURES[metric])))
        for name, asked in bars.items()
        for metric, bound in asked
    ]


def _first_look(trials: Sequence[tuple[str, Trial]], config: BenchConfig) -> int:
    return max((trial.wanted for _, trial in trials), default=config.episodes or min(ALONE, config.max_episodes))


def _look(trials: Sequence[tuple[str, Trial]], played: Mapping[str, Played], reference: str) -> int:
    """Show every trial the episodes that it has not seen; the episodes that the most demanding one wants."""
    for name, trial in trials:
        trial.add(*(played[arm].episodes.returns[trial.n :] for arm in (name, reference, RANDOM)))
    return max((trial.wanted for _, trial in trials), default=0)


def _play_on(runs: Mapping[str, Run], vector: Vector, seeds: Seeds, upto: int, listener: Listener) -> Seeds:
    """Everyone's episodes up to so many; the seeds of all of them."""
    before = len(seeds.episodes)
    every = range(seeds.episodes.start, seeds.episodes.start + upto)
    for i, (name, run) in enumerate(runs.items()):
        done, total = len(runs) * before + i * (upto - before), len(runs) * upto
        run.go_on(vector, every[before:], counted(listener, done, total, name))
    return replace(seeds, episodes=every)


def _states(entries: Sequence[BenchEntry], recorder: Recorder, vector: Vector, n_states: int, seeds: Seeds) -> States:
    """States of the first contender's play."""
    if not any(entry.player.state_size for entry in entries):
        return States(recorder.states(), "rollout")
    # With memory, what an agent does in a state depends on those before it.
    turns = collect_turns(entries[0].player, vector, n_states, seeds.episodes[0])
    return States(turns[0], "rollout", len(vector), turns[1])


def _results(
    entries: Sequence[BenchEntry], played: Sequence[Played], random: Played, states: States, config: BenchConfig
) -> list[Result]:
    teacher, chance = played[0].episodes.returns, random.episodes.returns
    found = []
    for entry, mine in zip(entries, played, strict=True):
        returns = mine.episodes.returns
        result = Result(entry, measure(entry), mine, summary(returns, config.confidence))
        if entry is not entries[0]:
            judged = compare(returns, teacher, chance, config.min_score, config.confidence, config.floor)
            worst = describe(Arms(returns, teacher, chance), Risk(config.confidence, floor=config.floor))
            near = compare_actions(entries[0], entry, states)
            result = replace(result, comparison=judged, tail=worst, similarity=near)
        found.append(result)
    return found
