"""Laws of the numbers that describe returns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdcli.benchmarks.statistics import N_RESAMPLES, Interval, bca, student_t, summary, unseen_share
from kdcli.errors import UsageError

SKEWED = np.random.default_rng(3).exponential(20.0, 60) - 100
RETURNS = st.lists(st.integers(-5_000, 5_000).map(lambda k: k / 10), min_size=1, max_size=30).map(np.array)


@settings(max_examples=60, deadline=None)
@given(RETURNS)
def test_a_summary_is_in_order(x: np.ndarray) -> None:
    """Law: minimum <= low <= high <= maximum, the trimmed mean is among the values, and nothing warns or is nan."""
    s = summary(x)
    assert all(math.isfinite(v) for v in dataclasses.astuple(s))
    slack = 1e-9 * (1 + np.abs(x).max())
    assert s.minimum - slack <= s.low <= s.high <= x.max() + slack
    assert s.minimum - slack <= s.iqm <= x.max() + slack
    assert s.n == len(x)


@pytest.mark.parametrize("x", [[500.0] * 100, [0.1] * 7, [-200.0], [0.0, 0.0]])
def test_equal_returns_have_no_interval(x: list[float]) -> None:
    """Law: where nothing varies, low = high = mean exactly and the spread is 0."""
    s = summary(np.array(x))
    assert s.low == s.high == s.mean
    assert s.std == 0.0
    assert s.mean == pytest.approx(x[0])


def test_the_interval_is_scipys() -> None:
    """Law: the interval of the mean is scipy's BCa at the given confidence, not a method of our own."""
    ours = summary(SKEWED, confidence=0.9)
    theirs = stats.bootstrap((SKEWED,), np.mean, confidence_level=0.9, method="BCa", rng=np.random.default_rng(7))
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_bca_follows_skew() -> None:
    """Law: BCa reaches further on the side of the long tail; a symmetric interval would hide it."""
    s = summary(SKEWED)
    assert s.high - s.mean > 1.15 * (s.mean - s.low)


def test_same_returns_same_numbers() -> None:
    """Law: a summary is a function of the returns: no hidden random state."""
    assert summary(SKEWED) == summary(SKEWED.copy())


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.25, -1000.0)])
def test_units_do_not_matter(scale: float, shift: float) -> None:
    """Law: scaling and moving all returns scales and moves every number, so negative returns are nothing special."""
    plain, moved = summary(SKEWED), summary(scale * SKEWED + shift)
    for name in ("mean", "iqm", "low", "high", "minimum"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(plain, name) + shift)
    assert moved.std == pytest.approx(scale * plain.std)


def test_iqm_ignores_the_outer_quarters() -> None:
    """Law: the IQM is the mean of the middle half: ruining a quarter of the episodes leaves it alone."""
    x = np.arange(40.0)
    ruined = np.where(x < 10, -1e6, x)
    assert summary(x).iqm == summary(ruined).iqm == x[10:30].mean()


def test_more_confidence_is_wider() -> None:
    """Law: an interval at a higher confidence contains the one at a lower."""
    low, high = summary(SKEWED, 0.9), summary(SKEWED, 0.975)
    assert high.low < low.low < low.high < high.high


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
def test_unseen_share_is_clopper_pearson(n: int, confidence: float) -> None:
    """Law: what n episodes without a failure leave possible is the exact binomial bound for 0 of n."""
    exact = stats.binomtest(0, n).proportion_ci(confidence, method="exact").high
    assert unseen_share(n, confidence) == pytest.approx(exact)


def test_unseen_share_known_figure() -> None:
    """Law: 149 episodes without a failure show, one-sided at 95 %, a failure rate below 2 %."""
    assert unseen_share(149, 0.90) < 0.02 < unseen_share(148, 0.90)


def test_student_t_is_scipys() -> None:
    """Law: the t interval is the textbook one."""
    ours = student_t(float(SKEWED.mean()), float(SKEWED.std(ddof=1)), len(SKEWED), 0.95)
    theirs = stats.ttest_1samp(SKEWED, 0.0).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_span_contains_both() -> None:
    """Law: the span of two intervals is the shortest that contains both."""
    assert Interval(0, 2).span(Interval(-1, 1)) == Interval(-1, 2)


def test_many_episodes_are_affordable() -> None:
    """Law: thousands of episodes need no n x n numbers, and get the interval that theory says."""
    x, seen = np.random.default_rng(0).normal(size=6_000), 0

    def mean(x: np.ndarray, axis: int) -> np.ndarray:
        nonlocal seen
        seen += x.size
        return x.mean(axis)

    interval = bca(mean, (x,), 0.95)
    assert seen < (N_RESAMPLES + 10) * len(x)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * x.std() / len(x) ** 0.5, rel=0.05)


@pytest.mark.parametrize("x", [[], [[1.0, 2.0]], [1.0, float("nan")], [float("inf")]])
def test_what_is_no_return_is_refused(x: list[float]) -> None:
    """Law: no numbers, two axes, nan and infinity are usage errors, never a nan in a table."""
    with pytest.raises(UsageError):
        summary(np.array(x))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_confidence_is_a_probability(confidence: float) -> None:
    """Law: a confidence outside 0 to 1 is a usage error: 95 is not 0.95."""
    with pytest.raises(UsageError):
        summary(SKEWED, confidence)
