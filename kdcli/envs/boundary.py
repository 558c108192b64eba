"""Where the code of an env begins: what goes wrong there is told as the env's own, with the line that raised it."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from kdcli.errors import Exit, KdcliError, UsageError

# Between an env and whoever called it, or below it: what raises there was called wrongly by somebody else.
_LIBRARIES = ("numpy", "scipy", "torch", "gymnasium")
_ENVS = "gymnasium.envs."


@contextmanager
def code_of(env_id: str, doing: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the code of an env raises into a UsageError: which exception, in `doing`, and at which line.

    Errors with three lines, those of `passing`, interruptions and a lack of memory pass, and so do faults of kdcli.

    Raises:
        UsageError: the env raised.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        stopped = isinstance(error, SystemExit) and error.code == Exit.TERMINATED
        if stopped or isinstance(error, (KdcliError, MemoryError, *passing)):
            raise
        # The first two frames are this one and the caller's.
        place = _culprit(error, list(traceback.walk_tb(error.__traceback__))[2:])
        if place is not None and place.package == "kdcli":
            raise
        raise _blamed(error, env_id, doing, place) from error


def _blamed(error: BaseException, env_id: str, doing: str, place: _Place | None) -> UsageError:
    message = " ".join(str(error).split())
    what = f"your env {env_id} raised {type(error).__name__} in {doing}{': ' if message else ''}{message}"
    return UsageError(what, "" if place is None else str(place), "mend it there; --debug shows the whole traceback")


class _Place(NamedTuple):
    """A line of code, and the outermost package that it belongs to."""

    package: str
    file: str
    line: int

    def __str__(self) -> str:
        """`folder/env.py:18: return prices["price"]`, from the current folder where it lies in there."""
        shown = os.path.relpath(self.file) if Path.cwd() in Path(self.file).resolve().parents else self.file
        return f"{shown}:{self.line}: {linecache.getline(self.file, self.line).strip()}".removesuffix(": ")


def _culprit(error: BaseException, frames: Sequence[tuple[FrameType, int]]) -> _Place | None:
    """The innermost code that no library of the trade wrote; the innermost of all where there is nothing else."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _Place("", error.filename, error.lineno)
    own = [frame for frame in frames if not _of_library(str(frame[0].f_globals.get("__name__", "")))]
    for frame, line in reversed(own or frames):
        name = str(frame.f_globals.get("__name__", ""))
        return _Place(name.partition(".")[0], frame.f_code.co_filename, line)
    return None


def _of_library(name: str) -> bool:
    package = name.partition(".")[0]
    return (package in _LIBRARIES and not name.startswith(_ENVS)) or package in sys.stdlib_module_names
