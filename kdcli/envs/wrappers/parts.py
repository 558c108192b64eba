"""Where a wrapper finds what it changes: the observation, or parts of a Dict of observations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from kdcli.errors import UsageError
from kdcli.spec import OBS

Map = Callable[[np.ndarray], np.ndarray]
GOAL_OBSERVATION = "observation"


def parts(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """The spaces side by side in `space`, by name; one that stands alone is called `obs`."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {OBS: space}


def joined(like: spaces.Space[Any], found: dict[str, spaces.Space[Any]]) -> spaces.Space[Any]:
    """The inverse of `parts`, a Dict where `like` is one; the order is kept."""
    return spaces.Dict(list(found.items())) if isinstance(like, spaces.Dict) else found[OBS]


class Mapped(gymnasium.ObservationWrapper):
    """Each Box among the observations that `change` takes is seen through a function.

    `change(space)` gives the new space and the function from an observation to one in it, or None: left as it is.
    """

    def __init__(
        self, env: gymnasium.Env, change: Callable[[spaces.Box], tuple[spaces.Box, Map] | None], needs: str
    ) -> None:
        super().__init__(env)
        self._maps: dict[str, Map] = {}
        found = parts(env.observation_space)
        for name, part in found.items():
            if isinstance(part, spaces.Box) and (changed := change(part)) is not None:
                found[name], self._maps[name] = changed
        if not self._maps:
            raise UsageError(
                f"the wrapper needs {needs}",
                f"the env gives {env.observation_space}",
                "--wrapper none, or name others",
            )
        self._alone = None if isinstance(env.observation_space, spaces.Dict) else self._maps[OBS]
        self.observation_space = joined(env.observation_space, found)

    def observation(self, observation: Any) -> Any:
        """What is seen instead of `observation`."""
        if self._alone is not None:
            return self._alone(observation)
        return {**observation, **{name: change(observation[name]) for name, change in self._maps.items()}}


def flat(env: gymnasium.Env) -> spaces.Box:
    """The space of a flat observation, or of the part `observation` of a goal env's Dict.

    Raises:
        UsageError: there is none.
    """
    found = parts(env.observation_space)
    inner = found.get(GOAL_OBSERVATION, found.get(OBS))
    if not isinstance(inner, spaces.Box) or len(inner.shape) != 1:
        given = env.observation_space
        raise UsageError(
            "the wrapper needs a flat observation",
            f"this env gives {given}",
            "--wrapper flatten before it, or --wrapper none",
        )
    return inner


class Lengthened(gymnasium.Wrapper):
    """A flat observation, or the part `observation` of a goal env's Dict, with numbers after it; subclasses say which.

    `low` and `high` are the bounds of what is added.
    """

    def __init__(self, env: gymnasium.Env, low: np.ndarray, high: np.ndarray) -> None:
        super().__init__(env)
        inner, found = flat(env), parts(env.observation_space)
        self._key = GOAL_OBSERVATION if GOAL_OBSERVATION in found else OBS
        self._dtype = inner.dtype
        bounds = [np.concatenate(both).astype(inner.dtype) for both in ((inner.low, low), (inner.high, high))]
        found[self._key] = spaces.Box(bounds[0], bounds[1], dtype=inner.dtype.type)
        self._in_dict = isinstance(env.observation_space, spaces.Dict)
        self.observation_space = joined(env.observation_space, found)

    def _begin(self, obs: np.ndarray) -> np.ndarray:
        """The whole observation at the beginning of an episode."""
        raise NotImplementedError

    def _follow(self, obs: np.ndarray, action: Any) -> np.ndarray:
        """The whole observation after `action`."""
        raise NotImplementedError

    def _put(self, given: Any, flat: np.ndarray) -> Any:
        return {**given, self._key: flat} if self._in_dict else flat

    def _flat(self, given: Any) -> np.ndarray:
        return given[self._key] if self._in_dict else given

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        obs, info = self.env.reset(**kwargs)
        return self._put(obs, self._begin(self._flat(obs))), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one action; see `gymnasium.Env.step`."""
        obs, *rest = self.env.step(action)
        return self._put(obs, self._follow(self._flat(obs), action)), *rest
