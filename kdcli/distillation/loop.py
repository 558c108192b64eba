"""Distillation: rounds of collecting labelled states and training on them; the best student by return is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from kdcli.agents.agent import Acts, Agent
from kdcli.choice import Choice
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner, agreement
from kdcli.distillation.objective import Objective
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.distillation.student import default_losses, new_student, rule_of
from kdcli.envs.mixture import Mixture
from kdcli.envs.play import play, seeds_from
from kdcli.envs.seeds import first_seed
from kdcli.envs.stream import Steps, stream
from kdcli.envs.vector import Vector
from kdcli.progress import Event, Listener, silent

Labelled = tuple[np.ndarray, dict[str, np.ndarray]]


class Collector:
    """An endless source of labelled states; episodes go on across calls, so long ones are seen to their end."""

    def __init__(self, teacher: Acts, vector: Vector, seed: int, noise: float = 0.0) -> None:
        self._teacher, self._vector, self._noise, self._seed = teacher, vector, noise, seed
        self._mixture = Mixture(teacher, None, 1.0, noise, seed)
        self._labels: dict[str, np.ndarray] = {}
        self._steps: Iterator[Steps] = stream(vector, count(first_seed("train", seed)), self._act)

    def _act(self, obs: np.ndarray) -> np.ndarray:
        decision = self._mixture.decide(obs)
        self._labels = dict(decision.labels)
        return decision.action

    def collect(self, student: Acts | None, beta: float, n: int) -> Labelled:
        """At least `n` states: observations (N, *shape) and the teacher's columns, acted by the mixture."""
        self._mixture.student, self._mixture.beta = student, beta
        rows: list[np.ndarray] = []
        labels: list[dict[str, np.ndarray]] = []
        got = 0
        while got < n:
            steps = next(self._steps)
            rows.append(steps.obs)
            labels.append(self._labels)
            got += len(steps.obs)
        return np.concatenate(rows), {k: np.concatenate([part[k] for part in labels]) for k in labels[0]}


@dataclass(frozen=True)
class Round:
    """What one round came to."""

    index: int
    labels: int
    updates: int
    loss: float
    agreement: float
    mean_return: float


@dataclass
class Distilled:
    """The best student and how it came about."""

    student: Agent
    rounds: list[Round] = field(default_factory=list)


def beta_schedule(config: DistillConfig) -> Schedule:
    """The teacher's share of the steps over the rounds, by data mode."""
    fixed = {"teacher": "1", "student": "0"}
    return parse_schedule(fixed.get(config.data, config.beta))


def distill(
    teacher: Acts, config: DistillConfig, vector: Vector, data: Labelled | None = None, listener: Listener = silent
) -> Distilled:
    """Teach a student; `data` is what to learn from when `config.data` is offline. The env judges every round.

    Raises:
        UsageError: a loss the teacher cannot feed, or a choice that cannot be read.
    """
    losses = config.loss or default_losses(teacher)
    objective = Objective.parse(losses, config.tau)
    collector = Collector(teacher, vector, config.seed, config.noise)
    beta = beta_schedule(config)
    first = data if data is not None else collector.collect(None, 1.0, config.labels // config.rounds)
    student = new_student(teacher, Choice.parse(config.student), losses, first[0], config.seed)
    buffer = Buffer(student.preprocess, rule_of(teacher), config.capacity)
    learner = Learner(student, objective, parse_schedule(config.lr), config.batch, config.seed)
    judge = Vector(vector.spec, min(len(vector) * 2, config.episodes))
    seeds = seeds_from(first_seed("select", config.seed), config.episodes)
    best, history = learner.snapshot(), []
    for index in range(config.rounds):
        share = max(1, config.rounds - 1)
        if index == 0:
            fresh: Labelled | None = first
        elif data is None:
            fresh = collector.collect(learner.student, beta(index / share), config.labels // config.rounds)
        else:
            fresh = None
        if fresh is not None:
            buffer.add(*fresh)
        n = config.updates // config.rounds
        loss = learner.train(buffer, n, (index / config.rounds, (index + 1) / config.rounds))
        result = play(learner.student, judge, seeds)
        near = agreement(learner.student, *buffer.newest(2048))
        history.append(Round(index, len(buffer), n * (index + 1), loss, near, float(result.returns.mean())))
        if history[-1].mean_return >= max(r.mean_return for r in history):
            best = learner.snapshot()
        listener(Event("distill", index + 1, config.rounds, _facts(history)))
    judge.close()
    return Distilled(best, history)


def _facts(history: list[Round]) -> dict[str, float | int | str]:
    last = history[-1]
    best = max(r.mean_return for r in history)
    return {
        "return": last.mean_return,
        "best": best,
        "agreement": last.agreement,
        "loss": last.loss,
        "labels": last.labels,
    }
