"""The step of this room: a teacher in, a student's file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.agent import Actor
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.augmentation import parse_augmentation
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.curriculum import Curriculum, stages_of
from kdcli.distillation.loop import Distilled, Judge, Keeper, fresh_student, learner_for, teach
from kdcli.distillation.objective import Objective, wanted
from kdcli.distillation.reinforcement import Reinforcement
from kdcli.distillation.replay_pool import (
    Labelled,
    LabelSource,
    ReplayPool,
    RolloutCollector,
    looked_into,
    refuse_other_data,
)
from kdcli.distillation.resume_file import ResumeFile
from kdcli.distillation.student import default_losses, settled
from kdcli.errors import UsageError
from kdcli.progress import Listener, silent
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import EnvSpec

_SLOTS = 16


def distill_to(
    output: Path,
    teacher: Actor,
    parents: Sequence[Mapping[str, str]],
    config: DistillConfig,
    data: Labelled | None = None,
    force: bool = False,
    listener: Listener = silent,
) -> Distilled:
    """Distill `teacher` and write the student to `output`. `data` are recorded states to begin with.

    What is needed to go on is kept in `output`.unfinished after each round, until the student is written.

    Raises:
        UsageError: no env, offline without data, the output exists, or as `distill`.
    """
    artifact.refuse_existing(output, force)
    config = settled(config, teacher)
    unfinished = ResumeFile(output, config, parents)
    done = distill_in_env(teacher, config, data, listener, unfinished)
    store.save(output, done.student, _record(config, done, parents), force)
    unfinished.drop()
    return done


def distill_in_env(
    teacher: Actor,
    config: DistillConfig,
    data: Labelled | None = None,
    listener: Listener = silent,
    keeper: Keeper | None = None,
) -> Distilled:
    """Distill `teacher` where it was trained: its env gives the states, the returns and the rewards.

    Raises:
        UsageError: no env, offline without data, or as `distill`.
    """
    config, env = settled(config, teacher), teacher.env
    if env is None:
        raise UsageError("the env is not known", "the best student is chosen by its return there", "give --env")
    pool = pool_of(teacher, env, config, data)
    losses = config.loss or default_losses(teacher)
    student, objective = fresh_student(teacher, config, losses, pool), Objective.of(config, losses)
    learner = learner_for(student, objective, config, pool, _rewarded(teacher, env, config))
    best, rounds = teach(learner, config, pool, judge_of(teacher, env, config), listener, keeper=keeper)
    return Distilled(best, tuple(losses), rounds)


def pool_of(
    teacher: Actor,
    env: EnvSpec,
    config: DistillConfig,
    data: Labelled | None = None,
    preprocess: Preprocessor | None = None,
) -> ReplayPool:
    """The states that a student of `teacher` learns from, by the config; `data` are recorded ones to begin with.

    `preprocess` is how a student that is there already sees the world.

    Raises:
        UsageError: offline without data, data of another env or teacher, or labels that the teacher cannot give.
    """
    if data is not None:
        refuse_other_data(teacher, data)
    inside = wanted(config.loss or default_losses(teacher))
    augmentation = parse_augmentation(config.augment)
    given = None if data is None else looked_into(teacher, data, inside)
    if config.data == "offline":
        if given is None:
            raise UsageError("--data offline needs a dataset", "there is nothing to learn from", "give --dataset DIR")
        return ReplayPool(teacher, given, config.capacity, preprocess=preprocess)
    collector = _collector(teacher, env, config, inside)
    first = given or collector.collect(None, 1.0, config.labels // config.rounds)
    pool = ReplayPool(teacher, first, config.capacity, collector, preprocess, augmentation)
    if given:
        pool.count_anew()
    return pool


def _collector(teacher: Actor, env: EnvSpec, config: DistillConfig, inside: Sequence[str]) -> LabelSource:
    stages = stages_of(config.curriculum, env)
    made = [
        RolloutCollector(teacher, open_vector(stage, teacher, config.envs), config.seed, config.noise, inside)
        for stage in stages
    ]
    if len(made) == 1:
        return made[0]
    judges = [judge_of(teacher, stage, config) for stage in stages]
    return Curriculum(teacher, list(zip(made, judges, strict=True)))


def judge_of(teacher: Actor, env: EnvSpec, config: DistillConfig) -> Judge:
    """The mean return over `config.episodes` episodes of `env`, the same for everyone."""
    vector = open_vector(env, teacher, min(_SLOTS, config.episodes))
    seeds = seeds_from(first_seed("select", config.seed), config.episodes)
    return lambda agent: float(play(agent, vector, seeds).returns.mean())


def _rewarded(teacher: Actor, env: EnvSpec, config: DistillConfig) -> list[Reinforcement]:
    steps = config.labels // config.rounds
    return [
        Reinforcement(text, open_vector(env, teacher, config.envs), steps, config.batch, config.seed)
        for text in config.reinforce
    ]


def _record(config: DistillConfig, done: Distilled, parents: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {
        "command": "distill",
        "config": config.model_dump(mode="json"),
        "losses": list(done.losses),
        "rounds": [asdict(r) for r in done.rounds],
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }
