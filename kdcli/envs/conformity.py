"""Whether an env keeps gymnasium's contract, tried in one reset and one step before any work begins.

As `gymnasium.utils.env_checker.check_env` asks it, without what harms nobody who plays: bounds that are left a little,
observations given as lists, float64 where float32 was promised.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from kdcli.envs.boundary import code_of
from kdcli.errors import UsageError
from kdcli.spec import MASK, EnvSpec

_RESET = "def reset(self, *, seed=None, options=None): super().reset(seed=seed); ...; return observation, {}"
_STEP = "return observation, reward, terminated, truncated, info"
_OF_MAKE = (TimeLimit, OrderEnforcing, PassiveEnvChecker)


class MisfitError(Exception):
    """What an env gave that it must not give, and the line of code that would be right."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.why, self.fix = why, fix

    def told(self, env_id: str, doing: str) -> UsageError:
        """As an error of the env `env_id`."""
        return UsageError(f"your env {env_id} does not keep gymnasium's contract in {doing}", self.why, self.fix)


def check_env(spec: EnvSpec, env: gymnasium.Env) -> None:
    """One reset and one step of the env that `spec` made, and again of all its wrappers together.

    Raises:
        UsageError: it raises, or does not keep gymnasium's contract.
    """
    _try_out(spec.id, _core(env))
    if spec.wrappers:
        _try_out(str(spec), env)


def _core(env: gymnasium.Env) -> gymnasium.Env:
    """What `gymnasium.make` was given to wrap."""
    found = env
    while isinstance(env, gymnasium.Wrapper):
        env, found = env.env, env.env if isinstance(env, _OF_MAKE) else found
    return found


def _try_out(name: str, env: gymnasium.Env) -> None:
    doing = "reset"
    try:
        _check_signature(env)
        with code_of(name, doing):
            begun = env.reset(seed=0)
        check_reset(begun, env.observation_space)
        action = _some_action(env, *begun)
        doing = "step"
        with code_of(name, doing):
            done = env.step(action)
        check_step(done, env.observation_space)
    except MisfitError as misfit:
        raise misfit.told(name, doing) from None


def _check_signature(env: gymnasium.Env) -> None:
    known = inspect.signature(env.reset).parameters
    if "seed" not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        raise MisfitError("reset() takes no seed, as in gym before 0.26: episodes could not be repeated", _RESET)


def _some_action(env: gymnasium.Env, obs: Any, info: dict[str, Any]) -> Any:
    """A random action among those that the env allows; its own source of chance is left alone."""
    space = copy.deepcopy(env.action_space)
    space.seed(0)
    told = obs.get(MASK) if isinstance(obs, Mapping) else info.get(MASK)
    if told is None and env.has_wrapper_attr("action_masks"):
        told = env.get_wrapper_attr("action_masks")()
    if told is None or not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return space.sample()
    mask = np.concatenate([np.ravel(part) for part in told] if isinstance(told, tuple | list) else [np.ravel(told)])
    mask = mask.astype(np.int8)
    if isinstance(space, spaces.Discrete):
        return space.sample(mask) if mask.size == space.n else space.sample()
    fits = mask.size == space.nvec.sum()
    return space.sample(tuple(np.split(mask, np.cumsum(space.nvec)[:-1]))) if fits else space.sample()


def check_reset(found: Any, space: spaces.Space[Any]) -> None:
    """Check what `reset` returned.

    Raises:
        MisfitError: it is not (observation, info), or the observation is not one of `space`.
    """
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        given = f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
        raise MisfitError(f"reset() returns {given}; gymnasium wants two: the observation, and info, a dict", _RESET)
    check_observation(found[0], space)


def check_step(found: Any, space: spaces.Space[Any]) -> None:
    """Check what `step` returned.

    Raises:
        MisfitError: it is not (observation, reward, terminated, truncated, info), or one of these is of another kind.
    """
    if not (isinstance(found, tuple) and len(found) == 5):
        given = f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
        old = ", as gym before 0.26" if isinstance(found, tuple) and len(found) == 4 else ""
        raise MisfitError(f"step() returns {given}{old}; gymnasium wants five", _STEP)
    obs, reward, *ends, info = found
    if np.ndim(reward) or not _is_number(reward):
        raise MisfitError(f"the reward is {_kind(reward)}, not one number", "return float(reward)")
    if not np.isfinite(reward):
        raise MisfitError(f"the reward is {reward}", "look for a division by zero or a logarithm of it in the reward")
    for name, value in zip(("terminated", "truncated"), ends, strict=True):
        if np.ndim(value) or not isinstance(value, bool | int | np.bool_ | np.integer):
            raise MisfitError(f"{name} is {_kind(value)}, not true or false", f"return bool({name})")
    if not isinstance(info, dict):
        raise MisfitError(f"info is {_kind(info)}, not a dict", _STEP)
    check_observation(obs, space)


def check_observation(obs: Any, space: spaces.Space[Any], name: str = "the observation") -> None:
    """Check one observation, part by part.

    Raises:
        MisfitError: another shape, a number its dtype cannot hold, nan, a choice that there is not, a part missing.
    """
    match space:
        case spaces.Dict():
            if not isinstance(obs, Mapping) or (missing := [key for key in space.spaces if key not in obs]):
                given = f"has no {', '.join(map(repr, missing))}" if isinstance(obs, Mapping) else f"is {_kind(obs)}"
                raise MisfitError(f"{name} {given}; observation_space is {space}", "return a dict of all its parts")
            for key, part in space.spaces.items():
                check_observation(obs[key], part, f"the part {key!r} of {name}")
        case spaces.Tuple():
            if not isinstance(obs, tuple | list) or len(obs) != len(space.spaces):
                raise MisfitError(
                    f"{name} is {_kind(obs)}; observation_space is {space}", "return a tuple of all its parts"
                )
            for i, part in enumerate(space.spaces):
                check_observation(obs[i], part, f"part {i} of {name}")
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            _check_array(obs, space, name)


def _check_array(obs: Any, space: spaces.Space[Any], name: str) -> None:
    assert space.shape is not None
    try:
        array = np.asarray(obs)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise MisfitError(f"{name} is {_kind(obs)}, not numbers", f"return np.array(..., {space.dtype})")
    if array.shape != space.shape:
        why = f"{name} has the shape {array.shape}, observation_space says {space.shape}"
        raise MisfitError(why, "correct observation_space, or what reset() and step() return")
    if np.isnan(array).any():
        why = f"{name} is nan in {int(np.isnan(array).sum())} of {array.size} numbers"
        raise MisfitError(why, "look for a division by zero, or a sensor that is not ready, in the observation")
    dtype = np.dtype(space.dtype)
    if dtype.kind != "f" and not _holds(dtype, array):
        why = f"{name} is {array.dtype} from {array.min():g} to {array.max():g}, observation_space says {dtype}"
        raise MisfitError(why, "correct the dtype of observation_space, or convert what reset() and step() return")
    if not isinstance(space, spaces.Box):
        least, most = _range(space)
        if (array < least).any() or (array > most).any():
            raise MisfitError(f"{name} is {array}, which is not in {space}", "correct observation_space")


def _holds(dtype: np.dtype, array: np.ndarray) -> bool:
    """Whether a dtype of integers or truths holds these numbers as they are."""
    if not np.isfinite(array).all():
        return False
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool((array >= least).all() and (array <= most).all() and (array == np.round(array)).all())


def _range(space: spaces.Space[Any]) -> tuple[Any, Any]:
    match space:
        case spaces.Discrete():
            return space.start, space.start + space.n - 1
        case spaces.MultiDiscrete():
            return space.start, space.start + space.nvec - 1
    return 0, 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_) or (
        isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return f"a {type(value).__name__}"
