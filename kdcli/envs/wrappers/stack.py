"""The last observations as one."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from kdcli.choice import Choice
from kdcli.envs.wrappers.arguments import numbers, whole, word
from kdcli.envs.wrappers.parts import joined, parts
from kdcli.errors import UsageError
from kdcli.spec import OBS


class _Stack:
    """The last `n` of one Box, oldest first, side by side along `axis` or, with `axis` None, along a new first one.

    `pad`, of the Box's shape, is what came before an episode; without it, the first observation. Where its numbers are
    none of the Box's dtype, the stack is of float32.
    """

    def __init__(self, space: spaces.Box, n: int, axis: int | None, pad: np.ndarray | None) -> None:
        self._axis, self._n = axis, n
        exact = pad is None or space.dtype.kind == "f" or bool((pad.astype(space.dtype) == pad).all())
        dtype = space.dtype if exact else np.dtype(np.float32)
        self._pad = None if pad is None else pad.astype(dtype)
        low, high = (self._stacked([bound] * n) for bound in (space.low, space.high))
        self.space = spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype.type)
        self._frames: list[np.ndarray] = []

    def _stacked(self, frames: list[np.ndarray]) -> np.ndarray:
        return np.stack(frames) if self._axis is None else np.concatenate(frames, self._axis)

    def begin(self, obs: np.ndarray) -> np.ndarray:
        """The stack that begins with `obs`."""
        first = np.array(obs)
        self._frames = [first if self._pad is None else self._pad] * (self._n - 1) + [first]
        return self._stacked(self._frames)

    def push(self, obs: np.ndarray) -> np.ndarray:
        """The stack with `obs` as its newest."""
        # A copy, since an env may write each observation over the last.
        self._frames = [*self._frames[1:], np.array(obs)]
        return self._stacked(self._frames)


class _FrameStack(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, n: int, axis: str, pad: np.ndarray | None) -> None:
        super().__init__(env)
        found = parts(env.observation_space)
        wrong = [name for name, part in found.items() if not isinstance(part, spaces.Box) or not part.shape]
        if wrong:
            why = f"{wrong[0]} is {found[wrong[0]]}"
            raise UsageError("only numbers and images can be stacked", why, "leave frame-stack out, or flatten first")
        before = _pads(found, pad)  # type: ignore[arg-type]
        self._stacks = {name: _Stack(part, n, _axis(part, axis), before[name]) for name, part in found.items()}  # type: ignore[arg-type]
        self._alone = not isinstance(env.observation_space, spaces.Dict)
        self.observation_space = joined(env.observation_space, {k: stack.space for k, stack in self._stacks.items()})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        given = {OBS: obs} if self._alone else obs
        found = {name: stack.begin(given[name]) for name, stack in self._stacks.items()}
        return (found[OBS] if self._alone else found), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *rest = self.env.step(action)
        if self._alone:
            return self._stacks[OBS].push(obs), *rest  # type: ignore[return-value]
        return {name: stack.push(obs[name]) for name, stack in self._stacks.items()}, *rest  # type: ignore[return-value]


def _pads(found: Mapping[str, spaces.Box], pad: np.ndarray | None) -> dict[str, np.ndarray | None]:
    """Of each part what stands before an episode: its share of the numbers `pad`, or one number everywhere.

    Raises:
        ValueError: they are of another size.
    """
    if pad is None:
        return dict.fromkeys(found)
    sizes = [prod(part.shape) for part in found.values()]
    if pad.size not in (1, sum(sizes)):
        raise ValueError(f"pad has {pad.size} numbers, an observation {sum(sizes)}")
    shares = np.split(np.broadcast_to(pad, sum(sizes)), np.cumsum(sizes)[:-1])
    return {name: share.reshape(found[name].shape) for name, share in zip(found, shares, strict=True)}


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

    With `axis=new,pad=first` as gymnasium's FrameStackObservation. Numbers of `pad`, one or one for each of an
    observation (`pad=0.5/-1.2`), stand before an episode: means, where frames are normalized before they are stacked.
    """
    choice.only("axis", "pad")
    axis = word(choice, "axis", ("auto", "last", "first", "new"))
    return _FrameStack(env, whole(choice, default=4, most=2**6), axis, _pad(choice))


def _pad(choice: Choice) -> np.ndarray | None:
    """What stands before an episode; None for its first observation."""
    if set(choice.options.get("pad", "zeros")) <= set("0123456789+-.e/"):
        return numbers(choice, "pad")
    return np.zeros(1) if word(choice, "pad", ("zeros", "first")) == "zeros" else None
