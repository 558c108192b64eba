"""The search for the smallest student that holds: bisection over a ladder of sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdcli.agents.agent import Agent
from kdcli.benchmarks.verdict import Comparison
from kdcli.distillation.config import DistillConfig
from kdcli.recipes.ladder import Rung


@dataclass(frozen=True)
class Candidate:
    """A trained student of one rung and how it did on the screening episodes.

    `needed` is how many episodes would show that it holds, by the screening; None: no number in reason would.
    `promising` says that so many are affordable.
    """

    index: int
    rung: Rung
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
RETRIES = 2


def search(rungs: Sequence[Rung], first: int, attempt: Try) -> list[Candidate]:
    """Every candidate tried, in order. `attempt(rung index, how often tried before)` trains one; None: no time left.

    The linear rung comes first; then sizes are halved between the largest that failed and the smallest that is
    promising. The one that failed at the border is tried again, since training has luck in it.
    """
    tried: list[Candidate] = []

    def promising(index: int) -> bool | None:
        candidate = attempt(index, sum(c.index == index for c in tried))
        if candidate is None:
            return None
        tried.append(candidate)
        return candidate.promising

    low, high, at = -1, len(rungs), 0
    while low < at < high:
        outcome = promising(at)
        if outcome is None:
            return tried
        low, high = (low, at) if outcome else (at, high)
        at = _next(low, high, rungs, first)
    for _ in range(RETRIES if low >= 0 else 0):
        if promising(low) is not False:
            break
    return tried


def _next(low: int, high: int, rungs: Sequence[Rung], first: int) -> int:
    """Where to look next, given that `low` failed and `high` is promising (beyond the last: none is yet)."""
    if high == len(rungs):
        return min(max(first, low + 2 if low else 1), high - 1)
    between = range(low + 1, high)
    middle = math.sqrt(rungs[max(low, 0)].n_params * rungs[high].n_params)
    return min(between, key=lambda i: abs(math.log(rungs[i].n_params / middle)), default=low)
