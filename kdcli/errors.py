"""Errors a user can act on, in three lines: what happened, why, what to do.

    KdcliError            any error kdcli raises on purpose
    +-- UsageError        a wrong option, configuration or environment; exit code 2
    +-- RefusedError      a file that is corrupt, unsafe or unsupported; exit code 4

A message names an option with `option("augment", "shift:4")`, and whoever shows the message spells it: `--augment
shift:4` in the shell, `augment='shift:4'` in Python and in recipes.
"""

from __future__ import annotations

import difflib
import errno
import re
import shlex
from collections.abc import Callable, Iterable
from enum import IntEnum

MAX_LINE = 500
# Marks around an option in a message; neither occurs in text that people write.
_OPEN, _EQUALS, _CLOSE = "\ue000", "\ue001", "\ue002"
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}{_EQUALS}]*)(?:{_EQUALS}([^{_CLOSE}]*))?{_CLOSE}")
Spelling = Callable[[str, str | None], str]
# Torch, onnxruntime and C++ have no kind of exception of their own for it, or one that cannot be imported here.
_STARVED = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|failed to allocate", re.IGNORECASE
)


class Exit(IntEnum):
    """What a pipeline can act on."""

    DONE = 0
    GATE_FAILED = 1
    USAGE = 2
    UNDECIDED = 3
    REFUSED = 4
    BUG = 70
    INTERRUPTED = 130
    TERMINATED = 143


def option(field: str, value: object = None) -> str:
    """An option inside a message, by the name of its config's field, with a value where one is advised."""
    return f"{_OPEN}{field}{'' if value is None else f'{_EQUALS}{value}'}{_CLOSE}"


def shell(field: str, value: str | None) -> str:
    """An option as the command line takes it: `--env-kwargs gravity=-9`."""
    flag = f"--{field.replace('_', '-')}"
    return flag if value is None else f"{flag} {shlex.quote(value)}"


def python(field: str, value: str | None) -> str:
    """An option as Python and recipes take it: `augment='shift:4'`."""
    return field if value is None else f"{field}={value!r}"


def spell(text: str, spelling: Spelling = python) -> str:
    """`text` with each option spelled for its reader."""
    return _MARKED.sub(lambda found: spelling(found[1], found[2]), text)


class KdcliError(Exception):
    """An error a user can act on: `what` happened, `why`, and the way out (`fix`), one line each."""

    exit_code = Exit.BUG
    # Of what asked for more memory than it was given: the machine has enough.
    within_bounds = False

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return "; ".join(self.lines())

    def lines(self, spelling: Spelling = python) -> list[str]:
        """The non-empty lines, as shown: one line each, however much of a file they quote."""
        lines = (" ".join(spell(line, spelling).split()) for line in (self.what, self.why, self.fix))
        return [line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..." for line in lines if line]

    def within(self, where: str) -> KdcliError:
        """The same error of a table in a file, whose keys are spelled as Python's options are."""
        return type(self)(f"{where}: {spell(self.what)}", spell(self.why), spell(self.fix))


class UsageError(KdcliError):
    """A wrong option, configuration or environment: exit code 2."""

    exit_code = Exit.USAGE


class RefusedError(KdcliError):
    """A file that is corrupt, unsafe or of a kind kdcli does not read: exit code 4."""

    exit_code = Exit.REFUSED


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """What says that the machine has no more memory: `error`, or what it was raised for; None where nothing does."""
    while error is not None and not getattr(error, "within_bounds", False):
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return error
        if isinstance(error, RuntimeError) and _STARVED.search(str(error)):
            return error
        error = error.__cause__ or error.__context__
    return None


def unknown(noun: str, name: str, valid: Iterable[str]) -> UsageError:
    """The error for a name that is not in a table: lists the valid names and suggests the nearest."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"did you mean {near[0]!r}?" if near else "choose one of these names"
    return UsageError(f"unknown {noun} {name!r}", f"known: {', '.join(names)}", fix)
