"""The arithmetic of a study's table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kdcli.studies.table import estimate, gains, overall, rows


def cell(score: float | None, status: str = "done") -> dict:
    record = {"status": status, "agreement": 0.9, "params": 10, "labels": 5, "updates": 7, "seconds": 1.0}
    return record | ({"score": score} if status == "done" else {"reason": ["no", "way"]})


def many(scores: list[float]) -> dict[int, dict]:
    return {seed: cell(score) for seed, score in enumerate(scores)}


def test_an_estimate_is_a_t_interval() -> None:
    """Law: the interval is Student's t over seeds, as scipy has it; one seed has none."""
    x = [0.9, 0.95, 1.0, 0.85, 0.93]
    found = estimate(x, 0.95)
    assert found is not None
    low, high = stats.t.interval(0.95, 4, np.mean(x), stats.sem(x))
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((np.mean(x), low, high, 5))
    assert estimate([0.5], 0.95).low is None
    assert estimate([], 0.95) is None


def test_differences_are_paired() -> None:
    """Law: only seeds that both have count, and luck that both share falls out."""
    records = {"base": many([0.1, 0.5, 0.9]), "v": {1: cell(0.52), 2: cell(0.92), 7: cell(0.0)}}
    assert gains(records, "v") == pytest.approx({1: 0.02, 2: 0.02})


def test_marks_need_intervals_off_zero() -> None:
    """Law: best is the highest of those shown to be better; what chance explains has no mark, however high its mean."""
    records = {
        "base": many([0.50, 0.52, 0.48]),
        "good": many([0.60, 0.62, 0.58]),
        "better": many([0.70, 0.73, 0.68]),
        "lucky": many([1.0, 0.2, 1.2]),
        "bad": many([0.30, 0.33, 0.28]),
    }
    found = {row.variant: row.mark for row in rows(records, list(records), 0.95)}
    assert found == {"base": "", "good": "better", "better": "best", "lucky": "", "bad": "worse"}


def test_a_failed_student_is_random_play() -> None:
    """Law: training that diverged counts as a score of 0, one that cannot be is no number at all."""
    records = {"base": many([1.0, 1.0]), "v": {0: cell(1.0), 1: cell(None, "failed")}}
    records["w"] = {0: cell(None, "not applicable"), 1: cell(None, "not applicable")}
    _, failed, absent = rows(records, ["base", "v", "w"], 0.95)
    assert failed.score is not None
    assert (failed.score.mean, failed.failed) == (0.5, 1)
    assert (absent.score, absent.difference, absent.reason) == (None, None, "no; way")


def test_over_all_teachers() -> None:
    """Law: a seed's differences are averaged over the teachers that a variant applies to, then over seeds."""
    one = {"base": many([0.0, 0.0]), "v": many([0.1, 0.3]), "w": many([0.5, 0.5])}
    two = {"base": many([0.5, 0.5]), "v": many([0.8, 0.6])}
    v, w = overall([one, two], ["base", "v", "w"], 0.95)
    assert v.difference is not None
    assert (v.difference.mean, v.teachers) == (pytest.approx(0.2), 2)
    assert math.isclose(v.difference.low, 0.2)
    assert (w.teachers, w.mark) == (1, "best")
