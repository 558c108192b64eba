"""What many teachers and many tasks are worth: the numbers of docs/teachers.md.

    python tests/studies/teachers.py train FOLDER          imperfect teachers of two envs, by Stable-Baselines3
    python tests/studies/teachers.py PART SEEDS FOLDER     one part with student seeds 0 to SEEDS - 1; cells in FOLDER
    python tests/studies/teachers.py table FOLDER          the tables, with intervals over the seeds

Parts: `many` (several imperfect teachers, one student), `tasks` (three envs, one student, at once and in turn),
`control` (the same of three that are harder), `chain` (a student 109 times smaller: plainly, by generations, by an
assistant). A cell that is in FOLDER is not done again; KDCLI_SECONDS is the processor time after which no cell is
begun. All but `many` need KDCLI_ZOO. One thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.ensemble import Ensemble
from kdcli.agents.observation import Preprocessor
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.continual import distill_in_turn
from kdcli.distillation.generations import ladder
from kdcli.distillation.loop import Distilled, Judge, distill
from kdcli.distillation.multi_task import distill_tasks
from kdcli.distillation.online import judge_of, pool_of
from kdcli.distillation.replay_pool import ReplayPool
from kdcli.distillation.teacher_chains import open_task
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed

Row = dict[str, Any]
# The name of a cell, and what makes its rows.
Cell = tuple[str, Callable[[], list[Row]]]
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints" / "ppo"
TRAINED = {"CartPole-v1": 12_288, "LunarLander-v3": 131_072}
FALLING = "linear:1->0"  # the teacher's share of the steps
MANY = DistillConfig(student="mlp:16x16", labels=6_000, rounds=4, updates=3_000, episodes=8, beta=FALLING)
TASKS = DistillConfig(student="mlp:32x32", labels=5_000, rounds=4, updates=3_000, episodes=8, beta=FALLING)
CONTROL = DistillConfig(student="mlp:32x32", labels=20_000, rounds=5, updates=8_000, episodes=4, beta=FALLING)
CHAIN = DistillConfig(student="mlp:16x16", labels=6_000, rounds=4, updates=6_000, episodes=4, beta=FALLING)
EPISODES = {
    "CartPole-v1": 50,
    "Acrobot-v1": 50,
    "LunarLander-v3": 50,
    "HalfCheetah-v5": 10,
    "Swimmer-v5": 10,
    "LunarLanderContinuous-v3": 50,
}
KEEP = {"in turn": (), "in turn, ewc@1": ("ewc@1",)}
_CACHE: dict[tuple[str, str], float] = {}


def mean_return(agent: Actor | None, like: Actor) -> float:
    """The mean of paired episodes in the env of `like`, on initial states that no training saw."""
    assert like.env is not None
    seeds = seeds_from(first_seed("bench", 0), EPISODES[like.env.id])
    return float(play(agent, open_vector(like.env, None), seeds).returns.mean())


def score(student: Actor, teacher: Actor) -> float:
    """The share of the teacher's advantage over random play that is kept."""
    for who, agent in (("teacher", teacher), ("random", None)):
        if (teacher.name, who) not in _CACHE:
            _CACHE[teacher.name, who] = mean_return(agent, teacher)
    best, chance = _CACHE[teacher.name, "teacher"], _CACHE[teacher.name, "random"]
    return (mean_return(student, teacher) - chance) / (best - chance)


def gathering(config: DistillConfig) -> Callable[[Actor, Preprocessor | None], ReplayPool]:
    """Pools of a teacher's env with so many labels as the config says."""

    def gather(teacher: Actor, preprocess: Preprocessor | None = None) -> ReplayPool:
        assert teacher.env is not None
        return pool_of(teacher, teacher.env, config, preprocess=preprocess)

    return gather


def judging(teacher: Actor, config: DistillConfig) -> Judge:
    """The mean return on the same episodes for everyone."""
    assert teacher.env is not None
    return judge_of(teacher, teacher.env, config)


def many(seed: int, folder: Path) -> Iterator[Cell]:
    """Three imperfect teachers, what they play seen as one, and students of them so, or heard apart by a gate."""
    for env in TRAINED:
        teachers = [read(folder / f"{env}-seed{i}.zip", LoadConfig(env=env)) for i in (1, 2, 3)]
        together: dict[str, Actor] = {name: Ensemble(teachers, name) for name in ("mean", "confidence", "value")}
        if seed == 0:
            alone: dict[str, Actor | None] = {f"teacher {i + 1}": teacher for i, teacher in enumerate(teachers)}
            for name, agent in (alone | together | {"random": None}).items():
                yield f"{env}-{name}", partial(_played, env, name, "itself", agent, teachers[0])
        for name, loss in (("mean", "kl"), ("mean", "gated"), ("value", "kl")):
            config = MANY.model_copy(update={"seed": seed, "loss": (loss,)})
            teacher = together.get(name, teachers[0])
            yield f"{env}-{name}-{loss}", partial(_taught, env, name, teacher, config)


def _played(env: str, who: str, what: str, agent: Actor | None, like: Actor) -> list[Row]:
    return [{"env": env, "who": who, "what": what, "return": mean_return(agent, like)}]


def _taught(env: str, who: str, teacher: Actor, config: DistillConfig) -> list[Row]:
    return _played(env, who, f"student by {config.loss[0]}", learn(teacher, config).student, teacher)


def learn(teacher: Actor, config: DistillConfig) -> Distilled:
    """One student of one teacher."""
    return distill(teacher, config, gathering(config)(teacher, None), judging(teacher, config))


def tasks(seed: int, folder: Path) -> Iterator[Cell]:
    """Three envs and one student: at once, in turn, and in turn with a penalty."""
    config = TASKS.model_copy(update={"seed": seed})
    files = [SAMPLES / "CartPole-v1_1", zoo("dqn/Acrobot-v1_1"), SAMPLES / "LunarLander-v3_1"]
    teachers = [read(find_file(file), LoadConfig()) for file in files]
    yield "at once", partial(_at_once, teachers, config)
    for name, keep in KEEP.items():
        yield name, partial(_in_turn, name, keep, teachers, config)


def control(seed: int, folder: Path) -> Iterator[Cell]:
    """Three tasks of torques that want different things of what they share: at once, in turn, with penalties."""
    config = CONTROL.model_copy(update={"seed": seed})
    names = {"ppo/HalfCheetah-v3_1": "HalfCheetah-v5", "sac/Swimmer-v3_1": "Swimmer-v5"}
    names["trpo/LunarLanderContinuous-v2_1"] = "LunarLanderContinuous-v3"
    teachers = [read(find_file(zoo(name)), LoadConfig(env=env)) for name, env in names.items()]
    yield "at once", partial(_at_once, teachers, config)
    for name, keep in {**KEEP, "in turn, ewc@10": ("ewc@10",), "in turn, l2@1": ("l2@1",)}.items():
        yield name, partial(_in_turn, name, keep, teachers, config)


def _at_once(teachers: Sequence[Agent], config: DistillConfig) -> list[Row]:
    done = distill_tasks([open_task(teacher, config) for teacher in teachers], config)
    return _scored("at once", done.students, teachers, done.n_params)


def _in_turn(name: str, keep: Sequence[str], teachers: Sequence[Agent], config: DistillConfig) -> list[Row]:
    done = distill_in_turn([open_task(teacher, config) for teacher in teachers], config, keep, "trunk")
    rows = _scored(name, done.students, teachers, done.n_params)
    return [row | {"forgot": lost} for row, lost in zip(rows, (*done.forgetting, None), strict=True)]


def _scored(way: str, students: Sequence[Agent], teachers: Sequence[Agent], n_params: int) -> list[Row]:
    return [
        {"who": way, "env": teacher.name, "score": score(student, teacher), "params": n_params}
        for student, teacher in zip(students, teachers, strict=True)
    ]


def chain(seed: int, folder: Path) -> Iterator[Cell]:
    """PPO HalfCheetah to 662 parameters: plainly, which is the first generation, one more, and by an assistant."""
    config = CHAIN.model_copy(update={"seed": seed})
    teacher = read(find_file(zoo("ppo/HalfCheetah-v3_1")), LoadConfig())
    for way, students in {"generation": ["mlp:16x16"] * 2, "assistant": ["mlp:48x48", "mlp:16x16"]}.items():
        yield way, partial(_linked, way, students, teacher, config)


def _linked(way: str, students: Sequence[str], teacher: Agent, config: DistillConfig) -> list[Row]:
    return [
        {
            "who": f"{way} {i + 1}",
            "student": student,
            "params": each.student.n_params,
            "score": score(each.student, teacher),
        }
        for i, (student, each) in enumerate(zip(students, ladder(teacher, students, config, learn), strict=True))
    ]


def zoo(name: str) -> Path:
    """A folder of the RL Zoo."""
    return Path(os.environ["KDCLI_ZOO"]) / name


def train(folder: Path) -> None:
    """Write the imperfect teachers: PPO stopped early, three seeds of each env."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    ways: dict[str, tuple[int, dict[str, Any]]] = {
        "CartPole-v1": (8, {"n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98, "n_epochs": 20}),
        "LunarLander-v3": (16, {"n_steps": 128, "batch_size": 128, "gae_lambda": 0.98, "gamma": 0.999}),
    }
    rates = {"CartPole-v1": {"learning_rate": 1e-3}, "LunarLander-v3": {"learning_rate": 5e-4, "ent_coef": 0.01}}
    for env, (n_envs, options) in ways.items():
        for seed in (1, 2, 3):
            made = make_vec_env(env, n_envs, seed=seed)
            model = PPO("MlpPolicy", made, seed=seed, device="cpu", **options, **rates[env])
            model.learn(TRAINED[env]).save(folder / f"{env}-seed{seed}.zip")


def table(folder: Path) -> None:
    """Print the mean of each cell over the seeds, and its 95 % interval by Student's t."""
    for part in PARTS:
        rows = [row for file in sorted(folder.glob(f"{part}-*.json")) for row in json.loads(file.read_text())]
        cells: dict[tuple[str, ...], list[Row]] = {}
        for row in rows:
            key = tuple(str(row[k]) for k in ("env", "what", "who", "student", "params") if k in row)
            cells.setdefault(key, []).append(row)
        print(f"\n{part}")
        for key, found in cells.items():
            print(" | ".join(key), "|", " | ".join(_cell(found, k) for k in ("return", "score", "forgot")))


def _cell(rows: Sequence[Row], name: str) -> str:
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    if not values:
        return ""
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return f"{name} {mean:.3f} [{mean - half:.3f}, {mean + half:.3f}] worst {min(values):.3f} n={n}"


PARTS: dict[str, Callable[[int, Path], Iterator[Cell]]] = {
    "many": many,
    "tasks": tasks,
    "control": control,
    "chain": chain,
}


def main(what: str, *rest: str) -> None:
    """Do what the first word says."""
    torch.set_num_threads(1)
    folder = Path(rest[-1])
    if what in PARTS:
        for seed in range(int(rest[0])):
            _run(what, seed, folder)
    else:
        {"train": train, "table": table}[what](folder)


def _run(part: str, seed: int, folder: Path) -> None:
    """The cells of one part with one seed that are not there, as long as there is time."""
    for name, make in PARTS[part](seed, folder):
        file = folder / f"{part}-{seed}-{name}.json"
        if not file.exists() and time.process_time() < float(os.environ.get("KDCLI_SECONDS", "inf")):
            rows = make()
            file.write_text(json.dumps(rows))
            print(f"{part} {seed}, {time.process_time():.0f} s: {rows}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
