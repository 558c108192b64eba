"""Many teachers: the steps that write what became of them. Several tasks are one folder, a chain ends in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.actor import Actor
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.config import ChainConfig, DistillConfig, TasksConfig
from kdcli.distillation.continual import InTurn, distill_in_turn, refuse_other_spaces
from kdcli.distillation.generations import assistant_chain, distill_in_sequence
from kdcli.distillation.loop import Distilled, Judge
from kdcli.distillation.multi_task import Task, Together, distill_tasks
from kdcli.distillation.online import distill_in_env, judge_of, pool_of
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.student import settled
from kdcli.distillation.teacher_selection import Measure, select_teacher
from kdcli.errors import UsageError
from kdcli.progress import Listener, silent
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import EnvSpec

SCHEMA = "kdcli.distill-many/1"


def distill_tasks_to(
    folder: Path,
    teachers: Sequence[Actor],
    parents: Sequence[Mapping[str, str]],
    config: DistillConfig,
    tasks: TasksConfig,
    force: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Distill the teachers of several tasks into students that share weights -> what was written to tasks.json.

    Every task's student is a file of its own, named by its env, that acts alone.

    Raises:
        UsageError: no env, a teacher no better than random play, the output exists, or as the work.
    """
    artifact.refuse_existing(folder, force)
    _teachers_alone(config)
    if config.combine != DistillConfig().combine:
        raise UsageError("--combine is not for tasks", "each of them has one teacher", "drop it")
    done = _learned(teachers, config, tasks, listener)
    names = _names(teachers)
    made = _made("distill-many", config, tasks, parents)
    record = {**_described(done, names), **made}
    with artifact.atomic_folder(folder, force) as inside:
        for name, student in zip(names, done.students, strict=True):
            store.save(inside / f"{name}.safetensors", student, made)
        artifact.write_json(inside / "tasks.json", record)
    return record


def _learned(
    teachers: Sequence[Actor], config: DistillConfig, tasks: TasksConfig, listener: Listener
) -> Together | InTurn:
    alike = tasks.order == "in-turn" and tasks.share == "all"
    if alike:
        refuse_other_spaces(teachers)
    opened: list[Task] = []
    for teacher in teachers:
        opened.append(open_task(teacher, config, opened[0].pool.preprocess if alike and opened else None))
    if tasks.order == "together":
        return distill_tasks(opened, config, listener)
    return distill_in_turn(opened, config, tasks.keep, tasks.share, listener)


def _teachers_alone(config: DistillConfig) -> None:
    """Raise UsageError where rewards are to teach, too."""
    if config.reinforce:
        raise UsageError(
            "--reinforce is not for this",
            "students of several tasks or teachers in turn learn from teachers alone",
            "drop it",
        )


def open_task(teacher: Actor, config: DistillConfig, preprocess: Preprocessor | None = None) -> Task:
    """A task of the env that the teacher was trained in, judged by the score.

    Raises:
        UsageError: no env, or a teacher that is no better than random play.
    """
    env = _env(teacher)
    return Task(
        teacher, pool_of(teacher, env, config, preprocess=preprocess), _scored(teacher, judge_of(teacher, env, config))
    )


def _scored(teacher: Actor, judge: Judge) -> Judge:
    """The share of the teacher's advantage over random play."""
    chance, best = judge(None), judge(teacher)
    if best <= chance:
        why = f"mean returns {best:g} and {chance:g}"
        raise UsageError(
            f"{teacher.name} is no better than random play", why, "give another teacher, or more --episodes"
        )
    return lambda agent: (judge(agent) - chance) / (best - chance)


def _env(teacher: Actor) -> EnvSpec:
    if teacher.env is None:
        raise UsageError(
            "the env is not known", f"{teacher.name} does not say where it was trained", "load it with --env"
        )
    return teacher.env


def _names(teachers: Sequence[Actor]) -> list[str]:
    """The id of each env, without what a file name cannot hold, numbered where it comes again."""
    found: list[str] = []
    for teacher in teachers:
        name = _env(teacher).id.replace("/", "-").replace(":", "-")
        again = sum(other == name or other.startswith(f"{name}-task") for other in found)
        found.append(f"{name}-task{again + 1}" if again else name)
    return found


def _described(done: Together | InTurn, names: Sequence[str]) -> dict[str, Any]:
    last = [r.mean_return for r in done.best] if isinstance(done, Together) else list(done.scores[-1])
    tasks = [
        {"file": f"{name}.safetensors", "params": student.n_params, "score": score}
        for name, student, score in zip(names, done.students, last, strict=True)
    ]
    found: dict[str, Any] = {"schema": SCHEMA, "params": done.n_params, "tasks": tasks}
    if isinstance(done, InTurn):
        found |= {"scores": [list(row) for row in done.scores], "forgetting": list(done.forgetting)}
    return {**found, "rounds": [[asdict(r) for r in rounds] for rounds in done.rounds]}


def chain_to(
    output: Path,
    teachers: Sequence[Actor],
    parents: Sequence[Mapping[str, str]],
    config: DistillConfig,
    chain: ChainConfig,
    force: bool = False,
    listener: Listener = silent,
) -> Distilled:
    """Distill along a chain and write the last student to `output`; of several generations that of the best return.

    Raises:
        UsageError: no env, the output exists, chains that exclude each other, or as the work.
    """
    artifact.refuse_existing(output, force)
    config = settled(config, teachers[0])
    if chain.teachers == "in-turn":
        done, links = _climbed(teachers, config, chain, listener)
    else:
        done, links = _descended(teachers, config, chain, listener)
    made = _made("distill", config, chain, parents)
    store.save(output, done.student, {**made, "losses": list(done.losses), "chain": links}, force)
    return done


def _climbed(
    teachers: Sequence[Actor], config: DistillConfig, chain: ChainConfig, listener: Listener
) -> tuple[Distilled, list[dict[str, Any]]]:
    """The student that was taught by each teacher in turn, and the record of it."""
    if chain.via or chain.generations > 1:
        raise UsageError("teachers in turn have one student", "given: --via or --generations", "choose one of them")
    _teachers_alone(config)
    env, last = _env(teachers[-1]), teachers[-1]

    def gather(teacher: Actor, preprocess: Preprocessor | None) -> ReplayPool:
        return pool_of(teacher, env, config, preprocess=preprocess)

    done = distill_in_sequence(teachers, config, gather, judge_of(last, env, config), listener)
    return done, [{"student": config.student, "rounds": [asdict(r) for r in done.rounds]}]


def _descended(
    teachers: Sequence[Actor], config: DistillConfig, chain: ChainConfig, listener: Listener
) -> tuple[Distilled, list[dict[str, Any]]]:
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
    judge = judge_of(teacher, _env(teacher), config)
    return max(reversed(done[len(chain.via) :]), key=lambda each: judge(each.student)), links


def _measure(teacher: Actor, config: DistillConfig) -> Measure:
    """Returns in the env of `teacher`, on initial states that nothing else uses."""
    vector = open_vector(_env(teacher), teacher)

    def measure(agent: Actor, heat: int) -> np.ndarray:
        first = first_seed("screen", config.seed) + heat * config.episodes
        return play(agent, vector, seeds_from(first, config.episodes)).returns

    return measure


def _made(command: str, config: DistillConfig, how: BaseModel, parents: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """How a file was made."""
    return {
        "command": command,
        "config": {**config.model_dump(mode="json"), **how.model_dump(mode="json")},
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }
