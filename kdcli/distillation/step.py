"""The step of this room: a teacher in, a student's file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdcli import artifact
from kdcli.agents import store
from kdcli.agents.agent import Acts
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import Distilled, Judge, distill
from kdcli.distillation.pool import Collector, Labelled, Pool, watch
from kdcli.envs.play import open_vector, play, seeds_from
from kdcli.envs.seeds import first_seed
from kdcli.errors import UsageError
from kdcli.progress import Listener, silent
from kdcli.spec import EnvSpec

_SLOTS = 16


def distill_to(
    output: Path,
    teacher: Acts,
    parents: Sequence[Mapping[str, str]],
    config: DistillConfig,
    data: Labelled | None = None,
    force: bool = False,
    listener: Listener = silent,
) -> Distilled:
    """Distill `teacher` and write the student to `output`. `data` are recorded states to begin with.

    Raises:
        UsageError: no env, offline without data, the output exists, or as `distill`.
    """
    artifact.refuse_existing(output, force)
    if teacher.env is None:
        raise UsageError("the env is not known", "the best student is chosen by its return there", "give --env")
    done = distill(teacher, config, _pool(teacher, teacher.env, config, data), _judge(teacher, config), listener)
    store.save(output, done.student, _record(config, done, parents), force)
    return done


def _pool(teacher: Acts, env: EnvSpec, config: DistillConfig, data: Labelled | None) -> Pool:
    if config.data == "offline":
        if data is None:
            raise UsageError("--data offline needs a dataset", "there is nothing to learn from", "give --dataset DIR")
        return Pool(teacher, data, config.capacity)
    vector = open_vector(env, teacher, config.envs)
    if data is not None:
        return Pool(teacher, data, config.capacity, Collector(teacher, vector, config.seed, config.noise))
    return watch(teacher, vector, config.labels // config.rounds, config.capacity, config.seed, config.noise)


def _judge(teacher: Acts, config: DistillConfig) -> Judge:
    assert teacher.env is not None
    vector = open_vector(teacher.env, teacher, min(_SLOTS, config.episodes))
    seeds = seeds_from(first_seed("select", config.seed), config.episodes)
    return lambda agent: float(play(agent, vector, seeds).returns.mean())


def _record(config: DistillConfig, done: Distilled, parents: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {
        "command": "distill",
        "config": config.model_dump(mode="json"),
        "losses": list(done.losses),
        "rounds": [vars(r) for r in done.rounds],
        "versions": artifact.versions("torch", "numpy", "gymnasium", "mujoco"),
        "parents": [dict(parent) for parent in parents],
    }
