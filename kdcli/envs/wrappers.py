"""Wrappers as data: each is named in an EnvSpec, so that every later step repeats the collection exactly."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from kdcli.errors import UsageError


def wrap(env: gymnasium.Env, text: str) -> gymnasium.Env:
    """Apply one wrapper by `name[:value]`.

    Raises:
        UsageError: unknown name, or a value that is not a positive number.
    """
    from kdcli.choice import Choice
    from kdcli.envs import WRAPPERS

    choice = Choice.parse(text).only()
    return WRAPPERS.load(choice.name)(env, choice.value)


def _positive(name: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise UsageError(f"the wrapper {name!r} cannot read {value!r}", "it needs a positive number", f"e.g. {name}:84")
    return int(value)


class _Appended(gymnasium.Wrapper):
    """Appends `width` numbers to a one-dimensional observation; subclasses say which."""

    def __init__(self, env: gymnasium.Env, width: int, low: float, high: float) -> None:
        super().__init__(env)
        inner = env.observation_space
        if not isinstance(inner, Box) or len(inner.shape) != 1:
            raise UsageError("the wrapper needs a flat observation", f"this env gives {inner}", "leave the wrapper out")
        bounds = [np.append(b, [v] * width).astype(inner.dtype) for b, v in ((inner.low, low), (inner.high, high))]
        self.observation_space = Box(bounds[0], bounds[1], dtype=inner.dtype.type)
        self._t = 0

    def _extra(self) -> np.ndarray:
        raise NotImplementedError

    def _append(self, obs: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, self._extra()]).astype(obs.dtype)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self._t = 0
        obs, info = self.env.reset(**kwargs)
        return self._append(obs), info

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        self._t += 1
        obs, *rest = self.env.step(action)
        return self._append(obs), *rest  # type: ignore[return-value]


class _Pad(_Appended):
    def __init__(self, env: gymnasium.Env, width: int) -> None:
        super().__init__(env, width, -np.inf, np.inf)
        self._zeros = np.zeros(width)

    def _extra(self) -> np.ndarray:
        return self._zeros


class _TimeFeature(_Appended):
    def __init__(self, env: gymnasium.Env, horizon: int) -> None:
        super().__init__(env, 1, 0.0, 1.0)
        self._horizon = horizon

    def _extra(self) -> np.ndarray:
        return np.array([1.0 - self._t / self._horizon])


def pad(env: gymnasium.Env, value: str) -> gymnasium.Env:
    """Append `value` zeros: for inputs that existed in training but were always zero (Ant's contact forces)."""
    return _Pad(env, _positive("pad", value))


def time_feature(env: gymnasium.Env, value: str) -> gymnasium.Env:
    """Append 1 - t/horizon, as RL Zoo's TimeFeatureWrapper does; the horizon is the env's own step limit or 1000."""
    limit = env.spec.max_episode_steps if env.spec is not None else None
    return _TimeFeature(env, _positive("time-feature", value) if value else limit or 1000)
