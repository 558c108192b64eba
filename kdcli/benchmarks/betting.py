"""A ratio of two means with an interval that stays true however often one looks: bets that no unseen fall can ruin.

That E[a] / E[b] is more than m says that x = a - m b has a positive mean. Whoever bets a share of a fortune of 1 on x
being positive, episode after episode, expects no gain while the mean is at most 0, so the fortune ever reaches
1 / error with a probability of at most `error` (Ville 1939), at whatever episode one stops, and for any distribution.
What a bet must know is how much one episode can lose: the largest bet is the one that the worst possible episode,
whether it was seen or only could be, would just ruin. That is how rare falls count: n episodes at x under this bet gain
what n episodes without a fall prove about falls of that depth (the Clopper-Pearson bound), and no more.

Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting" (arXiv 2010.09686). The bets are
a fixed mixture, so the interval is a function of the episodes alone and not of their order. The bounds are those of
all episodes so far: they widen when a worse one is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdcli.benchmarks.statistics import Interval

# Shares of the largest bet, and of the fortune laid on each. The largest proves the most where episodes vary little
# beside what a fall costs, which is usual; the smallest is right where their spread is three times as much.
BETS = 2.0 ** -np.arange(6)
STAKES = np.append(BETS[1:], BETS[-1])
MAX_EPISODES = 100_000
MIN_EPISODES = 10
_DOUBLINGS, _HALVINGS = 40, 44


def log_gains(x: np.ndarray, worst: float) -> np.ndarray:
    """What each of the bets makes of the episodes x (n,), as the logarithm of the factor: (k,).

    `worst` is the least that an episode can be; above 0 there is nothing to lose, so any gain is certain.
    """
    worst = min(worst, float(x.min()))
    if worst >= 0:
        return np.full(len(BETS), np.inf if float(x.max()) > 0 else 0.0)
    with np.errstate(divide="ignore"):  # the worst episode ruins the largest bet
        return np.asarray(np.log1p(BETS[:, None] * (x / -worst)).sum(axis=1))


def log_fortune(gains: np.ndarray) -> float:
    """The logarithm of the whole fortune from those of the bets' factors (k,)."""
    return float(np.logaddexp.reduce(gains + np.log(STAKES)))


@dataclass(frozen=True, eq=False)
class Estimate:
    """E[a] / E[b] of paired parts (n,), with error probability `error` at each end of the interval.

    `falls` (k, 2) are pairs (a, b) that an unseen episode could be and that speak for a lower ratio, `rises` for a
    higher one. E[b] must have been shown to be positive.
    """

    a: np.ndarray
    b: np.ndarray
    falls: np.ndarray
    rises: np.ndarray
    error: float

    @property
    def n(self) -> int:
        """Episodes."""
        return len(self.a)

    @cached_property
    def value(self) -> float:
        """The ratio of the two means."""
        return float(self.a.mean()) / float(self.b.mean())

    @cached_property
    def interval(self) -> Interval:
        """All ratios that no bet has refuted; it contains `value`, and covers the true one at all times at once."""
        return Interval(self._end(1), self._end(-1))

    def needed(self, bar: float, deviate: float = 0.0) -> int | None:
        """The fewest episodes like these after which `bar` is outside of the interval; None beyond MAX_EPISODES.

        The mean is taken to be nearer to `bar` by `deviate` of its standard errors.
        """
        side = 1 if self.value >= bar else -1
        x, worst = self._toward(bar, side)
        spread = float(x.std(ddof=1)) if self.n > 1 else 0.0

        def decided(n: int) -> bool:
            slipped = x - deviate * spread / n**0.5
            return log_fortune(log_gains(slipped, worst) * (n / self.n)) >= self._goal

        low, high = MIN_EPISODES, MAX_EPISODES
        if not decided(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if decided(middle) else (middle + 1, high)
        return low

    def is_about_falls(self, bar: float) -> bool:
        """Whether what could be unseen, not the spread of what was seen, sets the end that faces `bar`."""
        ends = self.interval
        side, end = (1, ends.low) if self.value >= bar else (-1, ends.high)
        gains = log_gains(*self._toward(end, side)) + np.log(STAKES)
        return int(gains.argmax()) == 0

    @property
    def _goal(self) -> float:
        return float(np.log(1 / self.error))

    def _toward(self, m: float, side: int) -> tuple[np.ndarray, float]:
        """The episodes as they speak for a ratio above (side 1) or below (-1) `m`, and the least one could be."""
        unseen = self.falls if side > 0 else self.rises
        return side * (self.a - m * self.b), float((side * (unseen[:, 0] - m * unseen[:, 1])).min())

    def _refuted(self, m: float, side: int) -> bool:
        return log_fortune(log_gains(*self._toward(m, side))) >= self._goal

    def _end(self, side: int) -> float:
        """Where the interval ends below (side 1) or above (-1): bisection between what is refuted and what is not."""
        inside, step = self.value, 1.0
        for _ in range(_DOUBLINGS):
            outside = self.value - side * step
            if self._refuted(outside, side):
                break
            inside, step = outside, 2 * step
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if self._refuted(middle, side) else (middle, outside)
        return inside
