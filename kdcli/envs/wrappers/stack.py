"""The last observations as one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import whole, word
from kdcli.envs.wrappers.parts import joined, parts
from kdcli.errors import UsageError
from kdcli.spec import OBS


class _Stack:
    """The last `n` of one Box, oldest first, side by side along `axis` or, with `axis` None, along a new first one."""

    def __init__(self, space: spaces.Box, n: int, axis: int | None) -> None:
        self._axis, self._n = axis, n
        low, high = (self._stacked([bound] * n) for bound in (space.low, space.high))
        self.space = spaces.Box(low, high, dtype=space.dtype.type)
        self._frames: list[np.ndarray] = []

    def _stacked(self, frames: list[np.ndarray]) -> np.ndarray:
        return np.stack(frames) if self._axis is None else np.concatenate(frames, self._axis)

    def begin(self, obs: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The stack that begins with `obs`, with `before` in the place of what came before it."""
        self._frames = [before] * (self._n - 1) + [np.array(obs)]
        return self._stacked(self._frames)

    def push(self, obs: np.ndarray) -> np.ndarray:
        """The stack with `obs` as its newest."""
        # A copy, since an env may write each observation over the last.
        self._frames = [*self._frames[1:], np.array(obs)]
        return self._stacked(self._frames)


class _FrameStack(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, n: int, axis: str, pad: str) -> None:
        super().__init__(env)
        found = parts(env.observation_space)
        wrong = [name for name, part in found.items() if not isinstance(part, spaces.Box) or not part.shape]
        if wrong:
            why = f"{wrong[0]} is {found[wrong[0]]}"
            raise UsageError("only numbers and images can be stacked", why, "leave frame-stack out, or flatten first")
        self._stacks = {name: _Stack(part, n, _axis(part, axis)) for name, part in found.items()}  # type: ignore[arg-type]
        self._alone = not isinstance(env.observation_space, spaces.Dict)
        self._zeros = pad == "zeros"
        self.observation_space = joined(env.observation_space, {k: stack.space for k, stack in self._stacks.items()})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        given = {OBS: obs} if self._alone else obs
        found = {
            k: s.begin(given[k], np.zeros_like(given[k]) if self._zeros else np.array(given[k]))
            for k, s in self._stacks.items()
        }
        return (found[OBS] if self._alone else found), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *rest = self.env.step(action)
        if self._alone:
            return self._stacks[OBS].push(obs), *rest  # type: ignore[return-value]
        return {name: stack.push(obs[name]) for name, stack in self._stacks.items()}, *rest  # type: ignore[return-value]


def _axis(space: spaces.Box, named: str) -> int | None:
    """Along which axis to stack; an image's channels are the shortest of its three, as Stable-Baselines3 has it."""
    if named == "auto":
        image = (
            len(space.shape) == 3
            and space.dtype == np.uint8
            and bool((space.low == 0).all() and (space.high == 255).all())
        )
        named = "first" if image and int(np.argmin(space.shape)) == 0 else "last"
    return {"first": 0, "last": -1, "new": None}[named]


def frame_stack(env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    """The last N observations: as Stable-Baselines3's VecFrameStack, zeros before the beginning of an episode.

    With `axis=new,pad=first` as gymnasium's FrameStackObservation.
    """
    choice.only("axis", "pad")
    axis, pad = word(choice, "axis", ("auto", "last", "first", "new")), word(choice, "pad", ("zeros", "first"))
    return _FrameStack(env, whole(choice, default=4, most=2**6), axis, pad)
