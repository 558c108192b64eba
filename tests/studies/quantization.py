"""What quantization costs in return: students trained as they will be quantized, beside those only rounded.

    OMP_NUM_THREADS=1 python tests/studies/quantization.py measure ENV SEED -o FOLDER [VARIANT ...]
    python tests/studies/quantization.py table FOLDER

KDCLI_ZOO is a clone of DLR-RM/rl-trained-agents. A float student (mlp:32x32) is distilled from the teacher once, every
variant made of it, and the same 20 or 100 episodes played with all; what is in the folder already is not made again.
Settings are the same for every teacher. W4A4I8: 4-bit weights, 4-bit activations, observations on a grid of 8 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from kdcli.agents import store
from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.checkpoints.read import find_file, read
from kdcli.compression.quantization import recovery
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.online import distill_in_env, judge_of
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.quantization.plan import Plan
from kdcli.quantization.quantize import quantize
from kdcli.rollouts.evaluate import collect_turns, open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed
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
# name -> scheme of the weights, bits of activations, bits of observations, trained so; their ranges, if not from play
VARIANTS: dict[str, tuple[str, int, int, bool] | tuple[str, int, int, bool, str]] = {
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
    "W8A8I8 dynamic rounded": ("int8", 8, 8, False, "dynamic"),
    "W4A4I8 dynamic rounded": ("int4", 4, 8, False, "dynamic"),
    "W4A4I8 dynamic": ("int4", 4, 8, True, "dynamic"),
    "W3A3I8 dynamic": ("int3", 3, 8, True, "dynamic"),
}
MAIN = ("naive int8", "W8A8I8 rounded", "W8A8I8", "W4A4I8 rounded", "W4A4I8", "W3A3I8", "W2A2I8", "kmeans:4 A4I8")
EPISODES = 100
LONG = {"HalfCheetah-v5": 20, "Swimmer-v5": 20}  # episodes of 1000 steps that differ little
FLOAT = DistillConfig(student="mlp:32x32", labels=40_000, rounds=8, updates=12_000, episodes=8, beta="linear:1->0")
TRAINED = DistillConfig(labels=12_000, rounds=4, updates=4_000, episodes=8, lr="cosine:0.001->0.00001", data="student")


class Study:
    """One teacher and seed: its float student, and the episodes that everyone plays."""

    def __init__(self, env: str, seed: int, folder: Path) -> None:
        source, name = TEACHERS[env]
        self.env, self.seed, self.folder = env, seed, folder
        self.teacher = read(find_file(source))
        self.teacher = replace(self.teacher, env=EnvSpec(name)) if name else self.teacher
        assert self.teacher.env is not None
        self.spec = self.teacher.env
        self.vector = open_vector(self.spec, self.teacher)
        self.seeds = seeds_from(first_seed("bench", 0), LONG.get(env, EPISODES))

    def returns(self, name: str, make: Callable[[], Actor | None]) -> None:
        """Play the episodes that decide nothing with what `make` gives, unless that was done."""
        path = self.folder / f"{self.env}.{self.seed}.{name.replace(':', '')}.json"
        if not path.exists():
            began = time.process_time()
            found = play(make(), self.vector, self.seeds).returns
            told = {"name": name, "returns": found.tolist(), "cpu_seconds": round(time.process_time() - began, 1)}
            path.write_text(json.dumps(told))
            print(self.env, self.seed, name, f"{found.mean():.1f}, {told['cpu_seconds']} s of CPU", flush=True)

    def student(self) -> Agent:
        """The float student, made once."""
        path = self.folder / f"{self.env}.{self.seed}.safetensors"
        if not path.exists():
            config = FLOAT.model_copy(update={"seed": self.seed})
            store.save(path, distill_in_env(self.teacher, config).student, {})
        return store.load(path)

    def made(self, variant: str) -> Agent:
        """The student as this variant has it."""
        scheme, activations, inputs, trained, *calibration = VARIANTS[variant]
        student, plan = self.student(), Plan.parse(scheme, activations, inputs, *calibration)
        obs, begins = collect_turns(student, self.vector, 4096, first_seed("screen", self.seed))
        states = States(obs, "rollout", len(self.vector), begins)
        if not trained:
            return quantize(student, plan, states)
        config = TRAINED.model_copy(update={"seed": self.seed})
        collector = RolloutCollector(self.teacher, open_vector(self.spec, self.teacher, 8), self.seed)
        first = collector.collect(None, 1.0, config.labels // 2)
        pool = ReplayPool(self.teacher, first, config.capacity, collector, preprocess=student.preprocess)
        return quantize(
            student, plan, states, recovery(self.teacher, config, pool, judge_of(self.teacher, self.spec, config))
        )


def measure(env: str, seed: int, folder: Path, variants: list[str]) -> None:
    """Everything for one teacher and seed that is not in the folder."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(env, seed, folder)
    study.returns("random", lambda: None)
    study.returns("teacher", lambda: study.teacher)
    study.returns("float", study.student)
    for variant in variants:
        study.returns(variant, lambda variant=variant: study.made(variant))  # type: ignore[misc]


def table(folder: Path) -> None:
    """Scores against the float student (the float's against the teacher): one row a variant, seeds side by side."""
    found: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        env, seed, *_ = path.name.split(".")
        told = json.loads(path.read_text())
        found[env, seed][told["name"]] = np.array(told["returns"])
    envs = [env for env in TEACHERS if any(env == name for name, _ in found)]
    print("| variant | " + " | ".join(envs) + " |\n| --- |" + " --- |" * len(envs))
    for variant in ["float", *VARIANTS]:
        cells = [[score(rows, variant) for (name, _), rows in found.items() if name == env] for env in envs]
        if any(any(scores) for scores in cells):
            print(f"| {variant} | " + " | ".join(cell([s for s in scores if s is not None]) for scores in cells) + " |")


def score(rows: Mapping[str, np.ndarray], variant: str) -> float | None:
    """The share of the float student's gain over random play, on the same episodes."""
    if variant not in rows or "float" not in rows:
        return None
    reference = rows["teacher"] if variant == "float" else rows["float"]
    return float((rows[variant] - rows["random"]).mean() / (reference - rows["random"]).mean())


def cell(scores: list[float]) -> str:
    """The mean over seeds and its 95 % interval by Student's t; one seed has none."""
    if len(scores) < 2:
        return f"{scores[0]:.3f}" if scores else ""
    low, high = stats.t.interval(0.95, len(scores) - 1, np.mean(scores), stats.sem(scores))
    return f"{np.mean(scores):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("env", choices=TEACHERS)
    one.add_argument("seed", type=int)
    one.add_argument("variants", nargs="*", default=list(MAIN))
    one.add_argument("-o", "--output", type=Path, required=True)
    commands.add_parser("table").add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.command == "table":
        table(given.folder)
    else:
        measure(given.env, given.seed, given.output, given.variants)


if __name__ == "__main__":
    main()
