"""The promise of a whole search, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from search_simulation import KINDS, Kind, search

from kdcli.benchmarks.sequential import Shares

WRONG = 0.025


def false_ones(kind: Kind, searches: int) -> bool:
    """Whether more of them end in a false *holds* than chance makes of the promise once in a thousand times."""
    false = sum(search(kind, np.random.default_rng(seed)).is_false for seed in range(searches))
    return bool(false > binom.ppf(1 - 1e-3, searches, WRONG))


def test_a_search_is_as_rarely_wrong_as_one_verdict() -> None:
    """Law: however many students are tried and chosen for their luck, hardly any search ends in a false *holds*."""
    assert not false_ones(KINDS[0], 12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_searches_are_as_rarely_wrong_as_one_verdict(kind: Kind) -> None:
    """Law: the same of all kinds of searches, in at most 2.5 % of them."""
    assert not false_ones(kind, 60)


def test_good_students_are_found_all_the_same() -> None:
    """Law: where half of the students are good, one is proven."""
    assert all(search(KINDS[5], np.random.default_rng(seed)).is_proven for seed in range(6))


def test_a_share_is_gone_only_where_nothing_was_proven() -> None:
    """Law: verdicts that hold leave the error as it was; the others use it up, and never more than there is."""
    shares = Shares()
    for verdict, left in (("holds", 1.0), ("undecided", 0.5), ("holds", 0.5), ("fails", 0.25)):
        shares.settle(shares.next(), verdict)  # type: ignore[arg-type]
        assert shares.left == left
    shares.settle(shares.next(last=True), "undecided")
    assert shares.left == 0.0
