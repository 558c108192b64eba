"""The other side of `beside_imitation.py`: DAgger by HumanCompatibleAI/imitation 1.0.1, in a Python that has it.

    python imitation_worker.py job.npz student.npz

Reads one job (the teacher's layers, some of its actions, the settings), trains one student as imitation's quickstart
does, writes its layers and prints one line of JSON: seconds, labels, returns here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from imitation.algorithms.bc import BC
from imitation.algorithms.dagger import LinearBetaSchedule, SimpleDAggerTrainer
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.util import logger
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

EPISODE = 1000  # steps of every episode of HalfCheetah and Swimmer
ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
Job = dict[str, Any]
Make = Callable[[], gymnasium.Env]


def layers(job: Job, activation: type[torch.nn.Module]) -> torch.nn.Sequential:
    """The teacher's network of its weights and biases."""
    n, parts = int(job["layers"]), []
    for i in range(n):
        weight, bias = torch.from_numpy(job[f"weight{i}"]), torch.from_numpy(job[f"bias{i}"])
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        parts += [linear, *([activation()] if i < n - 1 else [])]
    return torch.nn.Sequential(*parts)


class Teacher(BasePolicy):
    """The teacher as a policy of Stable-Baselines3: normalize, the network, then clip or squash; actions in [-1, 1]."""

    def __init__(self, observation: gymnasium.Space, action: gymnasium.Space, job: Job) -> None:
        super().__init__(observation, action)
        self.net = layers(job, ACTIVATIONS[str(job["activation"])])
        self.mean, self.scale = torch.from_numpy(job["mean"]), torch.from_numpy(job["scale"])
        self.reach, self.tanh = float(job["clip"]), bool(job["tanh"])

    def _predict(self, observation: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        scaled = ((observation - self.mean) / self.scale).clamp(-self.reach, self.reach)
        out = self.net(scaled.float())
        return out.tanh() if self.tanh else out.clamp(-1.0, 1.0)


class AsTeacherSees(FlattenExtractor):
    """Observations normalized by the teacher's own constants, as a VecNormalize around the env would."""

    def __init__(self, space: gymnasium.Space, mean: np.ndarray, scale: np.ndarray, clip: float) -> None:
        super().__init__(space)
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("scale", torch.from_numpy(scale).float())
        self.clip = clip

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return ((super().forward(observations) - self.mean) / self.scale).clamp(-self.clip, self.clip)


def sees(job: Job) -> dict[str, Any]:
    """What the student's observations go through: the teacher's normalizer, else imitation's running one."""
    if bool(job["normalized"]):
        kwargs = {"mean": job["mean"], "scale": job["scale"], "clip": float(job["clip"])}
        return {"features_extractor_class": AsTeacherSees, "features_extractor_kwargs": kwargs}
    return {"features_extractor_class": NormalizeFeaturesExtractor}


def student_for(venv: DummyVecEnv, job: Job) -> ActorCriticPolicy:
    """An actor of the asked widths with tanh, imitation's default; no critic, which only costs time."""
    return ActorCriticPolicy(
        venv.observation_space,
        venv.action_space,
        lambda _: 1e-3,
        net_arch={"pi": job["widths"].tolist(), "vf": []},
        activation_fn=torch.nn.Tanh,
        **sees(job),
    )


def trained(venv: DummyVecEnv, teacher: Teacher, job: Job, folder: str) -> tuple[ActorCriticPolicy, int]:
    """A student after ten rounds and the last epochs on all their data, and how many labels that took."""
    seed, labels, quiet = int(job["seed"]), int(job["labels"]), logger.configure(f"{folder}/log", [])
    rng = np.random.default_rng(seed)
    bc = BC(
        observation_space=venv.observation_space,
        action_space=venv.action_space,
        rng=rng,
        policy=student_for(venv, job),
        custom_logger=quiet,
        device="cpu",
    )
    trainer = SimpleDAggerTrainer(
        venv=venv,
        scratch_dir=folder,
        expert_policy=teacher,
        rng=rng,
        bc_trainer=bc,
        beta_schedule=LinearBetaSchedule(int(job["rampdown"])),
        custom_logger=quiet,
    )
    trainer.train(
        labels,
        rollout_round_min_episodes=venv.num_envs,
        bc_train_kwargs={"log_rollouts_venv": None, "progress_bar": False},
    )
    bc.train(n_epochs=int(job["last_epochs"]), progress_bar=False)
    return bc.policy, sum(len(demo) for demo in trainer._all_demos)


def weights(policy: ActorCriticPolicy) -> dict[str, np.ndarray]:
    """The layers of the actor and what its observations are normalized by."""
    linears = [m for m in policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)] + [policy.action_net]
    out = {f"weight{i}": m.weight.detach().numpy() for i, m in enumerate(linears)}
    out |= {f"bias{i}": m.bias.detach().numpy() for i, m in enumerate(linears)}
    seen = policy.features_extractor
    if isinstance(seen, AsTeacherSees):
        return out | {"mean": seen.mean.numpy(), "scale": seen.scale.numpy(), "clip": np.array(seen.clip)}
    running = seen.normalize
    scale = torch.sqrt(running.running_var + running.eps).numpy()
    return out | {"mean": running.running_mean.numpy(), "scale": scale, "clip": np.array(np.inf)}


def measured(job: Job, target: str) -> dict[str, Any]:
    """Train, write the student, and say what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(int(job["seed"]))
    n_envs = int(job["labels"]) // (10 * EPISODE)
    begin, cpu = time.perf_counter(), time.process_time()
    make = partial(gymnasium.make, str(job["env"]))
    venv = DummyVecEnv([make] * n_envs)
    venv.seed(int(job["seed"]))
    teacher = Teacher(venv.observation_space, venv.action_space, job)
    with tempfile.TemporaryDirectory() as folder:
        policy, labels = trained(venv, teacher, job, folder)
    took = {"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu, "labels": labels}
    np.savez(target, **weights(policy.eval()))
    gap = float(np.abs(teacher.predict(job["obs"], deterministic=True)[0] - job["actions"]).max())
    return took | {"teacher_gap": gap} | _returns_here(policy, teacher, job, make)


def _returns_here(
    policy: BasePolicy, teacher: Teacher, job: Job, make: Callable[[], gymnasium.Env]
) -> dict[str, float]:
    """Mean returns of student and teacher in this Python's own env."""
    n, out = int(job["episodes_there"]), {}
    for name, agent in (("there", policy), ("teacher_there", teacher)):
        venv = DummyVecEnv([make] * n)
        venv.seed(20_000)
        out[name] = float(np.mean(evaluate_policy(agent, venv, n_eval_episodes=n, warn=False)[0]))
    return out


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        result = measured(dict(file), sys.argv[2])
    print(json.dumps(result))
