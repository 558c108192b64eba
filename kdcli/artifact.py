"""Files that describe themselves and appear whole: atomic writes, one checked JSON record beside the tensors."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from kdcli.errors import RefusedError, UsageError, option
from kdcli.files import MAX_ARCHIVE, MAX_RECORDS, open_file, parse_json, read_bytes

Tensors = Mapping[str, np.ndarray]
MAX_HEADER = 2**22  # JSON of lists takes some thirty times its length in memory
_KEY = "kdcli"
_LONGEST = 200  # of the 255 that file systems allow; temporary files have longer names


def refuse_existing(path: Path, force: bool) -> None:
    """Raise UsageError when `path` exists and `force` is not given, or nothing can be written there."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        why = "it is a file" if not folder.is_dir() else "it is read-only, or another user's"
        raise UsageError(f"cannot write {path}", f"{folder}: {why}", "name another output")
    if len(os.fsencode(path.name)) > _LONGEST:
        raise UsageError(f"cannot write {path}", f"names of files have at most {_LONGEST} bytes", "take a shorter name")
    if path.exists() and not force:
        raise UsageError(
            f"{path} exists",
            "an existing output is never overwritten silently",
            f"add {option('force')}, or name another output",
        )


@contextmanager
def atomic(path: Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes `path` on success and vanishes on failure.

    Raises:
        UsageError: the output exists (without `force`), its folder cannot be written, or the disk is full.
    """
    refuse_existing(path, force)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def refuse_folder(path: Path, force: bool, own: Sequence[str]) -> None:
    """Raise UsageError when `path` exists, unless `force` is given and what is there was made as it will be again.

    `own` are the names of all that such a folder holds, as patterns; the first is the file that every one has.
    """
    refuse_existing(path, force)
    if not path.exists():
        return
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else [path.name]
    other = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in own)]
    if other or (names and own[0] not in names):
        why = f"it holds {other[0]}" if other else f"it holds no {own[0]}"
        raise UsageError(f"{path} was not made by this command", f"{why}: it would be lost", "name another output")


@contextmanager
def atomic_folder(path: Path, force: bool, own: Sequence[str]) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path` that becomes `path` on success and vanishes on failure.

    One that is there is replaced in one step: whenever the process is killed, the old one is there or the new one.
    `own` is as in `refuse_folder`.

    Raises:
        UsageError: the output exists (without `force`, or made by something else), its parent cannot be written, or the
            disk is full.
    """
    refuse_folder(path, force, own)
    temporary = _temporary(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if path.exists():
            refuse_folder(path, force, own)  # what came in the meantime, too
            _exchange(temporary, path)
        else:
            os.rename(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other process takes, those of other containers included."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _exchange(new: Path, old: Path) -> None:
    """Let two folders change places, in one step where the system knows how, and else in two."""
    if _exchanged(new, old):
        return
    aside = _temporary(old)
    os.rename(old, aside)
    os.rename(new, old)
    os.rename(aside, new)


def _exchanged(new: Path, old: Path) -> bool:
    """Linux's renameat2(2) with RENAME_EXCHANGE, where system and file system have it."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2
    return rename is not None and rename(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0


def _cannot_write(path: Path, error: OSError) -> UsageError:
    hint = "free some space" if error.errno == errno.ENOSPC else "check the folder exists and is writable"
    return UsageError(f"cannot write {path}", error.strerror or str(error), hint)


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and writes their entries by itself
        return
    # nor does it flush what was opened to be read
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes, force: bool = False) -> Path:
    """Write `data` atomically."""
    with atomic(path, force) as temporary:
        temporary.write_bytes(data)
    return path


def write_json(path: Path, data: Any, force: bool = False) -> Path:
    """Write readable JSON atomically; refuses NaN, which is not JSON."""
    return write_bytes(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode(), force)


def write_sealed(path: Path, record: Mapping[str, Any]) -> Path:
    """Write a JSON object with the digest of its content."""
    return write_json(path, {**record, "sha256": _seal(record)})


def check_sealed(record: Mapping[str, Any], source: Path) -> None:
    """Compare an object that `write_sealed` wrote with its digest.

    Raises:
        RefusedError: it was changed.
    """
    if _seal({key: value for key, value in record.items() if key != "sha256"}) != record.get("sha256"):
        raise RefusedError(f"{source} is damaged", "its content does not match its digest", "copy or make it again")


def _seal(record: Mapping[str, Any]) -> str:
    # As it will be read again: tuples are lists there.
    content = json.loads(json.dumps(record))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path, most: int = MAX_ARCHIVE) -> str:
    """Hex digest of a file's bytes, at most `most`.

    Raises:
        UsageError: the file cannot be read.
        RefusedError: it is no regular file, or larger.
    """
    try:
        with open_file(path, most) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "check the path") from None


def digest(path: Path) -> str:
    """Of a file; of a dataset by its manifest; of another folder by the files in it."""
    if not path.is_dir():
        return sha256(path)
    if (path / "manifest.json").exists():
        return sha256(path / "manifest.json", MAX_RECORDS)
    total = hashlib.sha256()
    for file in sorted(path.iterdir()):
        total.update(f"{file.name}:{sha256(file)}\n".encode())
    return total.hexdigest()


def parent(path: Path) -> dict[str, str]:
    """How an artifact names what it was made from: by its digest, whatever the file is called and wherever it lies."""
    return {"sha256": sha256(path)}


def versions(*packages: str) -> dict[str, str]:
    """Versions of this Python, kdcli and `packages`, where installed."""
    found = {"python": platform.python_version()}
    for package in ("kdcli", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _digest(record: str, tensors: Tensors) -> str:
    """One hash over the record and every tensor's name, dtype, shape and bytes."""
    total = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        total.update(f"{name}:{array.dtype.name}:{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def pack(record: Mapping[str, Any], tensors: Tensors) -> bytes:
    """A safetensors file as bytes: the tensors, and `record` (JSON values) with a digest in its header."""
    from safetensors.numpy import save

    text = json.dumps(record, sort_keys=True, allow_nan=False)
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # safetensors writes metadata in an order of its own choosing, so there is exactly one key.
    return save(arrays, {_KEY: json.dumps({"sha256": _digest(text, arrays), "record": text})})


def write_tensors(path: Path, record: Mapping[str, Any], tensors: Tensors, force: bool = False) -> Path:
    """Write `pack(record, tensors)` atomically."""
    return write_bytes(path, pack(record, tensors), force)


def read_header(path: Path) -> dict[str, Any]:
    """The raw safetensors header.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: not a safetensors file.
    """
    try:
        with open_file(path, None) as handle:
            size = int.from_bytes(handle.read(8), "little")
            if not 2 <= size <= min(MAX_HEADER, os.fstat(handle.fileno()).st_size):
                raise ValueError("its header does not fit the file")
            return json.loads(handle.read(size))
    except OSError as error:
        raise UsageError(f"cannot read {path}", error.strerror or str(error), "check the path") from None
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is not a safetensors file", str(error), "make it again") from None


def strict_json(text: str) -> Any:
    """JSON without NaN and infinity, which Python reads and JSON does not have; ValueError where there are some."""
    return parse_json(text, "the record")


def is_ours(path: Path) -> bool:
    """Whether the file is a safetensors file written by kdcli."""
    try:
        return _KEY in read_header(path).get("__metadata__", {})
    except (RefusedError, AttributeError, TypeError):
        return False


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The record and the tensors of a file written by `write_tensors`, checked against its digest.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, or not written by kdcli.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    header, content = read_header(path), read_bytes(path)
    try:
        sealed = json.loads(header["__metadata__"][_KEY])
        tensors = load(content)
        intact = _digest(sealed["record"], tensors) == sealed["sha256"]
        record = strict_json(sealed["record"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, SafetensorError) as error:
        why = repr(error)[:200]
        raise RefusedError(f"{path} was not written by kdcli or is damaged", why, "make it again") from None
    if not intact or not isinstance(record, dict):
        raise RefusedError(f"{path} is damaged", "its content does not match its digest", "copy or make it again")
    if broken := next((name for name, array in tensors.items() if not _is_finite(array)), None):
        raise RefusedError(f"{path}: {broken[:80]} holds NaN or infinity", "it is no policy that can act", "")
    return record, tensors


def _is_finite(array: np.ndarray) -> bool:
    return array.dtype.kind in "biu" or bool(np.isfinite(array).all())
