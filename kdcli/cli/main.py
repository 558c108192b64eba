"""The program: one command line in, an exit code out. The only place where an error ends."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kdcli.cli.console import Console
from kdcli.errors import Exit, shell
from kdcli.progress import Note
from kdcli.registry import FOREIGN

BROKEN_PIPE = 141
GLOBALS = {"--debug": "--debug", "--quiet": "--quiet", "-q": "--quiet", "--version": "--version"}


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run the command line `argv` (without the program's name); tests pass a `console` of their own."""
    FOREIGN.clear()
    flags, words = split_globals(sys.argv[1:] if argv is None else argv)
    console = console or Console()
    console.quiet = console.quiet or "--quiet" in flags
    try:
        with console, _terminable(), _warnings_as_notes(console):
            return _version(console) if "--version" in flags else _run(words, console)
    except BaseException as error:
        return _end(error, console, words, debug="--debug" in flags)


def split_globals(argv: Sequence[str]) -> tuple[set[str], list[str]]:
    """The options that work before and after any subcommand, taken out of `argv`; what follows `--` is left alone."""
    end = list(argv).index("--") if "--" in argv else len(argv)
    flags = {GLOBALS[word] for word in argv[:end] if word in GLOBALS}
    return flags, [word for word in argv[:end] if word not in GLOBALS] + list(argv[end:])


def _run(words: list[str], console: Console) -> int:
    # typer is imported here, inside the boundary, so that Ctrl-C at once is an interruption and not a traceback.
    from kdcli.cli.commands import run

    return run(words or ["--help"], console)


def _version(console: Console) -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        console.answer(f"kdcli {version('kdcli')}")
    except PackageNotFoundError:
        console.answer("kdcli (run from its source)")
    return Exit.DONE


def _end(error: BaseException, console: Console, words: list[str], debug: bool) -> int:
    """Say what went wrong, on what is left of stderr; the exit code."""
    from kdcli.cli.error_mapping import understand

    lost = console.drop_broken_streams()
    if lost and isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    failure = understand(error, words)
    with suppress(OSError):  # a closed stderr changes nothing about the exit code
        if debug:
            console.traceback(error)
        console.error(failure.lines(shell))
    return int(failure.exit_code)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that nothing half-written stays behind."""

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(Exit.TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _warnings_as_notes(console: Console) -> Iterator[None]:
    """Warnings of libraries are part of the conversation: one line each, and silent with --quiet."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.listener(Note(f"warning: {message}"))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
