"""Any exception as an error with three lines and an exit code."""

from __future__ import annotations

import errno
import textwrap
from typing import TYPE_CHECKING

from kdcli.errors import Exit, KdcliError, UsageError, out_of_memory
from kdcli.registry import FOREIGN

if TYPE_CHECKING:
    from pydantic import ValidationError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def understand(error: BaseException, words: list[str]) -> KdcliError:
    """What `error` means to a user who typed `words`; what nobody expected is our bug."""
    if starved := out_of_memory(error):  # however a reader explained it: it is no fault of the file's
        return _starved(starved)
    match error:
        case KdcliError():
            return error
        case KeyboardInterrupt():
            return _stopped("interrupted", Exit.INTERRUPTED)
        case SystemExit(code=Exit.TERMINATED):
            return _stopped("terminated", Exit.TERMINATED)
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] != "kdcli":
            return _not_installed(name.partition(".")[0], error)
        case OSError():
            return _refused_by_system(error)
    return _misused(error, words) or _foreign(error) or _bug(error)


def _starved(error: BaseException) -> UsageError:
    said = " ".join(str(error).split()) or "the system gave no more"
    fix = "close other programs, give fewer --envs, a smaller --batch or --capacity, or use a larger machine"
    return UsageError("out of memory", said, fix)


def _stopped(word: str, code: Exit) -> KdcliError:
    stop = KdcliError(word)
    stop.exit_code = code
    return stop


def _not_installed(package: str, error: ImportError) -> UsageError:
    return UsageError(f"{package} is not installed", f"this command needs it ({error})", f"pip install {package}")


def _refused_by_system(error: OSError) -> UsageError:
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return UsageError(f"no space left to write{place}", error.strerror or "", "free some space, or write elsewhere")
    what = f"the system refused an operation{place}"
    return UsageError(what, error.strerror or str(error), "check the path and its permissions; --debug shows where")


def _misused(error: BaseException, words: list[str]) -> UsageError | None:
    """The error when the words were wrong: for the parser, or for the config they were meant for."""
    import typer
    from pydantic import ValidationError

    if isinstance(error, typer.TyperException):
        return UsageError(error.format_message(), "", _see(words))
    return invalid(error, words) if isinstance(error, ValidationError) else None


def invalid(error: ValidationError, words: list[str]) -> UsageError:
    """The first complaint of a config, under the name of its option."""
    from kdcli.options import refused

    found = refused(error)
    return found if found.fix.startswith("did you mean") else UsageError(found.what, found.why, _see(words))


def _see(words: list[str]) -> str:
    command = next((f" {word}" for word in words[:1] if not word.startswith("-")), "")
    return f"see: kdcli{command} --help"


def _foreign(error: BaseException) -> UsageError | None:
    """The error where a part of the user's own had a hand in it."""
    if not FOREIGN:
        return None
    named = ", ".join(f"the {noun} {name}" for name, noun in FOREIGN.items())
    message = textwrap.shorten(str(error), 300) or "no message"
    return UsageError(f"{type(error).__name__}: {message}", f"with {named}", "check it; --debug shows where it failed")


def _bug(error: BaseException) -> KdcliError:
    message = textwrap.shorten(str(error), 300) or "no message"
    return KdcliError(
        f"internal error: {type(error).__name__}: {message}",
        "this is a bug in kdcli, not in what you typed",
        "run it again with --debug for the traceback, and report it",
    )
