"""Several tasks at once: each has its env and teacher; their students share a trunk, and each acts alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.distillation.config import DistillConfig, ResolvedConfig
from kdcli.distillation.learner import Learner, finite
from kdcli.distillation.loop import Judge, Round, TrainingRounds, fresh_student, learner_for, steps
from kdcli.distillation.objective import Objective, Penalty
from kdcli.distillation.parameter_sharing import copy_together, n_shared, share_trunk
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.distillation.student import resolve
from kdcli.errors import UsageError
from kdcli.progress import Event, Listener, silent


@dataclass(frozen=True, eq=False)
class Task:
    """One of several tasks: who teaches, where labelled states come from, and what a student is worth.

    `judge` gives numbers that compare between tasks, as the score does: 0 is random play, 1 the teacher. `weight` is a
    schedule; `losses` are by what the teacher gives where neither they nor the config name any.
    """

    teacher: Actor
    pool: ReplayPool
    judge: Judge
    weight: str = "1"
    losses: tuple[str, ...] = ()

    def resolve(self, config: DistillConfig) -> ResolvedConfig:
        """`config` with the loss terms that teach this task."""
        return resolve(config.model_copy(update={"loss": self.losses or config.loss}), self.teacher)

    def student(self, config: ResolvedConfig) -> Agent:
        """An untrained student of this task alone."""
        return fresh_student(self.teacher, config, config.losses, self.pool)

    def learner(self, student: Agent, config: ResolvedConfig, penalties: Sequence[Penalty] = ()) -> Learner:
        """Who trains `student` for this task; `penalties` are added to the losses."""
        objective = Objective.of(config, config.losses)
        objective.penalties = tuple(penalties)
        return learner_for(student, objective, config, self.pool, normalized=False)


@dataclass(frozen=True)
class Together:
    """One student a task, of the round in which the worst of them did best; `rounds[i]` has one record a task.

    A record's `mean_return` is what the task's judge said. `n_params` counts shared weights once.
    """

    students: tuple[Agent, ...]
    rounds: tuple[tuple[Round, ...], ...]
    n_params: int

    @property
    def best(self) -> tuple[Round, ...]:
        """The round that the students are of."""
        return max(reversed(self.rounds), key=_worst)


class JointLearner:
    """Learners whose students share weights: each step follows the weighted sum of their losses, in one optimizer."""

    def __init__(self, learners: Sequence[Learner], weights: Sequence[Schedule], lr: Schedule) -> None:
        self.learners, self._weights, self._lr = tuple(learners), tuple(weights), lr
        parameters = {id(p): p for learner in learners for p in learner.parameters}
        self._adam = torch.optim.Adam(list(parameters.values()), lr=lr(0.0), fused=True)

    @property
    def students(self) -> tuple[Agent, ...]:
        """The students, one a task."""
        return tuple(learner.student for learner in self.learners)

    def train(self, pools: Sequence[ReplayPool], n: int, span: tuple[float, float]) -> list[float]:
        """`n` gradient steps over the progress `span` -> the mean loss of each task over all of them.

        Raises:
            RefusedError: a loss is not a finite number.
        """
        start, width, group = span[0], (span[1] - span[0]) / n, self._adam.param_groups[0]
        pairs = list(zip(self.learners, (pool.buffer for pool in pools), strict=True))
        each = [learner.losses(buffer, n, span) for learner, buffer in pairs]
        sums = torch.zeros(len(each))
        with ExitStack() as stack:
            for learner, buffer in pairs:
                stack.enter_context(learner.training_on(buffer))
            for step, losses in enumerate(zip(*each, strict=True)):
                progress = start + width * step
                group["lr"] = self._lr(progress)
                self._adam.zero_grad(set_to_none=True)
                self._total(losses, progress).backward()
                self._adam.step()
                sums += torch.stack(losses).detach()
        return [finite(float(total) / n) for total in sums]

    def _total(self, losses: Sequence[Tensor], progress: float) -> Tensor:
        return torch.stack([w(progress) * loss for w, loss in zip(self._weights, losses, strict=True)]).sum()


def distill_tasks(tasks: Sequence[Task], config: DistillConfig, listener: Listener = silent) -> Together:
    """Teach the students of all tasks at once. Labels are counted for each task; an update has a batch of each.

    Raises:
        UsageError: no task, nothing to share, or a loss that a teacher cannot feed.
    """
    if not tasks:
        raise UsageError("no task is given", "there is nothing to learn", "name one teacher for each task")
    shared = resolve(config, tasks[0].teacher)
    each = [task.resolve(shared) for task in tasks]
    students = share_trunk([task.student(own) for task, own in zip(tasks, each, strict=True)])
    learners = [task.learner(student, own) for task, student, own in zip(tasks, students, each, strict=True)]
    joint = JointLearner(learners, [parse_schedule(task.weight) for task in tasks], parse_schedule(shared.lr))
    trainings = [
        TrainingRounds(own, task.pool, task.judge, learner)
        for task, learner, own in zip(tasks, learners, each, strict=True)
    ]
    rounds: list[tuple[Round, ...]] = []
    best = copy_together(students)
    for index in range(shared.rounds):
        for training in trainings:
            training.collect(index)
        losses = joint.train([task.pool for task in tasks], *steps(shared, index))
        rounds.append(tuple(training.judge(index, loss) for training, loss in zip(trainings, losses, strict=True)))
        if _worst(rounds[-1]) >= max(map(_worst, rounds)):
            best = copy_together(joint.students)
        listener(Event(f"distill {shared.student}", index + 1, shared.rounds, _facts(rounds)))
    return Together(best, tuple(rounds), n_shared(best))


def _worst(records: Sequence[Round]) -> float:
    return min(record.mean_return for record in records)


def _facts(rounds: Sequence[Sequence[Round]]) -> dict[str, float | int | str]:
    last = rounds[-1]
    each = {f"score {i + 1}": record.mean_return for i, record in enumerate(last)}
    return {"worst": _worst(last), "best": max(map(_worst, rounds)), **each}
