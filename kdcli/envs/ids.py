"""Which environment an id names: gymnasium's own, a package's, a class of the user's, a PettingZoo game."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import cast

import gymnasium
from gymnasium.envs.registration import EnvCreator
from gymnasium.envs.registration import EnvSpec as Registration

from kdcli.errors import UsageError
from kdcli.modules import import_named

PETTINGZOO = "pettingzoo"
_ATARI = re.compile(r"ALE/|\w+NoFrameskip-v", re.ASCII)
_PERHAPS_ATARI = re.compile(r"[A-Z]\w+-v[04]", re.ASCII)


def registration(env_id: str) -> Registration:
    """What makes the env: `Name-v0`, `package.module:Name-v0`, `package.module:Class`, `pettingzoo:package.module`.

    Raises:
        UsageError: a package that it needs is missing.
        gymnasium.error.Error: there is no such env.
        ImportError: there is no such module.
    """
    module, _, name = env_id.rpartition(":")
    if module == PETTINGZOO:
        from kdcli.envs.pettingzoo_aec import Turns

        return Registration(PETTINGZOO, entry_point=partial(Turns, name))
    if not module:
        _register(name)
        return gymnasium.spec(name)
    found = getattr(import_named(module), name, None)
    if name in gymnasium.registry or not isinstance(found, type):
        return gymnasium.spec(name)
    if issubclass(found, gymnasium.Env):
        return Registration(name, entry_point=cast(EnvCreator, found))
    why = f"its classes are {', '.join(base.__module__ + '.' + base.__name__ for base in found.__mro__[:-1])}"
    raise UsageError(f"{env_id} is not a gymnasium.Env", why, "let it inherit from gymnasium.Env, with its methods")


def register(env_id: str, make: Callable[[], gymnasium.Env]) -> str:
    """Let `env_id` name what `make` makes, in this process; the id."""
    gymnasium.register(env_id, entry_point=lambda **_: make())
    return env_id


def _register(env_id: str) -> None:
    """Register the envs of packages that gymnasium does not look for by itself."""
    import kdcli.envs.toys  # noqa: F401  (registers the toy envs)

    if env_id in gymnasium.registry:
        return
    if env_id.startswith("MinAtar/"):
        _register_minatar(env_id)
    elif _ATARI.match(env_id) or (_PERHAPS_ATARI.fullmatch(env_id) and find_spec("ale_py") is not None):
        _register_atari(env_id)


def _register_atari(env_id: str) -> None:
    try:
        import ale_py
    except ImportError as error:
        raise UsageError(f"cannot make {env_id}", str(error), "pip install 'kdcli[atari]'") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)


def _register_minatar(env_id: str) -> None:
    # At its import MinAtar warns, on the root logger, that it cannot draw.
    root, silence = logging.getLogger(), logging.NullHandler()
    root.addHandler(silence)
    logging.disable(logging.WARNING)
    try:
        from minatar.gym import register_envs
    except ImportError as error:
        raise UsageError(f"cannot make {env_id}", str(error), "pip install 'kdcli[minatar]'") from None
    finally:
        logging.disable(logging.NOTSET)
        root.removeHandler(silence)
    register_envs()
