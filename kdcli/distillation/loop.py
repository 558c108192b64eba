"""Distillation: rounds of collecting labelled states and training on them; the best student by return is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.distillation.batch_norm import standardize
from kdcli.distillation.config import DistillConfig, ResolvedConfig
from kdcli.distillation.data_modes import share_of_teacher
from kdcli.distillation.learner import Learner, some_features
from kdcli.distillation.objective import Objective, units_read
from kdcli.distillation.reinforcement import Reinforcement
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.student import new_student, resolve
from kdcli.distillation.term_weights import follows
from kdcli.distillation.units import Units
from kdcli.errors import UsageError, option
from kdcli.progress import Event, Listener, silent

# The mean return of an agent, or of random play for None.
Judge = Callable[[Actor | None], float]


@dataclass(frozen=True)
class Round:
    """What one round came to: states labelled, gradient steps so far, the loss at its end, agreement, return.

    `entropies` of a student that makes choices, in nats: `decision` and `noise`, see `losses.entropy`.
    """

    labels: int
    updates: int
    loss: float
    agreement: float
    mean_return: float
    entropies: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Distilled:
    """The student of the best round by return, the loss terms that taught it, and all rounds."""

    student: Agent
    losses: tuple[str, ...]
    rounds: tuple[Round, ...]


GiveUp = Callable[[Sequence[Round]], bool]


class Keeper(Protocol):
    """Who keeps what a distillation needs to go on after it was stopped."""

    def resume(self, learner: Learner, pool: ReplayPool) -> tuple[list[Round], Agent] | None:
        """Bring both to the end of the last whole round: the rounds so far, and the best student."""
        ...

    def keep(self, rounds: Sequence[Round], best: Agent, learner: Learner, pool: ReplayPool) -> None:
        """A round is over."""
        ...


def distill(
    teacher: Actor,
    config: DistillConfig,
    pool: ReplayPool,
    judge: Judge,
    listener: Listener = silent,
    give_up: GiveUp | None = None,
    start: Agent | None = None,
) -> Distilled:
    """Teach one student from the pool, which grows to `config.labels` states unless it is fixed.

    `judge` gives the mean return of an agent, always on the same episodes; among equals the later student is kept.
    `give_up` is asked after each round whether to go on is a waste. `start` is the student to begin with, which is
    trained itself; without it a new one is made.

    Raises:
        UsageError: a loss the teacher cannot feed, or a choice that cannot be read.
    """
    resolved = resolve(config, teacher, start)
    student = start or fresh_student(teacher, resolved, resolved.losses, pool)
    learner = learner_for(student, Objective.of(resolved, resolved.losses), resolved, pool)
    best, rounds = teach(learner, resolved, pool, judge, listener, give_up)
    return Distilled(best, resolved.losses, rounds)


def fresh_student(teacher: Actor, config: ResolvedConfig, losses: Sequence[str], pool: ReplayPool) -> Agent:
    """An untrained student, see `new_student`: convolutions scaled to the pool's states, values to its labels.

    Raises:
        UsageError: as `new_student`.
    """
    student = new_student(teacher, config, losses, pool.preprocess)
    if config.init == "random":
        standardize(student.policy, some_features(pool.buffer))
        Units(units_read(losses), pool.buffer).begin(student.policy)
    return student


def learner_for(
    student: Agent,
    objective: Objective,
    config: ResolvedConfig,
    pool: ReplayPool,
    reinforcements: Sequence[Reinforcement] = (),
    normalized: bool = True,
) -> Learner:
    """Who moves `student` along `objective`, and `reinforcements`, over states like those of the pool.

    Without `normalized`, batches are not: for students that share their weights.

    Raises:
        UsageError: a student with memory, and states that stand alone.
    """
    if student.state_size and (config.augment or config.replay != "uniform"):
        why, fix = (
            "moved states, and states drawn one by one, are in none",
            f"leave out {option('augment')}, {option('replay')}",
        )
        raise UsageError("a student with memory learns from whole episodes", why, fix)
    first = pool.buffer.newest(2)
    with torch.no_grad():
        objective.begin(student.policy.forward(first.features), first.teacher, config.seed)
    return Learner(student, objective, config, reinforcements, normalized)


def teach(
    learner: Learner,
    config: ResolvedConfig,
    pool: ReplayPool,
    judge: Judge,
    listener: Listener = silent,
    give_up: GiveUp | None = None,
    keeper: Keeper | None = None,
) -> tuple[Agent, tuple[Round, ...]]:
    """The rounds of `distill` with a learner that is there already -> its best student, and all rounds.

    A `keeper` lets it go on where it was stopped.
    """
    training = TrainingRounds(config, pool, judge, learner)
    # Go on where an earlier call was stopped, or begin.
    rounds, best = (keeper and keeper.resume(learner, pool)) or ([], learner.snapshot())
    pool.buffer.keeps = keeper is not None
    for index in range(len(rounds), config.rounds):
        # Collect: the student acts, perhaps beside the teacher, who labels every state. The first round has its states.
        training.collect(index)
        # Train: gradient steps on batches of all states so far.
        loss = learner.train(pool.buffer, *steps(config, index))
        # Judge: how nearly the student does what the teacher does, and its return, by which the best is kept.
        rounds.append(training.judge(index, loss))
        if rounds[-1].mean_return >= max(r.mean_return for r in rounds):
            best = learner.snapshot()
        if keeper is not None:
            keeper.keep(rounds, best, learner, pool)
        listener(Event(f"distill {config.student}", index + 1, config.rounds, _facts(rounds)))
        # Stop early where the caller sees that more rounds are a waste.
        if give_up is not None and give_up(rounds):
            break
    return best, tuple(rounds)


def steps(config: DistillConfig, index: int) -> tuple[int, tuple[float, float]]:
    """Gradient steps of one round, and the progress it begins and ends with."""
    before, after = (config.updates * i // config.rounds for i in (index, index + 1))
    return max(1, after - before), (index / config.rounds, (index + 1) / config.rounds)


class TrainingRounds:
    """The rounds of one distillation, for a learner that someone may move with others."""

    def __init__(self, config: ResolvedConfig, pool: ReplayPool, judge: Judge, learner: Learner) -> None:
        self._config, self._pool, self._judge, self._learner = config, pool, judge, learner
        self._share = share_of_teacher(config)
        followed = any(follows(text, "return") for text in (*config.losses, *config.reinforce, config.beta))
        self._span = (judge(None), judge(pool.teacher)) if followed else None

    def collect(self, index: int) -> None:
        """Let the student act to grow the pool, after the first round, and to learn from its rewards."""
        config, learner = self._config, self._learner
        if index > 0:
            share = self._share(index / max(1, config.rounds - 1), learner.objective.measured)
            wanted = config.labels * (index + 1) // config.rounds - self._pool.labels
            noise = learner.errors(self._pool.buffer) if config.data == "dart" else None
            self._pool.grow(learner.student, share, wanted, noise)
        learner.begin_round()

    def judge(self, index: int, loss: float) -> Round:
        """What the round came to that ended with this loss; weights that follow it do so from now on."""
        learner, buffer, measured = self._learner, self._pool.buffer, self._learner.objective.measured
        measured["agreement"] = near = learner.agreement(buffer)
        mean_return = self._judge(learner.student)
        if self._span is not None:
            chance, teacher = self._span
            measured["return"] = (mean_return - chance) / (teacher - chance) if teacher > chance else 1.0
        done = self._config.updates * (index + 1) // self._config.rounds
        return Round(self._pool.labels, done, loss, near, mean_return, learner.entropies(buffer))


def _facts(rounds: list[Round]) -> dict[str, float | int | str]:
    last = rounds[-1]
    best = max(r.mean_return for r in rounds)
    return {
        "return": last.mean_return,
        "best": best,
        "agreement": last.agreement,
        "loss": last.loss,
        "labels": last.labels,
    }
