"""How students of images learn best in a given time: batch normalization while training or not, batch, learning rate.

    OMP_NUM_THREADS=1 python tests/studies/images.py TEACHER --env ALE/Pong-v5 --env-kwargs frameskip=1 \
        --env-kwargs repeat_action_probability=0 --wrapper atari:style=ale --wrapper frame-stack:4 [--seconds 30]

All learn from the same recorded states, a quarter of the actions in them random, for as many gradient steps as the
seconds of processor time allow, and are compared on states of other episodes: KL(teacher || student), and the mean
return of greedy play. One line an arm.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.distillation.batch_norm import standardize
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import Learner, some_features
from kdcli.distillation.losses.choices import kl
from kdcli.distillation.objective import Objective
from kdcli.distillation.replay_pool import Labelled, ReplayPool, RolloutCollector
from kdcli.distillation.student import new_student
from kdcli.rollouts.evaluate import open_vector, play, seeds_from
from kdcli.rollouts.seeds import first_seed

# name -> normalized, batch, first learning rate
ARMS = {
    "plain, 64": (False, 64, 0.001),
    "plain, 64, lower rate": (False, 64, 0.0003),
    "normalized, 256, higher rate": (True, 256, 0.003),
    "normalized, 64, higher rate": (True, 64, 0.003),
    "normalized, 64": (True, 64, 0.001),
    "normalized, 32": (True, 32, 0.001),
}
STATES, NEW, RANDOM, EPISODES = 16_000, 2_000, 0.25, 8


def states(teacher: Agent, n: int, seed: int) -> Labelled:
    """Labelled states of the teacher's play, disturbed by chance."""
    assert teacher.env is not None
    return RolloutCollector(teacher, open_vector(teacher.env, teacher, 8), seed, RANDOM).collect(None, 1.0, n)


def trained(teacher: Agent, pool: ReplayPool, student: str, arm: str, seconds: float, seed: int) -> tuple[Agent, int]:
    """A student after so many seconds of processor time, and its gradient steps."""
    normalized, batch, rate = ARMS[arm]
    config = DistillConfig(student=student, batch=batch, lr=f"cosine:{rate}->0.00003", seed=seed)

    def learner() -> Learner:
        made = new_student(teacher, config, ["kl"], pool.preprocess)
        if normalized:
            standardize(made.policy, some_features(pool.buffer))
        return Learner(made, Objective.of(config, ["kl"]), config, normalized=normalized)

    timed = learner()
    timed.train(pool.buffer, 10)  # warm
    began = time.process_time()
    timed.train(pool.buffer, 50)
    n = max(1, int(50 * seconds / (time.process_time() - began)))
    found = learner()
    found.train(pool.buffer, n)
    return found.snapshot(), n


def main() -> None:
    """Measure every arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("--env", required=True)
    parser.add_argument("--env-kwargs", action="append", default=[])
    parser.add_argument("--wrapper", action="append", default=[])
    parser.add_argument("--student", default="cnn:16x32x32,hidden=128")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = LoadConfig(env=args.env, env_kwargs=tuple(args.env_kwargs), wrapper=tuple(args.wrapper))
    teacher = read(args.teacher, load)
    assert isinstance(teacher, Agent)
    assert teacher.env is not None
    pool, (obs, _) = ReplayPool(teacher, states(teacher, STATES, 0), STATES), states(teacher, NEW, 1)
    vector, seeds = open_vector(teacher.env, teacher, EPISODES), seeds_from(first_seed("bench", 0), EPISODES)
    print(f"teacher: {play(teacher, vector, seeds).returns.mean():.2f}", flush=True)
    with torch.inference_mode():
        said = teacher.heads(obs)
        for seed in range(args.seeds):
            for arm in ARMS:
                with torch.inference_mode(False):
                    student, n = trained(teacher, pool, args.student, arm, args.seconds, seed)
                far = float(kl(student.heads(obs), said, 1.0).mean())
                returns = play(student, vector, seeds).returns
                print(f"{arm}, seed {seed}: {n} steps, KL {far:.4f}, return {np.mean(returns):.2f}", flush=True)


if __name__ == "__main__":
    main()
