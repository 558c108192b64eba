"""What quantization costs in return: students trained as they will be quantized, beside those only rounded.

    OMP_NUM_THREADS=1 python tests/studies/quantization.py measure ENV SEED -o results.json [VARIANT ...]
    python tests/studies/quantization.py table results.json

KDCLI_ZOO is a clone of DLR-RM/rl-trained-agents. Each run distills a float student (mlp:32x32) from the teacher, makes
every variant of it, and plays the same 50 or 100 episodes with all of them; results are added to the file. Settings are
the same for every teacher. W4A4I8: 4-bit weights, 4-bit activations, observations on a grid of 8 bits.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcli.agents.agent import Acts, Agent
from kdcli.agents.states import States
from kdcli.benchmarks.verdict import compare
from kdcli.checkpoints.read import find_file, read
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loop import distill
from kdcli.distillation.pool import watch
from kdcli.envs.play import collect_turns, open_vector, play, seeds_from
from kdcli.envs.seeds import first_seed
from kdcli.envs.vector import Vector
from kdcli.quantization.plan import Plan
from kdcli.quantization.work import quantize
from kdcli.recipes.quantize import recovery
from kdcli.spec import EnvSpec

HERE = Path(__file__).parents[2] / "sample_checkpoints"
ZOO = Path(os.environ.get("KDCLI_ZOO", "/nonexistent"))
TEACHERS = {
    "HalfCheetah-v5": (HERE / "ppo/HalfCheetah-v5_1", None),
    "LunarLander-v3": (HERE / "ppo/LunarLander-v3_1", None),
    "CartPole-v1": (HERE / "ppo/CartPole-v1_1", None),
    "Swimmer-v5": (ZOO / "sac/Swimmer-v3_1", "Swimmer-v5"),
    "Hopper-v5": (ZOO / "ars/Hopper-v3_1", "Hopper-v5"),
    "Acrobot-v1": (ZOO / "dqn/Acrobot-v1_1", None),
    "LunarLanderContinuous-v3": (ZOO / "trpo/LunarLanderContinuous-v2_1", "LunarLanderContinuous-v3"),
    "Pendulum-v1": (ZOO / "tqc/Pendulum-v1_1", None),
}
# name -> scheme of the weights, bits of activations, bits of observations, trained so
VARIANTS: dict[str, tuple[str, int, int, bool]] = {
    "naive int8": ("int8:rows=no,fit=max", 8, 8, False),
    "W8A8I8 rounded": ("int8", 8, 8, False),
    "W8A8I8": ("int8", 8, 8, True),
    "W4A4I8 rounded": ("int4", 4, 8, False),
    "W4A4I8": ("int4", 4, 8, True),
    "W3A3I8": ("int3", 3, 8, True),
    "W2A2I8": ("int2", 2, 8, True),
    "W2A4I8": ("int2", 4, 8, True),
    "kmeans:4 A4I8": ("kmeans:4", 4, 8, True),
    "kmeans:16 weights rounded": ("kmeans:16", 0, 0, False),
    "int4 weights rounded": ("int4", 0, 0, False),
    "log:4 weights rounded": ("log:4", 0, 0, False),
    "W8A8I16 rounded": ("int8", 8, 16, False),
    "W8A8I6 rounded": ("int8", 8, 6, False),
    "W8A8I4 rounded": ("int8", 8, 4, False),
    "W8A8I6": ("int8", 8, 6, True),
    "W8A8I4": ("int8", 8, 4, True),
    "W4A4I4": ("int4", 4, 4, True),
    "W4A4I16": ("int4", 4, 16, True),
    "W3A3I3": ("int3", 3, 3, True),
}
MAIN = ("naive int8", "W8A8I8 rounded", "W8A8I8", "W4A4I8 rounded", "W4A4I8", "W3A3I8", "W2A2I8", "kmeans:4 A4I8")
EPISODES = 100
LONG = {"HalfCheetah-v5": 40, "Swimmer-v5": 40}  # episodes of 1000 steps that differ little
FLOAT = DistillConfig(student="mlp:32x32", labels=40_000, rounds=8, updates=16_000, episodes=8)
TRAINED = DistillConfig(labels=8_000, rounds=4, updates=4_000, episodes=8, lr="cosine:0.001->0.00001", data="student")


class Study:
    """One teacher and seed: its states, its float student, and the episodes that everyone plays."""

    def __init__(self, env: str, seed: int) -> None:
        folder, name = TEACHERS[env]
        self.seed, self.teacher = seed, read(find_file(folder))
        if name:
            self.teacher = replace(self.teacher, env=EnvSpec(name))
        assert self.teacher.env is not None
        self.vector = open_vector(self.teacher.env, self.teacher)
        self.seeds = seeds_from(first_seed("bench", 0), LONG.get(env, EPISODES))
        config = FLOAT.model_copy(update={"seed": seed})
        self.pool = watch(self.teacher, open_vector(self.teacher.env, self.teacher, 8), 4_000, 1_000_000, seed)
        self.student: Agent = distill(self.teacher, config, self.pool, self.judge).student
        obs, begins = collect_turns(self.student, self.vector, 4096, first_seed("screen", seed))
        self.states = States(obs, "rollout", len(self.vector), begins)

    def judge(self, agent: Acts) -> float:
        """The mean return that decides between rounds."""
        seeds = seeds_from(first_seed("select", self.seed), 8)
        return float(play(agent, self.judges, seeds).returns.mean())

    @property
    def judges(self) -> Vector:
        """Envs for that."""
        if not hasattr(self, "_judges"):
            assert self.teacher.env is not None
            self._judges = open_vector(self.teacher.env, self.teacher, 8)
        return self._judges

    def returns(self, agent: Acts | None) -> np.ndarray:
        """On the episodes that decide nothing."""
        return play(agent, self.vector, self.seeds).returns

    def made(self, variant: str) -> Agent:
        """The student as this variant has it."""
        scheme, activations, inputs, trained = VARIANTS[variant]
        plan = Plan.parse(scheme, activations, inputs)
        if not trained:
            return quantize(self.student, plan, self.states)
        pool = copy.copy(self.pool)
        pool.buffer = copy.deepcopy(self.pool.buffer)
        config = TRAINED.model_copy(update={"seed": self.seed})
        return quantize(self.student, plan, self.states, recovery(self.teacher, config, pool, self.judge))


def measure(env: str, seed: int, output: Path, variants: list[str]) -> None:
    """Add the results of one teacher and seed to the file."""
    torch.set_num_threads(1)
    began, study = time.perf_counter(), Study(env, seed)
    chance, teacher, student = (study.returns(a) for a in (None, study.teacher, study.student))
    rows: dict[str, Any] = {"float": row(student, student, teacher, chance, time.perf_counter() - began)}
    print(env, seed, "float", rows["float"], flush=True)
    for variant in variants:
        began = time.perf_counter()
        found = study.returns(study.made(variant))
        rows[variant] = row(found, student, teacher, chance, time.perf_counter() - began)
        print(env, seed, variant, rows[variant], flush=True)
        known = json.loads(output.read_text()) if output.exists() else {}
        known.setdefault(f"{env}/{seed}", {}).update(rows)
        output.write_text(json.dumps(known, indent=1))


def row(found: np.ndarray, student: np.ndarray, teacher: np.ndarray, chance: np.ndarray, seconds: float) -> Any:
    """Mean return, score against the float student with its interval, score against the teacher."""
    ours, theirs = compare(found, student, chance), compare(found, teacher, chance)
    told = {"return": float(found.mean()), "score": ours.score, "low": ours.low, "high": ours.high}
    return {**told, "of_teacher": theirs.score, "seconds": round(seconds, 1)}


def table(results: Path) -> None:
    """Scores against the float student, mean over seeds and the worst seed, one row a variant."""
    known = json.loads(results.read_text())
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, rows in known.items():
        for variant, told in rows.items():
            key = "of_teacher" if variant == "float" else "score"
            if told[key] is not None:
                found[variant][name.rpartition("/")[0]].append(told[key])
    envs = list(dict.fromkeys(name.rpartition("/")[0] for name in known))
    print("| variant | " + " | ".join(envs) + " |\n| --- |" + " ---: |" * len(envs))
    for variant in ["float", *VARIANTS]:
        if variant in found:
            cells = (found[variant][env] for env in envs)
            print(f"| {variant} | " + " | ".join(map(cell, cells)) + " |")


def cell(scores: list[float]) -> str:
    """`0.991 (0.982, 3 seeds)`: mean, worst."""
    return f"{np.mean(scores):.3f} ({min(scores):.3f}, {len(scores)})" if scores else ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("env", choices=TEACHERS)
    one.add_argument("seed", type=int)
    one.add_argument("variants", nargs="*", default=list(MAIN))
    one.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("table").add_argument("results", type=Path)
    given = parser.parse_args()
    if given.command == "table":
        table(given.results)
    else:
        measure(given.env, given.seed, given.output, given.variants)


if __name__ == "__main__":
    main()
