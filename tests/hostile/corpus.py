"""The whole corpus, and the part of it that every test run takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import damage
import onnxed
import placed
import safetensored
import special
import tensors
import texts
import zipped
from cases import Case, unharmed
from seeds import SEEDS, Seed

SOURCES: tuple[Callable[[dict[str, Seed]], Iterator[Case]], ...] = (
    special.cases,
    placed.cases,
    zipped.cases,
    tensors.cases,
    safetensored.cases,
    onnxed.cases,
    texts.cases,
    damage.cases,
)
RANDOM = ("cut", "flip", "block")


def everything(seeds: dict[str, Seed]) -> list[Case]:
    """Every case, in an order that is always the same; the seeds themselves, unharmed, come first."""
    made = (case for source in SOURCES for case in source(seeds))
    return [*_unharmed(seeds), *(case for number, case in enumerate(made) if _kept(number, case))]


def _kept(number: int, case: Case) -> bool:
    """Whether it stays: random cases are spread over the formats already, crafted ones are as many as a format says."""
    return case.kind in RANDOM or case.format not in SEEDS or number % SEEDS[case.format].thin == 0


def _unharmed(seeds: dict[str, Seed]) -> Iterator[Case]:
    for seed in seeds.values():

        def write(folder, seed=seed):  # type: ignore[no-untyped-def]
            for file, data in seed.files.items():
                (folder / file).write_bytes(data)
            return folder / seed.main

        yield Case(seed.format, "unharmed", "the seed", unharmed(seed), write, seed.options)


def chosen(cases: list[Case], one_in: int) -> list[int]:
    """Numbers of a sample: one case in `one_in` of each format and kind, at least the first of each."""
    seen: dict[tuple[str, str], int] = {}
    kept = []
    for number, case in enumerate(cases):
        place = seen[case.format, case.kind] = seen.get((case.format, case.kind), -1) + 1
        if place % one_in == 0:
            kept.append(number)
    return kept
