"""What may be given for an env: a gymnasium id, a callable that makes one, or an env."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from kdcli.envs.ids import register
from kdcli.errors import UsageError, option

_COUNT = itertools.count()


def with_env_id(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a verb, their `env` as a gymnasium id."""
    return {**options, **({"env": env_id(options["env"])} if options.get("env") is not None else {})}


def env_id(env: Any) -> str:
    """The gymnasium id of `env`; a callable or an env is registered under an id of its own, in this process.

    Several envs are stepped side by side: a callable is called for each, an env is copied (`copy.deepcopy`).

    Raises:
        UsageError: it is none of these, or an env that cannot be copied.
    """
    if isinstance(env, str):
        return env
    env = _single(env)
    if callable(env) and not hasattr(env, "reset"):
        return _registered(env, getattr(env, "__name__", "env"))
    if not hasattr(env, "step"):
        raise UsageError(f"{type(env).__name__} is not an env", "", f"{option('env')}: an id, a callable or an env")
    try:
        copy.deepcopy(env)
    except Exception as error:  # whatever an env of the user's raises
        why = f"{type(error).__name__}: {error}"
        raise UsageError("the env cannot be copied", why, f"give a function that makes one: {option('env')}") from error
    return _registered(lambda: copy.deepcopy(env), type(getattr(env, "unwrapped", env)).__name__)


def _single(env: Any) -> Any:
    """The first env of a Stable-Baselines3 VecEnv, without its vector wrappers."""
    while hasattr(env, "venv"):
        env = env.venv
    return env.envs[0] if getattr(env, "envs", None) else env


def _registered(make: Callable[[], Any], name: str) -> str:
    letters = "".join(letter for letter in name if letter.isalnum() or letter == "_") or "env"
    return register(f"kdcli-user/{letters}-{next(_COUNT)}-v0", make)
