"""The one way in: every file that the product reads is opened here, so that none can stall it or take all memory."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from kdcli.errors import KdcliError, RefusedError, UsageError

# JSON of lists takes some thirty times its length in memory.
MAX_FILE, MAX_ARCHIVE, MAX_JSON, MAX_RECORDS, MAX_TOML = 2**29, 2**33, 2**22, 2**24, 2**18
MAX_DEPTH = 64
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# A pipe that takes the file's place after it was looked at is opened without waiting for its writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def open_file(path: Path, most: int | None = MAX_FILE) -> BufferedReader:
    """The regular file at `path`, open for reading; it has at most `most` bytes.

    What it is and how large is looked at before it is opened: a pipe would wait for a writer, a device never ends.

    Raises:
        UsageError: it does not exist, is a folder, or may not be read.
        RefusedError: it is a pipe, a device or a socket, or larger.
    """
    try:
        _refuse(path, os.stat(path), most)
        handle = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise _unreadable(path, error) from None
    try:
        _refuse(path, os.fstat(handle), most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _refuse(path: Path, found: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a folder", "a file is expected", "name the file in it")
    if not stat.S_ISREG(found.st_mode):
        kind = next((noun for matches, noun in _KINDS if matches(found.st_mode)), "no regular file")
        raise RefusedError(
            f"{path} is {kind}", "only regular files are read", "copy its content to a file, and name that"
        )
    if most is not None and found.st_size > most:
        raise RefusedError(
            f"{path} is too large", f"{found.st_size:,} bytes, at most {most:,} are read", "check the path"
        )


def _unreadable(path: Path, error: OSError | ValueError) -> UsageError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UsageError(f"cannot read {path}", why, "check the path")


def read_bytes(path: Path, most: int = MAX_FILE) -> bytes:
    """The content of the regular file at `path`, of at most `most` bytes.

    Raises:
        UsageError: it cannot be opened or read.
        RefusedError: it is no regular file, or larger.
    """
    try:
        with open_file(path, most) as handle:
            content = handle.read(most + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > most:  # files of /proc and growing ones have more than they tell
        raise RefusedError(f"{path} is too large", f"more than {most:,} bytes", "check the path")
    return content


def read_text(path: Path, most: int = MAX_FILE) -> str:
    """As `read_bytes`, of UTF-8.

    Raises:
        RefusedError: it is no text.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise RefusedError(f"{path} is no text", str(error), "write it in UTF-8") from None


def is_file(path: Path) -> bool:
    """Whether there is a regular file at `path`; any other thing there is none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """The JSON in the file at `path`.

    Raises:
        UsageError: it cannot be opened or read.
        RefusedError: it is no regular file, too large, or deeper than any file of the product.
        ValueError: it is not JSON.
    """
    return parse_json(read_bytes(path, most), str(path))


def parse_json(text: bytes | str, name: str) -> Any:
    """JSON values; NaN and infinity, which Python reads, are not JSON.

    Raises:
        RefusedError: nested deeper than any file of the product.
        ValueError: it is not JSON.
    """

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        found = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise too_deep(name) from None
    refuse_deep(found, name)
    return found


def refuse_deep(value: Any, name: str) -> None:
    """Raise RefusedError where values lie in more than MAX_DEPTH others: what walks through them calls itself."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [outer for outer in level if isinstance(outer, dict | list | tuple)]
        if not level:
            return
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    raise too_deep(name)


def too_deep(name: str) -> RefusedError:
    """What is said of a file whose values are nested without end."""
    return RefusedError(f"{name} is nested too deeply", f"more than {MAX_DEPTH} levels", "make it again")


# What Python answers where a value is not of the kind, size or place that it should be.
_ABSURD = (ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError)


@contextmanager
def whatever_it_says(file: Path, fix: str = "copy it again, or save it anew") -> Iterator[None]:
    """A file can say anything: what a reader does not check by name ends in its refusal, too, with the cause kept."""
    try:
        yield
    except KdcliError:
        raise
    except _ABSURD as error:
        why = (str(error) or repr(error)).splitlines()[0][:200]
        raise RefusedError(f"{file.name} does not say what it should", why, fix) from error
