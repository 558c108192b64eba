"""Tasks one after the other: a student moves on, and what it forgets of the earlier ones is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.distillation.config import DistillConfig, ResolvedConfig, Share
from kdcli.distillation.loop import Round, teach
from kdcli.distillation.multi_task import Task
from kdcli.distillation.parameter_sharing import copy_together, n_shared, share_trunk, shared_parameters
from kdcli.distillation.penalties import parse_penalty
from kdcli.distillation.student import resolve
from kdcli.errors import UsageError
from kdcli.progress import Listener, silent
from kdcli.spec import same_space

_STATES = 500  # of a task, that say how much each weight matters to it


@dataclass(frozen=True)
class InTurn:
    """One student a task as they are at the end, the rounds of each, and `scores[i][j]`: task j when i was learned."""

    students: tuple[Agent, ...]
    rounds: tuple[tuple[Round, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    n_params: int

    @property
    def forgetting(self) -> tuple[float, ...]:
        """Of each task but the last: its best score so far minus its score at the end. Chaudhry et al. 2018, eq. 3."""
        last = self.scores[-1]
        return tuple(max(row[j] for row in self.scores[j:-1]) - last[j] for j in range(len(last) - 1))


def distill_in_turn(
    tasks: Sequence[Task],
    config: DistillConfig,
    keep: Sequence[str] = (),
    share: Share = "all",
    listener: Listener = silent,
) -> InTurn:
    """Teach one task after the other, each with all labels and updates of `config`.

    `share` is `all`: one student for all tasks, which have the same spaces, and pools that see alike; or `trunk`: each
    task has an input layer and a head of its own. `keep` are penalties on moving what is shared, `ewc@1` or
    `l2@linear:1->0`. The student of a task is that of its best round there; what was forgotten has no say in it.

    Raises:
        UsageError: no task, tasks that cannot share, or a choice that cannot be read.
    """
    if not tasks:
        raise UsageError("no task is given", "there is nothing to learn", "name one teacher for each task")
    shared = resolve(config, tasks[0].teacher)
    holds, students, rounds, scores = [parse_penalty(text) for text in keep], list[Agent](), [], []
    _refuse_strangers(tasks, shared, keep, share)
    for task in tasks:
        own = task.resolve(shared)
        student = _next(students, task, own, share)
        best, seen = teach(task.learner(student, own, holds), own, task.pool, task.judge, listener)
        student.policy.load_state_dict(best.policy.state_dict())
        students.append(student)
        rounds.append(seen)
        scores.append(tuple(known.judge(agent) for known, agent in zip(tasks, students, strict=False)))
        for hold in holds:
            hold.learned(student, _features(task, own), _moving(student, share))
    return InTurn(copy_together(students), tuple(rounds), tuple(scores), n_shared(students))


def _refuse_strangers(tasks: Sequence[Task], config: ResolvedConfig, keep: Sequence[str], share: Share) -> None:
    """Raise UsageError for what the last task would be refused for, before the first is learned."""
    if share == "trunk":
        first, *_ = share_trunk([task.student(task.resolve(config)) for task in tasks])
        if keep and not shared_parameters(first):
            why = f"{config.student} has no layers between its input layer and its head"
            raise UsageError("there are no layers to keep", why, "give two hidden layers or more, e.g. mlp:32x32")
        return
    refuse_other_spaces([task.teacher for task in tasks])
    if any(task.pool.preprocess is not tasks[0].pool.preprocess for task in tasks):
        what = "the tasks are seen in different ways"
        raise UsageError(what, "one student sees in one", "share the preprocessing")


def refuse_other_spaces(teachers: Sequence[Actor]) -> None:
    """Raise UsageError where the teachers see and act in different spaces, in which no single student does."""
    for other in teachers[1:]:
        one = teachers[0]
        if not (same_space(one.observation, other.observation) and same_space(one.action, other.action)):
            why = f"{other.name} maps {other.observation} to {other.action}"
            raise UsageError(
                "one student for all tasks needs tasks of the same spaces", why, "let them share the trunk"
            )


def _next(students: Sequence[Agent], task: Task, config: ResolvedConfig, share: Share) -> Agent:
    """Who learns the next task: a new student, one that shares the trunk of the first, or the first itself."""
    if not students:
        return task.student(config)
    if share == "trunk":
        return share_trunk([students[0], task.student(config)])[1]
    return replace(students[0], name=task.student(config).name, env=task.teacher.env)


def _moving(student: Agent, share: Share) -> list[nn.Parameter]:
    return shared_parameters(student) if share == "trunk" else list(student.policy.network.parameters())


def _features(task: Task, config: DistillConfig) -> Tensor:
    """Features of some states of the task (N, F)."""
    buffer, generator = task.pool.buffer, torch.Generator().manual_seed(config.seed)
    return next(buffer.batches(min(_STATES, len(buffer)), 1, generator, ())).features
