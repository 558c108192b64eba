"""Distillation where the teacher was trained: its env gives the states, the returns and the rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.actor import Actor, env_of
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.augmentation import parse_augmentation
from kdcli.distillation.config import DistillConfig, ResolvedConfig
from kdcli.distillation.curriculum import Curriculum, stages_of
from kdcli.distillation.loop import Distilled, Judge, Keeper, fresh_student, learner_for, teach
from kdcli.distillation.objective import Objective, wanted
from kdcli.distillation.reinforcement import Practice, Reinforcement
from kdcli.distillation.replay_pool import (
    Labelled,
    LabelSource,
    ReplayPool,
    RolloutCollector,
    looked_into,
    refuse_other_data,
)
from kdcli.distillation.resume_file import ResumeFile
from kdcli.distillation.student import resolve
from kdcli.errors import UsageError, option
from kdcli.progress import Listener, silent
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import EnvSpec

_SLOTS = 16


def distill_to(
    output: Path | None,
    teacher: Actor,
    parents: Sequence[Mapping[str, str]],
    config: DistillConfig,
    data: Labelled | None = None,
    force: bool = False,
    listener: Listener = silent,
) -> Distilled:
    """Distill `teacher` and write the student to `output`, if any. `data` are recorded states to begin with.

    What is needed to go on is kept in `output`.unfinished after each round, until the student is written.

    Raises:
        UsageError: no env, offline without data, the output exists, or as `distill`.
    """
    resolved = resolve(config, teacher)
    if output is None:
        return _distill_resolved(teacher, resolved, data, listener)
    artifact.refuse_existing(output, force)
    unfinished = ResumeFile(output, resolved, parents)
    done = _distill_resolved(teacher, resolved, data, listener, unfinished)
    store.save(output, done.student, record_of(resolved, done, parents), force)
    unfinished.drop()
    return done


def distill_in_env(
    teacher: Actor, config: DistillConfig, data: Labelled | None = None, listener: Listener = silent
) -> Distilled:
    """Distill `teacher` where it was trained, in memory.

    Raises:
        UsageError: no env, offline without data, or as `distill`.
    """
    return _distill_resolved(teacher, resolve(config, teacher), data, listener)


def _distill_resolved(
    teacher: Actor,
    config: ResolvedConfig,
    data: Labelled | None,
    listener: Listener,
    keeper: Keeper | None = None,
) -> Distilled:
    env = env_of(teacher).within(config.envs)
    # Where states come from, and the student that will learn from them.
    pool = pool_of(teacher, env, config, data)
    student = fresh_student(teacher, config, config.losses, pool)
    # What it follows, the teacher's labels and perhaps its own rewards; then the rounds.
    objective = Objective.of(config, config.losses)
    learner = learner_for(student, objective, config, pool, rewarded(teacher, env, config))
    best, rounds = teach(learner, config, pool, judge_of(teacher, env, config), listener, keeper=keeper)
    return Distilled(best, config.losses, rounds)


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
    inside = wanted(config.loss)  # the default losses look at nothing inside
    augmentation = parse_augmentation(config.augment)
    given = None if data is None else looked_into(teacher, data, inside)
    if config.data == "offline":
        if given is None:
            what, fix = f"{option('data', 'offline')} needs a dataset", f"name one with {option('dataset')}"
            raise UsageError(what, "there is nothing to learn from", fix)
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


def rewarded(teacher: Actor, env: EnvSpec, config: ResolvedConfig) -> list[Reinforcement]:
    """What a student of `teacher` learns from its own rewards by, as the config says."""
    steps = (config.reinforce_steps or config.labels) // config.rounds
    practice = Practice(steps, config.batch, config.reinforce_entropy, config.seed)
    return [Reinforcement(text, open_vector(env, teacher, config.envs), practice, teacher) for text in config.reinforce]


def record_of(config: ResolvedConfig, done: Distilled, parents: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """How a student was made, as its file says it."""
    return {
        "command": "distill",
        "config": config.model_dump(mode="json"),
        "losses": list(done.losses),
        "rounds": [asdict(r) for r in done.rounds],
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }
