"""What a wrapper was told: the value and the options of its Choice as numbers and words."""

from __future__ import annotations

from math import isfinite

import numpy as np

from kdcli.choice import Choice
from kdcli.envs import WRAPPERS
from kdcli.errors import UsageError

# An EnvSpec may come out of a file, and must not ask for more memory than there is.
MAX_SIDE = 1024


def whole(choice: Choice, key: str = "", default: int | None = None, least: int = 1, most: int = 2**31) -> int:
    """The option `key`, or the value, as a whole number from `least` to `most`.

    Raises:
        UsageError: it is none, or it is missing and there is no default.
    """
    text = _text(choice, key)
    if not text and default is not None:
        return default
    if not (_is_count(text) and least <= int(text) <= most):
        raise _unreadable(choice, text, f"a whole number from {least} to {most}")
    return int(text)


def number(choice: Choice, key: str = "", default: float | None = None) -> float:
    """The option `key`, or the value, as a finite number.

    Raises:
        UsageError: it is none, or it is missing and there is no default.
    """
    text = _text(choice, key)
    if not text and default is not None:
        return default
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not isfinite(found):
        raise _unreadable(choice, text, "a number")
    return found


def numbers(choice: Choice, key: str) -> np.ndarray:
    """The option `key` as finite numbers (N,), written `0.5/-1.2`.

    Raises:
        UsageError: one is none.
    """
    text = _text(choice, key)
    try:
        found = np.array([float(part) for part in text.split("/")])
    except ValueError:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise _unreadable(choice, text, "numbers with / between them")
    return found


def word(choice: Choice, key: str, known: tuple[str, ...]) -> str:
    """The option `key`, or the value, as one of the words `known`; the first is the default.

    Raises:
        UsageError: another word.
    """
    text = _text(choice, key) or known[0]
    if text not in known:
        raise _unreadable(choice, text, " or ".join(known))
    return text


def flag(choice: Choice, key: str) -> bool:
    """The option `key` as true or false, its default.

    Raises:
        UsageError: neither.
    """
    return word(choice, key, ("false", "true")) == "true"


def size(choice: Choice) -> tuple[int, int]:
    """The value as (height, width), written 64x48.

    Raises:
        UsageError: it is something else.
    """
    sides = choice.value.split("x")
    if len(sides) != 2 or not all(_is_count(side) and 1 <= int(side) <= MAX_SIDE for side in sides):
        raise _unreadable(choice, choice.value, f"height x width, each at most {MAX_SIDE}")
    return int(sides[0]), int(sides[1])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 11


def _text(choice: Choice, key: str) -> str:
    return choice.options.get(key, "") if key else choice.value


def _unreadable(choice: Choice, text: str, needed: str) -> UsageError:
    what = f"the wrapper {choice.name!r} cannot read {text!r}"
    return UsageError(what, f"it needs {needed}", f"{choice.name}: {WRAPPERS.help(choice.name)}")
