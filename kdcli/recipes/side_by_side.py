"""Agents side by side as `kdcli bench` and recipes have them: with their exports, a linear student, and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from kdcli.agents.agent import Agent
from kdcli.benchmarks.baseline import Lesson, affordable, measure_pace
from kdcli.benchmarks.bench import arena, bench, time_again
from kdcli.benchmarks.config import BenchConfig
from kdcli.benchmarks.contender import Contender
from kdcli.benchmarks.lineup import LINEAR, choose_env, is_linear
from kdcli.benchmarks.record import to_json
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import distill
from kdcli.distillation.pool import watch
from kdcli.envs.play import open_vector, play, seeds_from
from kdcli.envs.seeds import first_seed
from kdcli.envs.vector import Vector
from kdcli.progress import Listener, Note
from kdcli.recipes.runtimes.lab import enter, equip
from kdcli.reports.gates import Gate, Outcome, check_agents, judge, wants_retiming
from kdcli.spec import Json

_STATES = 512  # on which an agent and its export are compared


def measure(
    contenders: Sequence[Contender], config: BenchConfig, gates: Sequence[Gate], per_episode: bool, listener: Listener
) -> tuple[Json, list[Outcome]]:
    """Everything for all contenders and the linear student; latencies twice where a gate fails on the first ones."""
    check_agents(gates, [*(contender.name for contender in contenders), *([LINEAR] if config.baselines else [])])
    vector = arena(contenders, choose_env(contenders, listener), config)
    contenders = [*contenders, *_linear(contenders, vector, config, listener)]
    check_agents(gates, [contender.name for contender in contenders])
    done = bench(_ready(contenders, vector, config, listener), vector, config, listener)
    vector.close()
    record = to_json(done, per_episode)
    if wants_retiming(judge(record, gates)):
        listener(Note("a gate failed on a latency: measuring once more"))
        record = to_json(time_again(done, listener), per_episode)
    outcomes = judge(record, gates)
    return {**record, "gates": [outcome.to_json() for outcome in outcomes]}, outcomes


def _ready(contenders: Sequence[Contender], vector: Vector, config: BenchConfig, listener: Listener) -> list[Contender]:
    """The contenders with their ONNX twins, checked on states of their own play, and their programs to be timed."""
    entrants = [enter(contender, vector, _STATES, config.seed, listener) for contender in contenders]
    if not config.latency_budget:
        return [entrant.contender for entrant in entrants]
    return equip(entrants, config.runtimes, listener)


def _linear(
    contenders: Sequence[Contender], vector: Vector, config: BenchConfig, listener: Listener
) -> list[Contender]:
    """The simplest student there is, where the time allows: a small network that is no better was not needed."""
    teacher, budget = contenders[0], config.linear_budget
    if not (config.baselines and budget and contenders[1:]) or is_linear(teacher):
        return []
    lesson = affordable(measure_pace(teacher.player, vector, config.seed), budget)
    if lesson is None:
        listener(Note("no linear student: too little time to train one, see --linear-budget"))
        return []
    return [Contender(LINEAR, _distilled(teacher, vector, lesson, config.seed, listener), baseline=True)]


def _distilled(teacher: Contender, vector: Vector, lesson: Lesson, seed: int, listener: Listener) -> Agent:
    config = DistillConfig(student="linear", seed=seed, **asdict(lesson))
    own = open_vector(vector.spec, teacher.player, config.envs)
    pool = watch(teacher.player, own, config.labels // config.rounds, config.capacity, seed)
    judged = seeds_from(first_seed("select", seed), config.episodes)
    done = distill(teacher.player, config, pool, lambda a: float(play(a, vector, judged).returns.mean()), listener)
    own.close()
    return done.student
