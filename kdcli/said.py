"""Whose code is run: that of modules which the user named. A name in a file is data until the user repeats it.

While a command runs, `hearing` knows what its options say. Whatever would import a module by a name asks
`refuse_unsaid` first, wherever the name came from; a program that calls kdcli as a library names what it means itself,
and of it only what was read from a file is refused (`EnvSpec.quoted`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdcli.errors import UsageError

ALLOW = "--allow"
# Inside another text, `student.loss=package.module:attribute@0.5`; not the beginning of a path.
_NAMES = re.compile(r"(?<![\w.:/-])[A-Za-z_][\w.]*:[A-Za-z_]\w*(?![\w./])")


@dataclass(frozen=True)
class _Said:
    """What the options of the command say, and what its `--allow` does; None where it has no such option."""

    texts: frozenset[str]
    allowed: frozenset[str] | None


_now: _Said | None = None


@contextmanager
def hearing(texts: Iterable[str], allowed: Iterable[str] | None = None) -> Iterator[None]:
    """Let a command import only what the values of its options name: `texts`, `allowed` being those of `--allow`.

    It is None for commands that have no such option, since they take all that they are told from the command line.
    """
    global _now
    before, heard = _now, list(texts)
    values = [text.partition("=")[2] for text in heard]
    inside = [name for text in heard for name in _NAMES.findall(text)]
    _now = _Said(frozenset([*heard, *values, *inside]), None if allowed is None else frozenset(allowed))
    try:
        yield
    finally:
        _now = before


def is_said(text: str) -> bool:
    """Whether an option of the command that runs says this."""
    return _now is not None and text in _now.texts


def refuse_unsaid(names: Sequence[str], fix: str = "") -> None:
    """Check that the user said each of the `names` of code, or paths; `fix` is how to, where `--allow` is no option.

    Raises:
        UsageError: a command runs, and its options do not name one of them.
    """
    if _now is not None:
        refuse([name for name in names if not is_said(name)], fix)


def refuse_unallowed(program: Path) -> None:
    """Check that a program is trusted by the user, where a recipe or a study may say that it is.

    Raises:
        UsageError: the command takes its settings from a file, and `--allow` does not name the program.
    """
    if _now is not None and _now.allowed is not None and _now.allowed.isdisjoint([str(program), program.name]):
        refuse([program.name])


def refuse(names: Sequence[str], fix: str = "") -> None:
    """Raise UsageError where there are names left that only a file gives."""
    if names:
        allow = " ".join(f"{ALLOW} {shlex.quote(name)}" for name in names)
        fix = allow if fix == "" or (_now is not None and _now.allowed is not None) else fix
        why = "names in a file are never imported or opened until you repeat them"
        raise UsageError(f"a file names code of a module or a path: {', '.join(names)}", why, f"if you trust it: {fix}")
