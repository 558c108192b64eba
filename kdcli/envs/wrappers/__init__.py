"""Wrappers as data: each is named in an EnvSpec, so that every later step repeats the collection exactly."""

from __future__ import annotations

import json
from typing import Any

import gymnasium

from kdcli.choice import Choice
from kdcli.envs import WRAPPERS
from kdcli.errors import UsageError


def wrap(env: gymnasium.Env, text: str) -> gymnasium.Env:
    """Apply one wrapper by `name[:value][,key=value]`; a foreign one is named `package.module:Class[:key=value,...]`.

    Raises:
        UsageError: unknown name, a value it cannot read, or an env it does not fit.
    """
    choice = Choice.parse(text, WRAPPERS.table)
    found = WRAPPERS.load(choice.name)
    try:
        return found(env, choice) if choice.name in WRAPPERS.table else _foreign(found, env, choice)
    except (TypeError, ValueError, AssertionError, gymnasium.error.Error) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"the wrapper {text!r} does not fit this env",
            why,
            "--wrapper none, or correct it",
        ) from None


def _foreign(found: Any, env: gymnasium.Env, choice: Choice) -> gymnasium.Env:
    # Nothing but a wrapper is called: an EnvSpec may come out of a file.
    if not (isinstance(found, type) and issubclass(found, gymnasium.Wrapper)):
        raise UsageError(
            f"{choice.name} is no wrapper",
            "it is not a gymnasium.Wrapper class",
            "write --wrapper module:Class, of a wrapper",
        )
    if choice.value:
        raise UsageError(
            f"cannot read {str(choice)!r}",
            "arguments of a foreign wrapper have names",
            f"write {choice.name}:key={choice.value}, by its argument's name",
        )
    return found(env, **{key: _value(text) for key, text in choice.options.items()})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
