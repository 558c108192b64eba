"""Wrappers of flat observations."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import flag, whole
from kdcli.envs.wrappers.parts import Lengthened, Mapped, flat
from kdcli.errors import UsageError

# RL Zoo's, for the ids of its time and for today's: which numbers of the observation are velocities.
_VELOCITIES = {
    "CartPole": [1, 3],
    "MountainCar": [1],
    "MountainCarContinuous": [1],
    "Pendulum": [2],
    "LunarLander": [2, 3, 5],
    "LunarLanderContinuous": [2, 3, 5],
}


class _Pad(Lengthened):
    def __init__(self, env: gymnasium.Env, width: int) -> None:
        super().__init__(env, np.full(width, -np.inf), np.full(width, np.inf))
        self._zeros = np.zeros(width, self._dtype)

    def _begin(self, obs: np.ndarray) -> np.ndarray:
        return np.concatenate([obs, self._zeros])

    def _follow(self, obs: np.ndarray, action: Any) -> np.ndarray:
        return self._begin(obs)


class _TimeFeature(Lengthened):
    def __init__(self, env: gymnasium.Env, horizon: int, frozen: bool) -> None:
        super().__init__(env, np.zeros(1), np.ones(1))
        self._horizon, self._frozen, self._t = horizon, frozen, 0

    def _now(self, obs: np.ndarray) -> np.ndarray:
        left = 1.0 if self._frozen else 1 - self._t / self._horizon
        return np.append(obs, np.array(left, self._dtype))

    def _begin(self, obs: np.ndarray) -> np.ndarray:
        self._t = 0
        return self._now(obs)

    def _follow(self, obs: np.ndarray, action: Any) -> np.ndarray:
        self._t += 1
        return self._now(obs)


class _History(Lengthened):
    """The last `n` observations, oldest first, then the last `n` actions; zeros before the episode's beginning."""

    def __init__(self, env: gymnasium.Env, n: int) -> None:
        does = env.action_space
        if not isinstance(does, Box) or len(does.shape) != 1:
            raise UsageError(
                "the wrapper needs actions that are vectors",
                f"this env takes {does}",
                "--wrapper none, or name others",
            )
        seen = flat(env)
        low, high = ([np.tile(of, n - 1), np.tile(to, n)] for of, to in ((seen.low, does.low), (seen.high, does.high)))
        super().__init__(env, np.concatenate(low), np.concatenate(high))
        self._observed = np.zeros(n * seen.shape[0], self._dtype)
        self._done = np.zeros(n * does.shape[0], does.dtype)

    def _begin(self, obs: np.ndarray) -> np.ndarray:
        self._observed, self._done = np.zeros_like(self._observed), np.zeros_like(self._done)
        return self._shifted(obs)

    def _follow(self, obs: np.ndarray, action: Any) -> np.ndarray:
        self._done = np.concatenate([self._done[len(action) :], action]).astype(self._done.dtype)
        return self._shifted(obs)

    def _shifted(self, obs: np.ndarray) -> np.ndarray:
        self._observed = np.concatenate([self._observed[len(obs) :], obs])
        return np.concatenate([self._observed, self._done]).astype(self._dtype)


def pad(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Append N zeros: for inputs that existed in training but were always zero (Ant's contact forces)."""
    return _Pad(env, whole(choice.only(), most=2**16))


def time_feature(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Append 1 - t/N, as sb3-contrib's TimeFeatureWrapper; N is the env's own step limit, else `fallback`."""
    choice.only("fallback", "test")
    # The registered limit, since max_steps cuts an episode and changes nothing of what is seen before.
    known = gymnasium.registry.get(env.spec.id) if env.spec is not None else None
    limit = known.max_episode_steps if known is not None else None
    horizon = whole(choice, default=limit or whole(choice, "fallback", 1000))
    return _TimeFeature(env, horizon, flag(choice, "test"))


def history(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """The last N observations and actions as one vector, as RL Zoo's HistoryWrapper."""
    return _History(env, whole(choice.only(), default=2, most=2**10))


def flatten(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """gymnasium's FlattenObservation: integers one-hot, a Dict's parts in their order."""
    choice.only()
    return gymnasium.wrappers.FlattenObservation(env)


def mask_velocity(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Velocities as zeros, as RL Zoo's MaskVelocityWrapper.

    Raises:
        UsageError: an env whose velocities are not known.
    """
    name = env.spec.id.partition("-")[0] if env.spec is not None else ""
    if name not in _VELOCITIES:
        raise UsageError(
            f"the velocities of {env} are not known",
            f"known: {', '.join(_VELOCITIES)}",
            "--wrapper none, or name others",
        )
    choice.only()

    def change(space: Box) -> tuple[Box, Any]:
        mask = np.ones(space.shape, space.dtype)
        mask[_VELOCITIES[name]] = 0
        return space, lambda obs: obs * mask

    return Mapped(env, change, "numbers")
