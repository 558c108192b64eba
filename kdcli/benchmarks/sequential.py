"""A verdict reached look by look: episodes are played until it is decided, and no more than planned.

    trial = Trial(Plan(bar=0.95, most=500))
    while trial.wanted > trial.n:
        trial.add(student, teacher, random)      # returns of the next `wanted - n` seeds
    trial.verdict                                # holds, fails, undecided

The error is kept over all looks, whenever and however many there are (`betting`), so how many episodes come next may
follow from those before. Where the best of several students is taken, each gets a share of the error
(`Risk(share=...)`), shares that add up to 1: then the chance that any of them is called *holds* wrongly is that of one
verdict, however they were chosen, as long as no student was trained or changed by what it did on these seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kdcli.benchmarks.betting import Estimate
from kdcli.benchmarks.score import Arms, Risk, better_than_random, score
from kdcli.benchmarks.verdict import Verdict, decide

FIRST, MOST = 50, 500
_LEAST_STEP = 0.25  # of the episodes so far: a look at fewer further ones is hardly another look
Measure = Callable[[Arms, Risk], Estimate]


@dataclass(frozen=True)
class Plan:
    """What is asked: whether `of` (the score) is above `bar`, of `first` to `most` paired episodes, at `risk`."""

    bar: float = 0.95
    first: int = FIRST
    most: int = MOST
    risk: Risk = field(default_factory=Risk)
    of: Measure = score


class Trial:
    """One student beside its teacher, judged as the episodes come in.

    Attributes:
        estimate: what is known of the score by now; None before the first episode, and while the teacher is not shown
            to be better than random play.
        verdict: whether it holds; decided verdicts are final, whatever is added later.
        more: further episodes that would decide, were they like those so far; None where none in reason would.
        wanted: episodes at which to look next, `n` when there is nothing more to be done.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.estimate: Estimate | None = None
        self.verdict: Verdict = "undecided"
        self.more: int | None = None
        self.wanted = min(self.plan.first, self.plan.most)
        self._arms: Arms | None = None

    @property
    def n(self) -> int:
        """Episodes so far."""
        return 0 if self._arms is None else len(self._arms.student)

    def add(self, student: np.ndarray, teacher: np.ndarray, random: np.ndarray) -> Verdict:
        """Look at the returns of further episodes, one of each arm a seed.

        Raises:
            UsageError: lengths differ, or a return is not finite.
        """
        further, known = Arms(student, teacher, random), self._arms
        if known is not None:
            pairs = ((known.student, further.student), (known.teacher, further.teacher), (known.random, further.random))
            further = Arms(*(np.concatenate(pair) for pair in pairs))
        self._arms = further
        if self.verdict == "undecided":
            self._look(further)
        self.wanted = self._next()
        return self.verdict

    def _look(self, arms: Arms) -> None:
        if not better_than_random(arms, self.plan.risk):
            self.estimate, self.more = None, None
            return
        self.estimate = self.plan.of(arms, self.plan.risk)
        self.verdict = decide(self.estimate, self.plan.bar)
        needed = self.estimate.needed(self.plan.bar) if self.verdict == "undecided" else None
        self.more = needed and max(needed - self.n, 1)

    def _next(self) -> int:
        """As many more as would decide, at most as many again; where none would, as many again."""
        if self.verdict != "undecided" or self.n >= self.plan.most:
            return self.n
        least = max(1, int(_LEAST_STEP * self.n))
        return min(self.n + min(max(self.more or self.n, least), self.n), self.plan.most)


class Shares:
    """The error of one verdict, shared by verdicts in a row.

    Each may use half of what is left, and what it used is gone only where its student did not hold. Until a first false
    *holds*, every student that is not good enough uses up its share, so that the chances of a first one add up to at
    most the whole, whoever chooses the next student and why, as long as each is judged on episodes of its own (alpha is
    recycled after a rejection: Bretz et al. 2009, "A graphical approach to sequentially rejective multiple test
    procedures").
    """

    def __init__(self) -> None:
        self.left = 1.0

    def next(self, last: bool = False) -> float:
        """The share for the next verdict; all of it for the `last` one."""
        return self.left if last else self.left / 2

    def settle(self, share: float, verdict: Verdict) -> None:
        """Take away the share of a verdict that was not *holds*."""
        if verdict != "holds":
            self.left = max(self.left - share, 0.0)
