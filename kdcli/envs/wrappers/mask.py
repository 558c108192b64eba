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

_METHOD = "action_masks"


class _ActionMask(gymnasium.Wrapper):
    """The env's own method, found through all wrappers (sb3-contrib's is action_masks), else `info["action_mask"]`."""

    def __init__(self, env: gymnasium.Env, method: str = "") -> None:
        super().__init__(env)
        found = parts(env.observation_space)
        if MASK in found:
            raise UsageError("the wrapper action-mask is not needed", f"the env observes {MASK} itself", "leave it out")
        self._in_dict = isinstance(env.observation_space, spaces.Dict)
        self._n = _width(env.action_space)
        if method and not callable(getattr(env.unwrapped, method, None)) and not env.has_wrapper_attr(method):
            raise UsageError(f"the env has no method {method}", "the wrapper action-mask asks it", _told(env))
        method = method or _METHOD
        self._asked = env.get_wrapper_attr(method) if env.has_wrapper_attr(method) else None
        self.observation_space = spaces.Dict([*found.items(), (MASK, spaces.MultiBinary(self._n))])

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        told = self._asked() if self._asked is not None else info.get(MASK)
        if told is None:
            why = f"the env has no action_masks(), and no {MASK} in info"
            raise UsageError("the env does not say which actions are allowed", why, _told(self.env))
        mask = np.concatenate([np.ravel(part) for part in told]) if isinstance(told, tuple | list) else np.ravel(told)
        if mask.size != self._n:
            why = f"{self.env.action_space} has {self._n} choices"
            raise UsageError(f"the env's mask has {mask.size} numbers", why, "let it have one for each choice")
        named = dict(obs) if self._in_dict else {next(iter(self.observation_space.spaces)): obs}  # type: ignore[attr-defined]
        return {**named, MASK: mask.astype(np.int8)}

    def reset(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info), reward, terminated, truncated, info


def _told(env: gymnasium.Env) -> str:
    """How the env can be asked: by a method of its own that seems to be for it, else by one yet to be written."""
    own = [name for name in dir(env.unwrapped) if "mask" in name.lower() and not name.startswith("_")]
    found = next((name for name in own if callable(getattr(env.unwrapped, name))), None)
    if found is not None:
        return f"--wrapper action-mask:{found}, if that method tells them"
    return f"give the env a method {_METHOD}(), or put {MASK} into its info: one truth for each choice"


def _width(does: spaces.Space[Any]) -> int:
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
    """Add the part `action_mask` (1: allowed), last; an observation that stands alone becomes the part `obs`.

    `action-mask:NAME` asks the env's method of that name.
    """
    choice.only()
    return _ActionMask(env, choice.value)
