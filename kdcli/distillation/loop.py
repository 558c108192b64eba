"""Distillation: rounds of collecting labelled states and training on them; the best student by return is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdcli.agents.agent import Acts, Agent
from kdcli.choice import Choice
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner, agreement_with
from kdcli.distillation.objective import Objective
from kdcli.distillation.pool import Pool
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.distillation.student import default_losses, new_student
from kdcli.progress import Event, Listener, silent

Judge = Callable[[Acts], float]


@dataclass(frozen=True)
class Round:
    """What one round came to: states in the pool, gradient steps so far, the loss at its end, agreement, return."""

    labels: int
    updates: int
    loss: float
    agreement: float
    mean_return: float


@dataclass(frozen=True)
class Distilled:
    """The student of the best round by return, the loss terms that taught it, and all rounds."""

    student: Agent
    losses: tuple[str, ...]
    rounds: tuple[Round, ...]


GiveUp = Callable[[Sequence[Round]], bool]


def beta_schedule(config: DistillConfig) -> Schedule:
    """The teacher's share of the steps over the rounds, by data mode."""
    fixed = {"teacher": "1", "student": "0"}
    return parse_schedule(fixed.get(config.data, config.beta))


def distill(
    teacher: Acts,
    config: DistillConfig,
    pool: Pool,
    judge: Judge,
    listener: Listener = silent,
    give_up: GiveUp | None = None,
) -> Distilled:
    """Teach one student from the pool, which grows by `config.labels` states unless it is fixed.

    `judge` gives the mean return of an agent, always on the same episodes; among equals the later student is kept.
    `give_up` is asked after each round whether to go on is a waste.

    Raises:
        UsageError: a loss the teacher cannot feed, or a choice that cannot be read.
    """
    losses = config.loss or default_losses(teacher)
    student = new_student(teacher, Choice.parse(config.student), losses, pool.preprocess, config.seed)
    learner = learner_for(student, Objective.parse(losses, config.tau, config.weigh), config)
    best, rounds = teach(learner, config, pool, judge, listener, give_up)
    return Distilled(best, tuple(losses), rounds)


def learner_for(student: Agent, objective: Objective, config: DistillConfig) -> Learner:
    """Who moves `student` along `objective`, by what the config says of it."""
    return Learner(student, objective, parse_schedule(config.lr), config.batch, config.seed)


def teach(
    learner: Learner,
    config: DistillConfig,
    pool: Pool,
    judge: Judge,
    listener: Listener = silent,
    give_up: GiveUp | None = None,
) -> tuple[Agent, tuple[Round, ...]]:
    """The rounds of `distill` with a learner that is there already -> its best student, and all rounds."""
    beta, rounds = beta_schedule(config), list[Round]()
    best = learner.snapshot()
    for index in range(config.rounds):
        rounds.append(_round(index, learner, pool, beta, config, judge))
        if rounds[-1].mean_return >= max(r.mean_return for r in rounds):
            best = learner.snapshot()
        listener(Event(f"distill {config.student}", index + 1, config.rounds, _facts(rounds)))
        if give_up is not None and give_up(rounds):
            break
    return best, tuple(rounds)


def _round(index: int, learner: Learner, pool: Pool, beta: Schedule, config: DistillConfig, judge: Judge) -> Round:
    """Train on the pool, then let the student act to grow it for the next round."""
    updates = config.updates // config.rounds
    if index > 0:
        pool.grow(learner.student, beta(index / max(1, config.rounds - 1)), config.labels // config.rounds)
    loss = learner.train(pool.buffer, updates, (index / config.rounds, (index + 1) / config.rounds))
    features, teacher = pool.buffer.newest(2048)
    near = agreement_with(teacher, learner.student, features)
    return Round(len(pool.buffer), updates * (index + 1), loss, near, judge(learner.student))


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
