"""A Stable-Baselines3 agent in its own `predict`, in onnxruntime and in C: actions and times on states of its own play.

    python tests/studies/c_beside_sb3.py [rounds]

LunarLander (PPO, a sample checkpoint), HalfCheetah (PPO 256x256 of KDCLI_ZOO where that is set, else the sample), and a
small CNN (PPO's CnnPolicy, untrained, on images of 36x36 of a toy env). 1,000 states each; calls of all take turns in
one process on one thread. C is compiled with `cc -O3` and called in a loop, as a C program does.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns

import gymnasium
import numpy as np
import torch
from c_latency import SINGLES, Compiled
from stable_baselines3 import PPO

sys.path.insert(0, str(Path(__file__).parents[1] / "rooms"))

from needs import ZOO
from sb3_oracle import zoo_teacher

import kdcli.envs.toys  # noqa: F401
from kdcli.agents.agent import Agent
from kdcli.agents.onnx.session import OnnxAgent
from kdcli.agents.states import States
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read
from kdcli.exporters import c
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.states import played
from kdcli.exporters.step import convert
from kdcli.graph.trace import trace
from kdcli.spec import Box, feed

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
N_STATES, CALLS, IN_C = 1000, 20, 16


def small_cnn(folder: Path) -> tuple[Path, LoadConfig]:
    """A fresh zip of PPO with a CnnPolicy."""
    path = folder / "cnn.zip"
    PPO("CnnPolicy", gymnasium.make("kdcli/See-v0"), n_steps=8, batch_size=8, seed=0).save(path)
    return path, LoadConfig(env="kdcli/See-v0")


def cases(folder: Path) -> Iterator[tuple[str, Path, LoadConfig]]:
    """Name, file and options of each agent."""
    known = "KDCLI_ZOO" in os.environ
    cheetah = ZOO / "ppo/HalfCheetah-v3_1" if known else SAMPLES / "ppo/HalfCheetah-v5_1"
    yield "LunarLander", find_file(SAMPLES / "ppo/LunarLander-v3_1"), LoadConfig()
    yield "HalfCheetah", find_file(cheetah), LoadConfig()
    yield "small CNN", *small_cnn(folder)


def predictor(path: Path, agent: Agent) -> Callable[[np.ndarray], np.ndarray]:
    """Stable-Baselines3's own `predict`, after VecNormalize where there is one."""
    model = zoo_teacher(str(path.parent.relative_to(ZOO))).model if path.is_relative_to(ZOO) else PPO.load(path)
    parts = list(agent.preprocess.parts.values())
    norm = parts[0].normalizer
    normalize = (lambda obs: obs) if norm is None else (lambda obs: norm(obs).astype(np.float32))
    return lambda obs: model.predict(normalize(obs), deterministic=True)[0]


def difference(file: OnnxAgent, found: np.ndarray, obs: np.ndarray) -> float:
    """The largest difference from onnxruntime's actions; for choices, the share of other ones."""
    wanted = file.act(obs)
    if isinstance(file.action, Box):
        return float(np.abs(found.reshape(wanted.shape) - wanted).max())
    return float((found.reshape(-1) != wanted.reshape(-1)).mean())


def timed(call: Callable[[int], object], n: int) -> float:
    """Microseconds of one of `n` calls, the median."""
    times = np.empty(n)
    for i in range(n):
        began = perf_counter_ns()
        call(i)
        times[i] = perf_counter_ns() - began
    return float(np.median(times)) / 1e3


def measure(name: str, path: Path, config: LoadConfig, folder: Path, rounds: int) -> None:
    """Print one agent's row."""
    agent = read(path, config)
    states: States = played(agent, N_STATES, 0)
    obs, file = states.observations, convert(agent, states, ExportConfig()).agent
    in_c, predict = Compiled(agent, obs, ("-O3",), folder), predictor(path, agent)
    rows = [obs[i : i + 1] for i in range(SINGLES)]
    feeds = [file.inputs(row) for row in rows]
    calls: dict[str, Callable[[int], object]] = {
        "SB3 predict": lambda i: predict(rows[i % SINGLES]),
        "onnxruntime": lambda i: file.session.run(["action"], feeds[i % SINGLES]),
        "C": lambda _: in_c.loop(IN_C),
    }
    table: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            table[key].append(timed(call, CALLS) / (IN_C if key == "C" else 1))
    graph = trace(agent)
    run = c.runner(c.write(graph, ExportConfig(), "policy"), graph)
    found = run(feed(agent.observation, obs))["action"]
    gaps = difference(file, found, obs), difference(file, np.concatenate([predict(o[None]) for o in obs]), obs)
    micro = {key: np.median(values) for key, values in table.items()}
    ratio = np.median(np.array(table["onnxruntime"]) / np.array(table["C"]))
    print(
        f"{name:12s} {agent.n_params:>9,} {gaps[0]:>9.1e} {gaps[1]:>9.1e} "
        f"{micro['SB3 predict']:>9.1f} {micro['onnxruntime']:>9.2f} {micro['C']:>9.3f} {ratio:>7.1f}x"
    )


def main(rounds: int = 60) -> None:
    """Every agent."""
    torch.set_num_threads(1)
    heads = ("params", "C - ORT", "SB3 - ORT", "SB3 us", "ORT us", "C us")
    print(f"{'agent':12s} {' '.join(f'{head:>9s}' for head in heads)} ORT / C")
    with tempfile.TemporaryDirectory() as folder:
        for name, path, config in cases(Path(folder)):
            measure(name, path, config, Path(folder), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
