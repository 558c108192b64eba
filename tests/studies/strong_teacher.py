"""A strong HalfCheetah teacher: TQC of SBX (JAX), its actor put into a zip of Stable-Baselines3.

    python -m venv sbx; sbx/bin/pip install sbx-rl "gymnasium[mujoco]"
    sbx/bin/python tests/studies/strong_teacher.py HalfCheetah-v5.zip --steps 600000

One core takes 110 to 130 steps a second. The zip says SAC, whose actor is the same network; its critics are untrained.
"""

from __future__ import annotations

import argparse
import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import gymnasium as gym
import numpy as np
import torch
from sbx import TQC
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

ENV = "HalfCheetah-v5"
LAYERS = {"Dense_0": "latent_pi.0", "Dense_1": "latent_pi.2", "Dense_2": "mu", "Dense_3": "log_std"}


def converted(trained: TQC) -> SAC:
    """The actor in torch."""
    agent = SAC("MlpPolicy", gym.make(ENV), policy_kwargs={"net_arch": [256, 256]}, buffer_size=1, device="cpu")
    theirs = trained.policy.actor_state.params["params"]
    for name, ours in LAYERS.items():
        layer = agent.actor.get_submodule(ours)
        layer.weight.data = torch.tensor(np.array(theirs[name]["kernel"]).T.copy())
        layer.bias.data = torch.tensor(np.array(theirs[name]["bias"]))
    return agent


def main() -> None:
    """Train, convert, and say what it returns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=600_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    throughput = {"learning_starts": 10_000, "train_freq": 8, "gradient_steps": 32, "policy_delay": 2}
    envs = make_vec_env(ENV, n_envs=4, seed=args.seed)
    trained = TQC("MlpPolicy", envs, seed=args.seed, policy_kwargs={"net_arch": [256, 256]}, **throughput)
    trained.learn(args.steps)
    agent, env = converted(trained), gym.make(ENV)
    agent.save(args.output)
    returns = []
    for seed in range(10_000, 10_008):
        (obs, _), total, over = env.reset(seed=seed), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs, deterministic=True)[0])
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    print(f"{np.mean(returns):.0f} +- {np.std(returns):.0f} over {len(returns)} episodes")


if __name__ == "__main__":
    main()
