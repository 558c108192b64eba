"""What Stable-Baselines3 itself does, to compare with: fresh models, and the zoo's loaded by SB3."""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

ZOO = Path(os.environ.get("KDCLI_ZOO", ""))
needs_zoo = pytest.mark.skipif("KDCLI_ZOO" not in os.environ, reason="set KDCLI_ZOO to the folder of zoo agents")
ZOO_AGENTS = {
    "a2c/BipedalWalker-v3_1": "A2C",
    "ars/Hopper-v3_1": "ARS",
    "ddpg/Pendulum-v1_1": "DDPG",
    "dqn/Acrobot-v1_1": "DQN",
    "ppo/CartPole-v1_1": "PPO",
    "ppo/HalfCheetah-v3_1": "PPO",
    "qrdqn/MountainCar-v0_1": "QRDQN",
    "sac/Swimmer-v3_1": "SAC",
    "tqc/Pendulum-v1_1": "TQC",
    "trpo/LunarLanderContinuous-v2_1": "TRPO",
}
CODE_ENTRIES = ("lr_schedule", "learning_rate", "clip_range", "exploration_schedule", "delta_std_schedule")
OFF_POLICY = {"DQN", "QRDQN", "SAC", "TD3", "DDPG", "TQC"}

BOX = spaces.Box(-2.0, np.array([1.0, 3.0, 2.5], np.float32))
WIDE = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
IMAGE = spaces.Box(0, 255, (1, 5, 4), np.uint8)
OBSERVATIONS: dict[str, spaces.Space] = {
    "box": BOX,
    "wide": WIDE,
    "image": IMAGE,
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(6),
}
ACTIONS: dict[str, spaces.Space] = {
    "box": spaces.Box(np.array([-2.0, -0.5], np.float32), np.array([2.0, 1.0], np.float32)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "multibinary": spaces.MultiBinary(3),
}


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class of SB3 or sb3-contrib called `name`."""
    return getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)


class FakeEnv(gymnasium.Env):
    """Gives random observations and takes any action."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


@dataclass
class Teacher:
    """A model of SB3's, its VecNormalize if any, and the file it was saved to."""

    model: BaseAlgorithm
    normalize: VecNormalize | None
    path: Path

    def actions(self, obs: np.ndarray) -> np.ndarray:
        """Deterministic actions for raw observations, as a user of SB3 gets them."""
        seen = obs if self.normalize is None else self.normalize.normalize_obs(obs)
        return self.model.predict(seen, deterministic=True)[0]

    def observations(self, n: int = 1000) -> np.ndarray:
        """Observations as they come: around the statistics where there are some, else from the space."""
        rng = np.random.default_rng(5)
        return draw(self.model.observation_space, n, rng, self.normalize)


def draw(space: spaces.Space, n: int, rng: np.random.Generator, normalize: VecNormalize | None = None) -> np.ndarray:
    """(n, *shape) observations of `space`."""
    if normalize is not None:
        spread = rng.standard_normal((n, *space.shape)) * 1.5
        return (normalize.obs_rms.mean + np.sqrt(normalize.obs_rms.var) * spread).astype(space.dtype)
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, n)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(0, space.nvec, (n, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (n, *space.shape)).astype(np.int8)
    if space.dtype == np.uint8:
        return rng.integers(0, 256, (n, *space.shape), dtype=np.uint8)
    low, high = np.maximum(space.low, -10.0), np.minimum(space.high, 10.0)
    return rng.uniform(low, high, (n, *space.shape)).astype(space.dtype)


def fresh(folder: Path, name: str, observation: spaces.Space, action: spaces.Space, **settings: Any) -> Teacher:
    """A model with random weights, saved in `folder`; `normalized`, `policy` and arguments of the algorithm."""
    torch.manual_seed(len(name) + 7)
    rng = np.random.default_rng(3)
    env: Any = DummyVecEnv([lambda: FakeEnv(observation, action)])
    normalize = _normalized(env, rng) if settings.pop("normalized", False) else None
    extra = {"buffer_size": 1} if name in OFF_POLICY else {}
    policy = settings.pop("policy", "MlpPolicy")
    model = algorithm(name)(policy, normalize or env, device="cpu", **extra, **settings)
    with torch.no_grad():
        for tensor in model.policy.parameters():
            tensor.copy_(torch.randn(tensor.shape) * 0.4)
    if name == "ARS":
        model.weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
    path = folder / "model.zip"
    model.save(path)
    if normalize is not None:
        normalize.save(str(folder / "vecnormalize.pkl"))
    return Teacher(model, normalize, path)


def _normalized(env: Any, rng: np.random.Generator) -> VecNormalize:
    normalize = VecNormalize(env, training=False, clip_obs=4.0, epsilon=1e-6)
    shape = env.observation_space.shape
    normalize.obs_rms = RunningMeanStd(shape=shape)
    normalize.obs_rms.mean, normalize.obs_rms.var = rng.normal(size=shape), rng.gamma(2.0, size=shape)
    return normalize


def zoo_teacher(folder: str) -> Teacher:
    """An agent of the zoo as SB3 loads it: modules of gym aliased, entries with byte code replaced."""
    [path] = (ZOO / folder).glob("*.zip")
    name = ZOO_AGENTS[folder]
    extra = {"buffer_size": 1} if name in OFF_POLICY else {}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        for module in ("", ".spaces", ".spaces.box", ".spaces.discrete"):
            patch.setitem(sys.modules, f"gym{module}", sys.modules[f"gymnasium{module}"])
        dummies = dict.fromkeys(CODE_ENTRIES, lambda _: 0.0)
        model = algorithm(name).load(path, device="cpu", custom_objects=dummies, **extra)
        statistics = path.with_suffix("") / "vecnormalize.pkl"
        normalize = pickle.loads(statistics.read_bytes()) if statistics.exists() else None
    if normalize is not None:
        normalize.training = False
    return Teacher(model, normalize, path)
