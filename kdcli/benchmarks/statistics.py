"""Returns of episodes -> numbers with intervals. Arrays in, small records out; equal returns give equal numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdcli.errors import UsageError

N_RESAMPLES = 9_999
SEED = 0  # of the resampling only: an interval is a function of the returns
ROUNDING = 1e-9  # a difference this small beside the values themselves
_BATCH = 2_000_000  # numbers held at a time while resampling
_MANY = 5_000  # episodes


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both in the units of what was measured."""

    low: float
    high: float

    def span(self, other: Interval) -> Interval:
        """The shortest interval that contains both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Summary:
    """Returns of `n` episodes: `mean`, its interval `low` to `high`, population `std`, `iqm`, worst one `minimum`."""

    n: int
    mean: float
    std: float
    iqm: float
    low: float
    high: float
    minimum: float


def checked(returns: np.ndarray, name: str = "returns") -> np.ndarray:
    """Returns of episodes as float64 (n,); `name` is what an error calls them.

    Raises:
        UsageError: not a list of at least one number, or a number is not finite.
    """
    array = np.asarray(returns, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise UsageError(f"{name}: one number an episode is needed", f"got shape {array.shape}", "pass n >= 1 returns")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        why = f"{bad} of {len(array)} are nan or infinite"
        raise UsageError(f"{name}: every return must be finite", why, "look for nan in the rewards or the actions")
    return array


def check_confidence(confidence: float) -> None:
    """Raise UsageError unless 0 < confidence < 1."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence {confidence:g} is not a probability", "it lies between 0 and 1", "0.95 is usual")


def flat(values: np.ndarray, scale: float) -> bool:
    """Whether `values` (n,) differ by no more than rounding beside `scale`: nothing there to resample."""
    return float(np.ptp(values)) <= ROUNDING * abs(scale)


def bca(statistic: Callable[..., np.ndarray], samples: tuple[np.ndarray, ...], confidence: float) -> Interval:
    """Bias-corrected accelerated bootstrap of `statistic(*samples, axis=-1)`, episodes resampled together.

    `samples` are paired arrays (n,) on which the statistic is not constant. Efron 1987; scipy.stats.bootstrap.
    """
    n = len(samples[0])
    result = stats.bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=N_RESAMPLES,
        batch=max(1, _BATCH // n),
        confidence_level=confidence,
        # The correction for skew needs n x n numbers and vanishes as 1/sqrt(n): past some thousands it is not worth it.
        method="BCa" if n <= _MANY else "percentile",
        rng=np.random.default_rng(SEED),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def student_t(mean: float, std: float, n: int, confidence: float) -> Interval:
    """Student's t interval of a mean: `std` is that of one episode with n - 1 in the denominator, n > 1."""
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / n**0.5
    return Interval(mean - half, mean + half)


def unseen_share(n: int, confidence: float) -> float:
    """The greatest share of failing episodes that n episodes without a failure leave possible (3.6 % for 100 at 95 %).

    Upper end of the two-sided Clopper-Pearson interval for 0 of n: (1 - p)^n = (1 - confidence) / 2.
    """
    return float(1 - ((1 - confidence) / 2) ** (1 / n))


def summary(returns: np.ndarray, confidence: float = 0.95) -> Summary:
    """Describe the returns (n,) of one agent's episodes; all numbers in the units of the return.

    `iqm` is the mean of the middle half (Agarwal et al. 2021, arXiv 2108.13264), the interval of the mean is BCa,
    `std` is the population's, as Stable-Baselines3 prints it. Equal returns, and a single one, have low = high = mean.

    Raises:
        UsageError: no returns, a return that is not finite, or a confidence outside 0 to 1.
    """
    check_confidence(confidence)
    x = checked(returns)
    mean = float(x.mean())
    constant = flat(x, float(np.abs(x).max()))
    interval = Interval(mean, mean) if constant else bca(np.mean, (x,), confidence)
    return Summary(
        n=len(x),
        mean=mean,
        std=0.0 if constant else float(x.std()),
        iqm=float(stats.trim_mean(x, 0.25)),
        low=interval.low,
        high=interval.high,
        minimum=float(x.min()),
    )
