"""Locks between processes: each belongs to one process and goes with it, however it ends, on every platform."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_RETRY_S = 0.05
# What a system answers for a lock that another process holds: flock, lockf, Windows.
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def claim(lock: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process alone holds the file `lock` from here on; with `wait`, it will.

    The file is made where it is missing, and stays. A file system without locks lets everyone in.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        yield _locked(handle, wait)
    finally:
        os.close(handle)


@contextmanager
def claim_folder(folder: Path) -> Iterator[bool]:
    """As `claim`, of a folder in which no file may appear; where those cannot be locked, in the folder for such files.

    Only one machine's processes see the latter.
    """
    if _module("fcntl") is None:
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        with claim(Path(tempfile.gettempdir()) / f"kdcli-{name}.lock") as mine:
            yield mine
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _locked(handle, wait=False)
    finally:
        os.close(handle)


def _locked(handle: int, wait: bool) -> bool:
    while not _take(handle):
        if not wait:
            return False
        time.sleep(_RETRY_S)
    return True


def _take(handle: int) -> bool:
    """Lock now, unless another process holds it: `flock` where there is one, Windows' own else."""
    fcntl, msvcrt = _module("fcntl"), _module("msvcrt")
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(handle, 0, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return error.errno not in _TAKEN
    return True


def _module(name: str) -> Any:
    """A module that not every platform has, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
