"""The search for the smallest student that holds: bisection over a ladder of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kdcli.agents.agent import Agent
from kdcli.benchmarks.verdict import Comparison
from kdcli.compression.size_grid import Architecture
from kdcli.distillation.config import DistillConfig


@dataclass(frozen=True)
class Candidate:
    """A trained student of one rung and how it did on the screening episodes.

    `needed` is how many episodes would show that it holds, by the screening; None: no number in reason would.
    `promising` says that so many are affordable, or, where not even the teacher could be shown to hold in so few, that
    the score is high enough.
    """

    index: int
    architecture: Architecture
    student: Agent
    screening: Comparison
    needed: int | None
    promising: bool
    recipe: DistillConfig
    seconds: float

    @property
    def score(self) -> float:
        """The screening's point estimate; minus infinity where there is none."""
        return -math.inf if self.screening.score is None else self.screening.score


Try = Callable[[int, int], Candidate | None]
Holds = Callable[[Candidate], bool]
Following = Callable[[int, int], int]
PASSES = 3


_TOP = 3


class _TimeUpError(Exception):
    """No time is left for another candidate."""


def search(
    architectures: Sequence[Architecture], first: int, attempt: Try, holds: Holds, tried: list[Candidate]
) -> None:
    """Train candidates and append them to `tried`, in order, until no time is left or no smaller one can be hoped for.

    `attempt(rung index, how often tried before)` trains one; None: no time left. `holds(candidate)` says whether it
    is as good as wanted.

    A linear rung comes first, where there is one. Then sizes are halved between the largest that does not hold and the
    smallest that does. Training has luck in it, so what did not hold below that one is looked through again, as long as
    that helps.
    """

    def following(low: int, high: int) -> int:
        return _next(low, high, architectures, first)

    def is_enough(index: int) -> bool:
        candidate = attempt(index, sum(c.index == index for c in tried))
        if candidate is None:
            raise _TimeUpError
        tried.append(candidate)
        return holds(candidate)

    with suppress(_TimeUpError):
        begin = 0 if architectures[0].student == "linear" else following(-1, len(architectures))
        high = _halve(-1, len(architectures), begin, following, is_enough)
        for _ in range(PASSES - 1):
            before, low = high, 0 if high > 1 else -1
            high = _halve(low, high, following(low, high), following, is_enough)
            if high == before:
                break


def search_best(architectures: Sequence[Architecture], attempt: Try) -> list[Candidate]:
    """Every candidate tried where all `architectures` are small enough and the best score is wanted.

    The largest are the most able, and training has luck in it: the largest few are tried from the top, and again.
    """
    tried: list[Candidate] = []
    top = list(reversed(range(len(architectures))))[:_TOP]
    for before, index in ((before, index) for before in range(PASSES) for index in top):
        candidate = attempt(index, before)
        if candidate is None:
            break
        tried.append(candidate)
    return tried


def _halve(low: int, high: int, at: int, following: Following, is_enough: Callable[[int], bool]) -> int:
    """The smallest rung between `low` and `high` that is enough, beginning `at` one; `high` if there is none."""
    while low < at < high:
        low, high = (low, at) if is_enough(at) else (at, high)
        at = following(low, high)
    return high


def _next(low: int, high: int, architectures: Sequence[Architecture], first: int) -> int:
    """Where to look next, given that `low` is not enough and `high` is (beyond the last: none is yet)."""
    if high == len(architectures):
        return min(max(first, low + 2 if low > 0 else 1), high - 1)
    middle = math.sqrt(architectures[max(low, 0)].n_params * architectures[high].n_params)
    return min(range(low + 1, high), key=lambda i: abs(math.log(architectures[i].n_params / middle)), default=low)
