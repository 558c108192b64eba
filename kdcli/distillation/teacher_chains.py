"""Many teachers: the tasks of several envs, and chains in which students or teachers follow each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdcli.agents.actor import Actor, env_of
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.config import ChainConfig, DistillConfig, TasksConfig
from kdcli.distillation.continual import InTurn, distill_in_turn, refuse_other_spaces
from kdcli.distillation.generations import assistant_chain, distill_in_sequence
from kdcli.distillation.loop import Distilled, Judge
from kdcli.distillation.multi_task import Task, Together, distill_tasks
from kdcli.distillation.online import distill_in_env, judge_of, pool_of
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.teacher_selection import Measure, select_teacher
from kdcli.errors import UsageError, option
from kdcli.progress import Listener, silent
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed

# A student and how each link of its chain went, as JSON values.
Chained = tuple[Distilled, list[dict[str, Any]]]


def distill_all(
    teachers: Sequence[Actor], config: DistillConfig, tasks: TasksConfig, listener: Listener = silent
) -> Together | InTurn:
    """Distill the teachers of several tasks into students that share weights, at once or one after the other.

    Raises:
        UsageError: no env, a teacher no better than random play, or as the work.
    """
    alike = tasks.order == "in-turn" and tasks.share == "all"
    if alike:
        refuse_other_spaces(teachers)
    opened: list[Task] = []
    for teacher in teachers:
        opened.append(open_task(teacher, config, opened[0].pool.preprocess if alike and opened else None))
    if tasks.order == "together":
        return distill_tasks(opened, config, listener)
    return distill_in_turn(opened, config, tasks.keep, tasks.share, listener)


def open_task(teacher: Actor, config: DistillConfig, preprocess: Preprocessor | None = None) -> Task:
    """A task of the env that the teacher was trained in, judged by the score.

    Raises:
        UsageError: no env, or a teacher that is no better than random play.
    """
    env = env_of(teacher)
    return Task(
        teacher, pool_of(teacher, env, config, preprocess=preprocess), _scored(teacher, judge_of(teacher, env, config))
    )


def _scored(teacher: Actor, judge: Judge) -> Judge:
    """The share of the teacher's advantage over random play."""
    chance, best = judge(None), judge(teacher)
    if best <= chance:
        what, why = f"{teacher.name} is no better than random play", f"mean returns {best:g} and {chance:g}"
        raise UsageError(what, why, f"give another teacher, or more {option('episodes')}")
    return lambda agent: (judge(agent) - chance) / (best - chance)


def distill_chain(
    teachers: Sequence[Actor], config: DistillConfig, chain: ChainConfig, listener: Listener = silent
) -> Chained:
    """Distill along a chain -> the last student, of several generations that of the best return, and every link.

    Raises:
        UsageError: no env, or as the work.
    """
    if chain.teachers == "in-turn":
        return _taught_in_turn(teachers, config, listener)
    return _taught_by_students(teachers, config, chain, listener)


def _taught_in_turn(teachers: Sequence[Actor], config: DistillConfig, listener: Listener) -> Chained:
    """The student that was taught by each teacher in turn, and the record of it."""
    env, last = env_of(teachers[-1]), teachers[-1]

    def gather(teacher: Actor, preprocess: Preprocessor | None) -> ReplayPool:
        return pool_of(teacher, env, config, preprocess=preprocess)

    done = distill_in_sequence(teachers, config, gather, judge_of(last, env, config), listener)
    return done, [{"student": config.student, "rounds": [asdict(r) for r in done.rounds]}]


def _taught_by_students(
    teachers: Sequence[Actor], config: DistillConfig, chain: ChainConfig, listener: Listener
) -> Chained:
    """The best student of the last architecture, and a record of every link."""
    links: list[dict[str, Any]] = []
    teacher = teachers[0]
    if chain.teachers == "best":
        elected = select_teacher(teachers, _measure(teachers[0], config), listener)
        means = [float(r.mean()) for r in elected.returns]
        teacher = teachers[elected.index]
        links.append({"elected": elected.index, "mean_return": elected.mean_return, "mean_returns": means})
    students = [*chain.via, *[config.student] * chain.generations]
    done = assistant_chain(teacher, students, config, lambda t, own: distill_in_env(t, own, listener=listener))
    for student, each in zip(students, done, strict=True):
        links.append({"student": student, "params": each.student.n_params, "rounds": [asdict(r) for r in each.rounds]})
    judge = judge_of(teacher, env_of(teacher), config)
    return max(reversed(done[len(chain.via) :]), key=lambda each: judge(each.student)), links


def _measure(teacher: Actor, config: DistillConfig) -> Measure:
    """Returns in the env of `teacher`, on initial states that nothing else uses."""
    vector = open_vector(env_of(teacher), teacher)

    def measure(agent: Actor, heat: int) -> np.ndarray:
        first = first_seed("screen", config.seed) + heat * config.episodes
        return play(agent, vector, seeds_from(first, config.episodes)).returns

    return measure
