"""From an EnvSpec to a running environment, and from gymnasium's spaces to ours."""

from __future__ import annotations

import difflib
import json
import shlex
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as Registration

from kdcli.envs import WRAPPERS
from kdcli.envs.advice import advise
from kdcli.envs.boundary import code_of
from kdcli.envs.ceilings import bounded, check_asked, check_seen
from kdcli.envs.ids import PETTINGZOO, registration
from kdcli.envs.packages import package_of, pip_name
from kdcli.envs.wrappers import wrap
from kdcli.errors import UsageError
from kdcli.said import is_said, refuse, refuse_unsaid
from kdcli.spec import (
    MASK,
    Box,
    Dict,
    Discrete,
    EnvSpec,
    MultiBinary,
    MultiDiscrete,
    Part,
    Space,
    handed,
    same_space,
)

DEFAULT_LIMIT = 10_000
_NO_LIMIT = -1
_EXPLAINED = (gymnasium.error.Error, ImportError)
_LIMIT = "max_episode_steps"
_PACKAGES = {
    "Box2D": "gymnasium[box2d]",
    "mujoco": "gymnasium[mujoco]",
    "ale_py": "kdcli[atari]",
    "pettingzoo": "kdcli[pettingzoo]",
    "pygame": "pygame",
}


class _Alone:
    """How the one env that stands alone and is open is closed, when another is asked for."""

    leave: Callable[[], None] | None = None


def make(spec: EnvSpec, leave: Callable[[], None] | None = None) -> gymnasium.Env:
    """The environment, its episodes capped at `spec.max_steps` or its own limit or 10,000 steps.

    With wrappers, `spec.max_steps` counts the agent's steps, and the env's own limit the env's. Before one that stands
    `alone` is made, the one before it is told to `leave`.

    Raises:
        UsageError: unknown id, missing package, bad keyword arguments, a wrapper that does not fit, a module that
            only a file names, more than a file may ask for, or the env's own code raises.
    """
    _refuse_quoted(spec)
    check_asked(spec)
    if spec.alone:
        if _Alone.leave is not None:
            _Alone.leave()
        _Alone.leave = leave
    with bounded(spec):
        env = _made(spec)
    if spec.quoted:
        check_seen(spec, to_space(env.observation_space))
    return env


def _made(spec: EnvSpec) -> gymnasium.Env:
    try:
        with code_of(spec.id, "import", _EXPLAINED):
            known = registration(spec.id)
        within, around = _limits(spec, known)
        _quiet_mujoco(known)
    except _EXPLAINED as error:
        raise _explain(spec.id, error) from None
    env = _built(spec, known, within)
    for name in spec.wrappers:
        with code_of(str(spec), f"the wrapper {name}"):
            env = wrap(env, name)
    return env if around is None else gymnasium.wrappers.TimeLimit(env, around)


def _built(spec: EnvSpec, known: Registration, within: int) -> gymnasium.Env:
    """The env without its wrappers."""
    given = _arguments(spec.kwargs)
    try:
        with code_of(spec.id, "__init__", _EXPLAINED), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.make(known, max_episode_steps=within, disable_env_checker=True, **given)
    except _EXPLAINED as error:
        raise _explain(spec.id, error) from None
    except UsageError as error:
        # An env that was given arguments, and did not like them.
        if given and isinstance(error.__cause__, TypeError | ValueError | AssertionError):
            why = f"{_line(error.__cause__)} ({error.why})"
            raise UsageError(f"{spec.id} does not take these arguments", why, "check --env-kwargs") from error
        raise


def _refuse_quoted(spec: EnvSpec) -> None:
    """A file decides on no import and on no file to open: what it names, the user must name, too."""
    flags = [f"--env {shlex.quote(spec.id)}", *(f"--wrapper {shlex.quote(wrapper)}" for wrapper in spec.wrappers)]
    values = ((key, value if isinstance(value, str) else json.dumps(value)) for key, value in spec.kwargs.items())
    flags += [f"--env-kwargs {shlex.quote(f'{key}={value}')}" for key, value in values]
    modules = spec.modules(WRAPPERS.table)
    named = [*modules, *spec.paths()]
    refuse([text for text in named if text in spec.quoted and not is_said(text)], " ".join(flags))
    refuse_unsaid(modules, " ".join(flags))


def _limits(spec: EnvSpec, known: Registration) -> tuple[int, int | None]:
    """The cap of the env itself and, where wrappers may change what a step is, the one around them."""
    own, asked = known.max_episode_steps, spec.max_steps
    if _LIMIT in spec.kwargs:
        own = spec.kwargs[_LIMIT]
        if not isinstance(own, int) or own < 1:
            raise UsageError(f"{_LIMIT} is {own!r}", "it is a whole number from 1", f"--env-kwargs {_LIMIT}=500")
    if not spec.wrappers:
        return asked or own or DEFAULT_LIMIT, None
    if own is None:
        return _NO_LIMIT, asked or DEFAULT_LIMIT
    return max(own, asked or 0), asked


def _arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as Python has them: ALE wants its range of frames to skip as a tuple, which JSON does not know."""
    return {
        key: tuple(value) if key == "frameskip" and isinstance(value, list) else value
        for key, value in kwargs.items()
        if key != _LIMIT
    }


def spaces_of(spec: EnvSpec) -> tuple[Space, Part]:
    """The (observation, action) spaces of an env, which is made once and closed.

    Raises:
        UsageError: it cannot be made, or its spaces are of a kind kdcli does not handle.
    """
    env = make(spec)
    try:
        return to_space(env.observation_space), to_action(env.action_space)
    finally:
        env.close()


def _quiet_mujoco(known: Registration) -> None:
    """MuJoCo prints deprecation notes of its own models and leaves a MUJOCO_LOG.TXT in the working folder."""
    if "mujoco" in str(known.entry_point):
        import mujoco

        mujoco.set_mju_user_warning(lambda _: None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _explain(env_id: str, error: Exception) -> UsageError:
    what, text = f"cannot make {env_id}", str(error).splitlines()[0] if str(error) else type(error).__name__
    package = next((p for key, p in _PACKAGES.items() if key.lower() in str(error).lower()), None)
    if package is not None and isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
        return UsageError(what, text, f"pip install '{package}'")
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return _no_module(env_id, error.name.partition(".")[0])
    if (known := package_of(env_id)) is not None:
        module, package = known
        how = "" if find_spec(module.partition(".")[0]) else f"pip install {package}, and "
        return UsageError(what, f"{text}; it is one of {package}'s", f"{how}--env {module}:{env_id}")
    near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=1)
    fix = f"--env {near[0]}, if you mean that" if near else "an env of your own is --env module:Id-v0, or module:Class"
    return UsageError(what, text, fix)


def _no_module(env_id: str, module: str) -> UsageError:
    """The error for a module that is not there: the one that `env_id` names, or one that this one imports."""
    what = f"cannot make {env_id}"
    if module != env_id.removeprefix(f"{PETTINGZOO}:").partition(":")[0].partition(".")[0]:
        return UsageError(what, f"it imports {module}, which is not installed", f"pip install {module}")
    package = pip_name(module)
    install = f"pip install {package}" if package else "install it, go to the folder it is in"
    return UsageError(
        what, f"no module {module} is installed or lies in the current folder", f"{install}, or correct --env"
    )


def to_space(space: spaces.Space[Any]) -> Space:
    """A gymnasium space of observations as data; the parts of a Dict in its order, an action mask last.

    Raises:
        UsageError: a kind kdcli does not handle.
    """
    if not isinstance(space, spaces.Dict):
        return _part(space)
    names = sorted(space.spaces, key=lambda name: name == MASK)  # the sort is stable
    nested = [name for name in names if isinstance(space[name], spaces.Dict | spaces.Tuple)]
    if nested:
        why = f"its part {nested[0]!r} is {space[nested[0]]}"
        raise UsageError("the observation is nested", why, "--wrapper flatten gives it as one vector")
    return Dict({str(name): _mask(space[name]) if name == MASK else _part(space[name]) for name in names})


def _mask(space: spaces.Space[Any]) -> Part:
    """A mask of actions, which PettingZoo's games give as a Box of zeros and ones."""
    found = _part(space)
    return MultiBinary(found.shape[0], found.dtype) if isinstance(found, Box) and len(found.shape) == 1 else found


def to_action(space: spaces.Space[Any]) -> Part:
    """A gymnasium space of actions as data, in the dtype in which they are handed to the env.

    Raises:
        UsageError: a kind kdcli does not handle.
    """
    fix = "write a wrapper that takes one of these"
    found = _part(space, fix)
    if isinstance(found, MultiBinary) and found.dims is not None:
        why = "bits of several axes are observed; actions of one axis are taken, as by Stable-Baselines3"
        raise UsageError(f"the space {space} of actions is not handled", why, fix)
    return handed(found)


def _part(space: spaces.Space[Any], fix: str = "--wrapper flatten gives it as one vector") -> Part:
    dtype = np.dtype(space.dtype).name if space.dtype is not None else "float32"
    match space:
        case spaces.Box():
            return Box(tuple(space.shape), dtype, space.low, space.high)
        case spaces.Discrete():
            return Discrete(int(space.n), int(space.start), dtype)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1 and not space.start.any():
            return MultiDiscrete(tuple(int(n) for n in space.nvec), dtype)
        case spaces.MultiBinary():
            dims = None if len(space.shape) == 1 else tuple(map(int, space.shape))
            return MultiBinary(int(np.prod(space.shape)), dtype, dims)
    known = "kdcli knows Box, Discrete, MultiDiscrete from 0, MultiBinary, and one Dict of these to observe"
    raise UsageError(f"the space {space} is not handled", known, fix)


def check_fits(spec: EnvSpec, env: tuple[Space, Space], agent: tuple[Space, Space]) -> None:
    """Check (observation, action) spaces of an env against an agent's.

    Raises:
        UsageError: they differ; says what is known about such a difference and how to go on.
    """
    if not same_space(env[0], agent[0]):
        why, fix = advise(spec, env[0], agent[0])
        raise UsageError(f"{spec} observes {env[0]}, the agent was trained on {agent[0]}", why, fix)
    if not same_space(env[1], agent[1]):
        raise UsageError(f"{spec} acts by {env[1]}, the agent by {agent[1]}", "it is another env", "name it with --env")
