"""Files harmed on the way: cut, with other bytes here and there, with blocks lost or doubled. Any format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from zlib import crc32

import numpy as np
from cases import COMMANDS, Case, Law, of_files
from seeds import Seed

FLIPS, CUTS, BLOCKS = 2000, 60, 25


def cases(seeds: dict[str, Seed]) -> Iterator[Case]:
    """Cuts, flips and lost blocks of every file of every seed."""
    files = [(seed, file) for seed in seeds.values() for file in seed.files]
    flips = -(-FLIPS // len(files))
    for seed, file in files:
        # Statistics in a bare pickle have no checksum, whatever they lie beside.
        law = Law.SAFE if file != seed.main else Law.RIGHT if seed.sealed else Law.OPEN
        law = Law.REFUSED if seed.family == "program" else law
        for length in lengths(len(seed.files[file])):
            yield _case(seed, file, "cut", f"{file} at {length}", law, lambda data, n=length: data[:n])
        for number in range(flips):
            yield _case(seed, file, "flip", f"{file} {number}", law, lambda data, n=number: flipped(data, n))
        for number in range(BLOCKS):
            yield _case(seed, file, "block", f"{file} {number}", law, lambda data, n=number: blocked(data, n))


def _case(seed: Seed, file: str, kind: str, name: str, law: Law, change: Callable[[bytes], bytes]) -> Case:
    """All of a seed's files, one of them harmed; every third command is given it, since all of them read it first."""
    case = of_files(seed, kind, name, lambda: {**seed.files, file: change(seed.files[file])}, law)
    return replace(case, commands=(COMMANDS[crc32(name.encode()) % 3],))


def lengths(size: int) -> list[int]:
    """Where to cut: at every kilobyte, and at `CUTS` places more."""
    return sorted({*range(0, size, 1024), *np.linspace(0, size - 1, CUTS).astype(int).tolist()})


def flipped(data: bytes, seed: int) -> bytes:
    """One to three bytes changed."""
    rng, harmed = np.random.default_rng([seed, len(data)]), bytearray(data)
    for position in rng.integers(0, len(harmed), rng.integers(1, 4)):
        harmed[position] ^= int(rng.integers(1, 256))
    return bytes(harmed)


def blocked(data: bytes, seed: int) -> bytes:
    """A block of up to 512 bytes zeroed, lost, doubled, turned round, or filled with noise."""
    rng = np.random.default_rng([seed, len(data), 1])
    size = int(rng.integers(1, min(512, len(data)) + 1))
    start = int(rng.integers(0, len(data) - size + 1))
    head, block, tail = data[:start], data[start : start + size], data[start + size :]
    noise = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
    return head + [bytes(size), b"", block * 2, block[::-1], noise][seed % 5] + tail
