"""What is given as a file and is none of a known kind, or no file at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from cases import Case, Law, unharmed
from pickled import INNER
from seeds import Seed
from zipped import nested, pack


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Files of other kinds, and paths to what is no file."""
    for title, data in contents(seeds).items():
        yield Case("none", "content", title, Law.REFUSED, _file(data))
    for title, make in PLACES.items():
        yield Case("none", "place", title, Law.ASKED, make)
    for seed in seeds.values():
        yield Case(seed.format, "place", "its start, and 8 gigabytes", Law.REFUSED, _large(seed), seed.options)
        yield Case(seed.format, "place", "a symlink to it", unharmed(seed), _linked(seed), seed.options)
        yield Case(seed.format, "place", "another name", unharmed(seed), _renamed(seed), seed.options)


def contents(seeds: dict[str, Seed]) -> dict[str, Callable[[], bytes]]:
    """Bytes that are no policy."""
    noise = np.random.default_rng(0).bytes(100_000)
    starts = {seed.format: seed.data[:16] for seed in seeds.values()}
    plain = {
        "nothing": b"",
        "one byte": b"\x00",
        "zeros": bytes(100_000),
        "noise": noise,
        "a bare pickle": INNER,
        "a text": b"hello\n" * 1000,
        "JSON": b'{"layers": []}',
        "JSON in nested lists": b"[" * 1_000_000,
        "YAML": b"a: &a [x]\nb: [*a, *a]\n",
        "a PNG": b"\x89PNG\r\n\x1a\n" + noise[:1000],
        "a GIF": b"GIF89a" + noise[:1000],
        "an ELF program": b"\x7fELF\x02\x01\x01" + noise[:1000],
        "a shell script": b"#!/bin/sh\ntouch hacked\n",
        "a Python script": b"open('hacked', 'w')\n",
        "a gzip": b"\x1f\x8b\x08\x00" + noise[:1000],
        "a bzip2": b"BZh9" + noise[:1000],
        "an xz": b"\xfd7zXZ\x00" + noise[:1000],
        "a zstd": b"\x28\xb5\x2f\xfd" + noise[:1000],
        "a tar": b"x".ljust(257, b"\0") + b"ustar\x0000" + noise[:1000],
        "an HDF5": b"\x89HDF\r\n\x1a\n" + noise[:1000],
        "a numpy array": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)
        + INNER,
        "an empty zip": pack([]),
        "a TFLite model": b"\x1c\x00\x00\x00TFL3" + noise[:1000],
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "an HTML page": b"<!DOCTYPE html><html><body>404</body></html>",
    }
    made: dict[str, Callable[[], bytes]] = {title: (lambda data=data: data) for title, data in plain.items()}
    for format_, start in starts.items():
        for title, tail in {"nothing": b"", "zeros": bytes(5000), "noise": noise[:5000]}.items():
            made[f"the start of {format_}, then {title}"] = lambda start=start, tail=tail: start + tail
    return {**made, "a zip of zips": lambda: nested(3, 4)}


def _file(data: Callable[[], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "file.bin").write_bytes(data())
        return folder / "file.bin"

    return write


def _large(seed: Seed) -> Callable[[Path], Path]:
    """A file with holes, which takes no room on the disk."""

    def write(folder: Path) -> Path:
        for name, data in seed.files.items():
            (folder / name).write_bytes(data)
        os.truncate(folder / seed.main, 2**33)
        return folder / seed.main

    return write


def _linked(seed: Seed) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "real").mkdir()
        for name, data in seed.files.items():
            (folder / "real" / name).write_bytes(data)
            (folder / name).symlink_to(Path("real") / name)
        return folder / seed.main

    return write


def _renamed(seed: Seed) -> Callable[[Path], Path]:
    """Content decides what a file is, not its suffix."""
    odd = "a file \x1b[31m"

    def write(folder: Path) -> Path:
        for name, data in seed.files.items():
            (folder / (name if name != seed.main else f"{odd}.png")).write_bytes(data)
        for card in (name for name in seed.files if name.endswith(".json")):
            (folder / card).rename(folder / f"{odd}.json")
        return folder / f"{odd}.png"

    return write


def _folder(path: Path) -> Path:
    (path / "sub").mkdir()
    return path / "sub"


def _deep_folder(path: Path) -> Path:
    deep = path / "sub"
    for _ in range(60):
        deep = deep / "sub"
    deep.mkdir(parents=True)
    return path / "sub"


def _full_folder(path: Path) -> Path:
    for number in range(3000):
        (_folder_once(path) / f"{number}.zip").write_bytes(b"")
    return path / "sub"


def _folder_once(path: Path) -> Path:
    (path / "sub").mkdir(exist_ok=True)
    return path / "sub"


def _fifo(path: Path) -> Path:
    os.mkfifo(path / "pipe.zip")
    return path / "pipe.zip"


def _fifo_in_a_folder(path: Path) -> Path:
    os.mkfifo(_folder_once(path) / "pipe.zip")
    return path / "sub"


def _loop(path: Path) -> Path:
    (path / "a.zip").symlink_to(path / "b.zip")
    (path / "b.zip").symlink_to(path / "a.zip")
    return path / "a.zip"


def _dangling(path: Path) -> Path:
    (path / "a.zip").symlink_to(path / "nothing")
    return path / "a.zip"


def _socket(path: Path) -> Path:
    import socket

    # The name of a socket is at most a hundred letters long.
    there = os.getcwd()
    os.chdir(path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.chdir(there)
    return path / "socket"


PLACES: dict[str, Callable[[Path], Path]] = {
    "a folder": _folder,
    "a deep folder": _deep_folder,
    "a folder of 3,000 empty zips": _full_folder,
    "a pipe": _fifo,
    "a folder with a pipe": _fifo_in_a_folder,
    "a loop of symlinks": _loop,
    "a symlink to nothing": _dangling,
    "a socket": _socket,
    "/dev/zero": lambda _: Path("/dev/zero"),
    "/dev/null": lambda _: Path("/dev/null"),
    "/dev/random": lambda _: Path("/dev/random"),
    "/proc/self/mem": lambda _: Path("/proc/self/mem"),
    "/proc/kmsg": lambda _: Path("/proc/self/environ"),
    "nothing there": lambda path: path / "missing.zip",
    "a name of 400 letters": lambda path: path / ("x" * 400),
    "a name with a zero": lambda path: Path(f"{path}/a\0b.zip"),
    "a name with escapes": lambda path: path / "\x1b[2J\x1b]0;hacked\x07.zip",
}
