"""How fast a rollout is: the teacher acting, labelling and writing, against the same envs with random actions.

    KDCLI_ZOO=<folder of agents> python tests/studies/rollout_speed.py [--agent ppo/HalfCheetah-v3_1] [--envs 8]

Both step as many envs, in turns, in one process on one thread. The time of a rollout is that of the whole step:
making the envs, acting, labelling, sorting, hashing, writing. The time of random play is that of choosing actions and
stepping alone. Prints steps a second and their ratio, median and range over the turns; processor time as well as wall
time, since a shared machine disturbs the latter.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from kdcli.agents.threads import one_thread
from kdcli.checkpoints.read import read
from kdcli.envs.vector import Vector
from kdcli.rollouts.config import RolloutConfig
from kdcli.rollouts.evaluate import open_vector
from kdcli.rollouts.random_policy import random_actions
from kdcli.rollouts.record import rollout
from kdcli.rollouts.recording import Cast
from kdcli.rollouts.step_loop import stream


class Took(NamedTuple):
    """Seconds of a piece of work."""

    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Took:
    """How long `work` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def random_play(vector: Vector, steps: int, seed: int) -> None:
    """Step every env with random actions."""
    rng = np.random.default_rng(seed)
    played = stream(vector, count(seed), lambda turn: random_actions(vector.action, turn.obs, rng))
    for _ in islice(played, steps // len(vector)):
        pass


def summary(name: str, values: list[float]) -> str:
    """Median and range."""
    return f"{name:<24}{np.median(values):10.3g}   ({min(values):.3g} to {max(values):.3g})"


def measure(agent: Path, steps: int, turns: int, envs: int) -> None:
    """Print the speeds of rollout and random play, and their ratios."""
    teacher = read(agent)
    assert teacher.env is not None
    vector, cast = open_vector(teacher.env, teacher, envs), Cast(teacher.env, teacher)
    random, recorded = [], []
    with TemporaryDirectory() as folder, one_thread():
        random_play(vector, 800, 0)
        for turn in range(turns):
            random.append(timed(lambda seed=turn: random_play(vector, steps, seed)))
            config = RolloutConfig(steps=steps, envs=envs, seed=turn)
            recorded.append(timed(lambda c=config, t=turn: rollout(cast, c, Path(folder, str(t)))))
    print(f"{agent.name}, {teacher.env}, {envs} envs, {steps:,} steps, {turns} turns: median (range)")
    for name in Took._fields:
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(random, recorded, strict=True)]
        print(summary(f"random steps/s, {name}", [steps / a for a, _ in pairs]))
        print(summary(f"rollout steps/s, {name}", [steps / b for _, b in pairs]))
        print(summary(f"ratio, {name}", [a / b for a, b in pairs]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", default="ppo/HalfCheetah-v3_1")
    parser.add_argument("--steps", type=int, default=65_536)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--envs", type=int, default=8)
    options = parser.parse_args()
    if "KDCLI_ZOO" in os.environ:
        measure(Path(os.environ["KDCLI_ZOO"], options.agent), options.steps, options.turns, options.envs)
    else:
        print("skipped: KDCLI_ZOO names no folder of agents")
