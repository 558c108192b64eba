"""Which actions are allowed, as a part of the observation."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from kdcli.choice import Choice
from kdcli.envs.wrappers.parts import parts
from kdcli.errors import UsageError
from kdcli.spec import MASK


class _ActionMask(gymnasium.Wrapper):
    """The env's own `action_masks()`, found through all wrappers (sb3-contrib), else `info["action_mask"]`."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        found = parts(env.observation_space)
        if MASK in found:
            raise UsageError("the wrapper action-mask is not needed", f"the env observes {MASK} itself", "leave it out")
        self._in_dict = isinstance(env.observation_space, spaces.Dict)
        self._n = _width(env.action_space)
        self._asked = env.get_wrapper_attr("action_masks") if env.has_wrapper_attr("action_masks") else None
        self.observation_space = spaces.Dict([*found.items(), (MASK, spaces.MultiBinary(self._n))])

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        told = self._asked() if self._asked is not None else info.get(MASK)
        if told is None:
            why = f"the env has no action_masks(), and no {MASK} in info"
            raise UsageError("the env does not say which actions are allowed", why, "leave the wrapper action-mask out")
        mask = np.concatenate([np.ravel(part) for part in told]) if isinstance(told, tuple | list) else np.ravel(told)
        if mask.size != self._n:
            why = f"{self.env.action_space} has {self._n} choices"
            raise UsageError(f"the env's mask has {mask.size} numbers", why, "leave the wrapper action-mask out")
        named = dict(obs) if self._in_dict else {next(iter(self.observation_space.spaces)): obs}  # type: ignore[attr-defined]
        return {**named, MASK: mask.astype(np.int8)}

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info), reward, terminated, truncated, info


def _width(does: spaces.Space) -> int:
    """How many choices a mask speaks of; each bit of a MultiBinary has two: 0 and 1."""
    match does:
        case spaces.Discrete():
            return int(does.n)
        case spaces.MultiDiscrete() if does.nvec.ndim == 1:
            return int(does.nvec.sum())
        case spaces.MultiBinary() if len(does.shape) == 1:
            return 2 * int(does.shape[0])
    raise UsageError(f"{does} cannot be masked", "a mask is for actions that are counted", "leave action-mask out")


def action_mask(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """Add the part `action_mask` (1: allowed), last; an observation that stands alone becomes the part `obs`."""
    choice.only()
    return _ActionMask(env)
