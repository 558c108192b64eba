"""Toy environments that a policy learns in a second: what tests and demonstrations run on."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Reach(gymnasium.Env):
    """Push a point on a line to the origin: observation (position, velocity), force in [-1, 1], 50 steps.

    Reward is minus the squared distance; it is well played by -(1.5 x + 1.5 v).
    """

    def __init__(self) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self._state = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self._state = self.np_random.uniform(-1.0, 1.0, 2)
        return self._state.copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        x, v = self._state
        v += 0.2 * float(np.clip(action, -1.0, 1.0)[0])
        self._state = np.array([x + 0.2 * v, v])
        return self._state.copy(), -float(self._state[0] ** 2), False, False, {}


class Choose(gymnasium.Env):
    """Name the largest of three noisy signals: observation (3,), three actions, reward 1 when right, 20 steps."""

    def __init__(self) -> None:
        self.observation_space = Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = Discrete(3)
        self._signals = np.zeros(3, np.float32)

    def _draw(self) -> np.ndarray:
        self._signals = self.np_random.uniform(-1.0, 1.0, 3).astype(np.float32)
        return self._signals

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(int(action) == int(self._signals.argmax()))
        return self._draw(), reward, False, False, {}


gymnasium.register("kdcli/Reach-v0", "kdcli.envs.toys:Reach", max_episode_steps=50)
gymnasium.register("kdcli/Choose-v0", "kdcli.envs.toys:Choose", max_episode_steps=20)
