"""What a file may ask of an env: its user may ask for anything, and does so by repeating it on the command line.

Nobody can tell what the arguments of an env make it do. So each number among them is bounded, the env is made within a
bound on memory, and what it observes is looked at before room is made for it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.guard import within_memory
from kdcli.spec import MAX_NUMBERS, EnvSpec, Space, parts

MAX_WRAPPERS, MAX_TEXT = 32, 200
MAX_ARGUMENTS, MAX_INTEGER = 1000, 100_000
MAX_STEPS = 1_000_000
MAX_REPEATS = 1000  # steps of the env in a step of the agent, frames in what it sees: all wrappers together
MAX_MEMORY = 2**31
_SHOWN = 8


def check_asked(spec: EnvSpec) -> None:
    """Raise UsageError where an env that was read from a file asks for more than a file may."""
    if spec.quoted and (why := next(_excesses(spec), "")):
        raise _too_much(spec, why)


def _excesses(spec: EnvSpec) -> Iterator[str]:
    if len(spec.wrappers) > MAX_WRAPPERS:
        yield f"{len(spec.wrappers):,} wrappers, at most {MAX_WRAPPERS}"
    elif any(len(text) > MAX_TEXT for text in spec.wrappers):
        yield f"a wrapper of more than {MAX_TEXT} characters"
    elif (repeats := prod(map(_repeats, spec.wrappers))) > MAX_REPEATS:
        yield f"{repeats:,} steps or frames in a step of the agent, at most {MAX_REPEATS:,}"
    if spec.max_steps is not None and spec.max_steps > MAX_STEPS:
        yield f"episodes of {spec.max_steps:,} steps, at most {MAX_STEPS:,}"
    values = list(_values(spec.kwargs))
    if len(values) > MAX_ARGUMENTS:
        yield f"{len(values):,} arguments, at most {MAX_ARGUMENTS:,}"
    if any(isinstance(n, int) and abs(n) > MAX_INTEGER for n in values):
        yield f"a number beyond {MAX_INTEGER:,} in its arguments"


def _repeats(text: str) -> int:
    """How often a wrapper repeats an action, or what is observed."""
    choice = Choice.parse(text)
    told = choice.options.get("skip", "") if choice.name == "atari" else choice.value
    if choice.name not in ("atari", "frame-skip", "frame-stack", "history"):
        return 1
    return int(told) if told.isascii() and told.isdecimal() and len(told) < 11 else 1


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _values(inner)
    else:
        yield value


def bounded(spec: EnvSpec) -> AbstractContextManager[None]:
    """While an env with arguments or wrappers from a file is made, it takes no more than MAX_MEMORY bytes."""
    if not (spec.quoted and (spec.kwargs or spec.wrappers)):
        return nullcontext()
    return within_memory(MAX_MEMORY, _too_much(spec, f"more than {MAX_MEMORY:,} bytes to be made"))


def check_seen(spec: EnvSpec, space: Space) -> None:
    """Raise UsageError where an env that was read from a file observes more than any policy reads."""
    n = sum(prod(part.shape) for part in parts(space).values())
    if spec.quoted and n > MAX_NUMBERS:
        raise _too_much(spec, f"observations of {n:,} numbers, at most {MAX_NUMBERS:,}")


def _too_much(spec: EnvSpec, why: str) -> UsageError:
    kwargs = [f"{key}={json.dumps(value)}"[:80] for key, value in spec.kwargs.items()]
    words = ["--env", spec.id, *(word for text in kwargs[:_SHOWN] for word in ("--env-kwargs", text))]
    words += [word for text in spec.wrappers[:_SHOWN] for word in ("--wrapper", text[:80])]
    more = " ..." if max(len(kwargs), len(spec.wrappers)) > _SHOWN else ""
    fix = f"if you mean it, say it yourself: {shlex.join(words)}{more}"
    return UsageError(f"the file's env asks for {why}", "a file may not ask for as much", fix)
