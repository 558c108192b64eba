"""Wrappers of what is done: repeated, bounded or cut short."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import number, whole


class _FrameSkip(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, n: int) -> None:
        super().__init__(env)
        self._n = n

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total = 0.0
        for _ in range(self._n):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


def frame_skip(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Each action N times with the rewards added, as RL Zoo's FrameSkip; only the last observation is seen."""
    return _FrameSkip(env, whole(choice.only(), default=4))


def sticky(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """The last action again with probability P (Machado et al. 2018, section 5.2), drawn from the env's seed."""
    return gymnasium.wrappers.StickyAction(env, number(choice.only()))


def rescale_action(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Actions between `low` and `high`, mapped to the env's own bounds."""
    choice.only("low", "high")
    low, high = number(choice, "low", -1.0), number(choice, "high", 1.0)
    return gymnasium.wrappers.RescaleAction(env, np.float32(low), np.float32(high))


def clip_action(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Any action, clipped to the env's bounds."""
    choice.only()
    return gymnasium.wrappers.ClipAction(env)


def time_limit(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Cut an episode after N steps of what is wrapped so far."""
    return gymnasium.wrappers.TimeLimit(env, whole(choice.only()))
