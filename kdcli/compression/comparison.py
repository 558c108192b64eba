"""Agents side by side as `kdcli bench` and recipes have them: with their exports, a linear student, and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from kdcli.agents.agent import Agent
from kdcli.benchmarks.baseline_budget import TrainingBudget, affordable, measure_throughput
from kdcli.benchmarks.bench import MEASURES, Bar, arena, bench, time_again
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.entries import LINEAR, choose_env, is_linear
from kdcli.benchmarks.entry import BenchEntry
from kdcli.benchmarks.record import to_json
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import distill
from kdcli.distillation.replay_pool import watch
from kdcli.envs.vector import Vector
from kdcli.progress import Listener, Note
from kdcli.reports.gates import Gate, Outcome, check_agents, judge, wants_retiming
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.runtimes.prepare import enter, equip
from kdcli.spec import Json

_STATES = 512  # on which an agent and its export are compared


def measure(
    entries: Sequence[BenchEntry], config: BenchConfig, gates: Sequence[Gate], per_episode: bool, listener: Listener
) -> tuple[Json, list[Outcome]]:
    """Everything for all contenders and the linear student; latencies twice where a gate fails on the first ones."""
    check_agents(gates, [*(entry.name for entry in entries), *([LINEAR] if config.baselines else [])])
    vector = arena(entries, choose_env(entries, listener), config)
    entries = [*entries, *_linear(entries, vector, config, listener)]
    check_agents(gates, [entry.name for entry in entries])
    ready = _ready(entries, vector, config, listener)
    done = bench(ready, vector, config, listener, _bars(ready, gates))
    vector.close()
    record = to_json(done, per_episode)
    if wants_retiming(judge(record, gates)):
        listener(Note("a gate failed on a latency: measuring once more"))
        record = to_json(time_again(done, listener), per_episode)
    outcomes = judge(record, gates)
    return {**record, "gates": [outcome.to_json() for outcome in outcomes]}, outcomes


def _bars(entries: Sequence[BenchEntry], gates: Sequence[Gate]) -> dict[str, list[Bar]] | None:
    """What the gates want decided before play is over; None where that is left to `--min-score`."""
    asked = [gate for gate in gates if gate.metric in MEASURES]
    others = entries[1:]
    named = {
        c.name: [(g.metric, g.bound) for g in asked if g.agent == c.name or not (g.agent or c.baseline)] for c in others
    }
    return named if any(named.values()) else None


def _ready(entries: Sequence[BenchEntry], vector: Vector, config: BenchConfig, listener: Listener) -> list[BenchEntry]:
    """The contenders with their ONNX twins, checked on states of their own play, and their programs to be timed."""
    entrants = [enter(entry, vector, _STATES, config.seed, listener) for entry in entries]
    if not config.latency_budget:
        return [entrant.entry for entrant in entrants]
    return equip(entrants, config.runtimes, listener)


def _linear(entries: Sequence[BenchEntry], vector: Vector, config: BenchConfig, listener: Listener) -> list[BenchEntry]:
    """The simplest student there is, where the time allows: a small network that is no better was not needed."""
    teacher, budget = entries[0], config.linear_budget
    if not (config.baselines and budget and entries[1:]) or is_linear(teacher):
        return []
    training_config = affordable(measure_throughput(teacher.player, vector, config.seed), budget)
    if training_config is None:
        listener(Note("no linear student: too little time to train one, see --linear-budget"))
        return []
    return [BenchEntry(LINEAR, _distilled(teacher, vector, training_config, config.seed, listener), baseline=True)]


def _distilled(
    teacher: BenchEntry, vector: Vector, training_config: TrainingBudget, seed: int, listener: Listener
) -> Agent:
    config = DistillConfig(student="linear", seed=seed, **asdict(training_config))
    own = open_vector(vector.spec, teacher.player, config.envs)
    pool = watch(teacher.player, own, config.labels // config.rounds, config.capacity, seed)
    judged = seeds_from(first_seed("select", seed), config.episodes)
    done = distill(teacher.player, config, pool, lambda a: float(play(a, vector, judged).returns.mean()), listener)
    own.close()
    return done.student
