"""Laws of verdicts reached look by look: no further than needed, final, the same as one look at all, errors shared."""

from __future__ import annotations

import numpy as np
import pytest

from kdcli.benchmarks.score import Arms, Risk
from kdcli.benchmarks.sequential import Plan, Trial
from kdcli.benchmarks.tail import cvar, describe, tail
from kdcli.benchmarks.verdict import compare
from kdcli.errors import UsageError


def arms(n: int, score: float, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Student, teacher, random (n,): a gain of 1, the two agents alike from seed to seed."""
    rng = np.random.default_rng(seed)
    teacher = 1 + spread * rng.normal(size=n)
    return teacher - (1 - score), teacher, 0.1 * rng.normal(size=n)


def played(plan: Plan, returns: tuple[np.ndarray, ...]) -> tuple[Trial, list[int]]:
    """A trial to its end, and the episodes of its looks."""
    trial, looks = Trial(plan), []
    while trial.wanted > trial.n:
        looks.append(trial.wanted)
        trial.add(*(arm[trial.n : trial.wanted] for arm in returns))
    return trial, looks


@pytest.mark.parametrize(("score", "verdict"), [(1.0, "holds"), (0.85, "fails"), (0.95, "undecided")])
def test_it_stops_early_both_ways(score: float, verdict: str) -> None:
    """Law: clear students are decided long before the most episodes, borderline ones never, and never later."""
    trial, looks = played(Plan(most=600), arms(600, score))
    assert trial.verdict == verdict
    assert looks == sorted(set(looks))
    assert trial.n == looks[-1] == trial.wanted
    assert (trial.n == 600) == (verdict == "undecided")
    assert trial.n <= 240 or verdict == "undecided"


def test_looks_do_not_change_what_is_known() -> None:
    """Law: the interval after many looks is that of one look at all episodes, in whatever order they came."""
    returns = arms(300, 0.96)
    trial, looks = played(Plan(most=300), returns)
    assert len(looks) > 2
    order = np.random.default_rng(3).permutation(trial.n)
    once = compare(*(arm[: trial.n][order] for arm in returns))
    assert trial.estimate is not None
    assert (trial.estimate.interval.low, trial.estimate.interval.high) == pytest.approx((once.low, once.high))
    assert trial.verdict == once.verdict


def test_a_verdict_is_final() -> None:
    """Law: what is decided stays decided, whatever comes later."""
    trial, _ = played(Plan(), arms(500, 1.0))
    assert trial.verdict == "holds"
    assert trial.add(*arms(100, 0.0)) == "holds"
    assert trial.wanted == trial.n


def test_a_share_of_the_error_takes_more_episodes() -> None:
    """Law: where one of ten students is taken, a tenth of the error each needs ln 10 / ln 40 more proof, no more."""
    alone, among = (played(Plan(most=1000, risk=Risk(share=share)), arms(1000, 1.0))[0] for share in (1.0, 0.1))
    assert alone.verdict == among.verdict == "holds"
    assert alone.n < among.n < 2 * alone.n


def test_the_best_of_many_seldom_holds_wrongly() -> None:
    """Law: of 5 students at the bound, the error shared, one is called *holds* in at most 5 % of searches."""
    wrong = 0
    for search in range(30):
        rng = np.random.default_rng(search)
        teacher, random = 1 + 0.1 * rng.normal(size=200), np.zeros(200)
        students = [teacher - 0.05 + 0.1 * rng.normal(size=200) for _ in range(5)]
        plan = Plan(most=200, risk=Risk(share=1 / 5, floor=-0.1))
        wrong += any(played(plan, (student, teacher, random))[0].verdict == "holds" for student in students)
    assert wrong <= 4  # of 30 at 2.5 %: more than 4 less than once in 1,000


def test_a_teacher_no_better_than_random_is_never_judged() -> None:
    """Law: without a score nothing is decided, and the trial ends with the most episodes."""
    noise = np.random.default_rng(0).normal(size=(3, 120))
    trial, _ = played(Plan(most=120), tuple(noise))
    assert (trial.verdict, trial.n, trial.estimate) == ("undecided", 120, None)


@pytest.mark.parametrize("options", [{"share": 0.0}, {"share": 1.5}, {"floor": float("nan")}, {"confidence": 1.0}])
def test_impossible_risks_are_refused(options: dict[str, float]) -> None:
    """Law: a share beyond the whole, a floor that is no number and a confidence of 1 are usage errors."""
    with pytest.raises(UsageError):
        Risk(**options)


@pytest.mark.parametrize(("n", "worst"), [(100, [0, 1, 2, 3, 4]), (20, [0]), (7, [0]), (30, [0, 0.5])])
def test_cvar_is_the_mean_of_the_worst(n: int, worst: list[float]) -> None:
    """Law: CVaR at 5 % is the mean of the worst 5 %, the last of them counted by its part; the lowest of few."""
    returns = np.random.default_rng(0).permutation(np.arange(n, dtype=float))
    expected = (0.0 + 0.5 * 1.0) / 1.5 if n == 30 else float(np.mean(worst))
    assert cvar(returns) == pytest.approx(expected)


def test_the_tail_is_what_the_worst_episodes_keep() -> None:
    """Law: equal worst episodes are a tail of 1, worse by the whole gain 0; the score may not show it at all."""
    student, teacher, random = np.full(400, 100.0), np.full(400, 100.0), np.zeros(400)
    assert describe(Arms(student, teacher, random), Risk()).tail == pytest.approx(1.0)
    student[:20] = 0.0
    found = describe(Arms(student, teacher, random), Risk())
    assert found.tail == pytest.approx(0.0)
    assert (found.worst, found.reference_worst, found.loss, found.cvar) == (0.0, 100.0, 100.0, 0.0)
    assert compare(student, teacher, random, min_score=0.9).verdict == "holds"


def test_the_interval_of_the_tail_covers() -> None:
    """Law: the true tail of a student that falls in 2 % is in its interval, in 95 % of benches or more."""
    true, missed = 1 - 0.02 / 0.05, 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        student = np.where(rng.random(300) < 0.02, 0.0, 1.0)
        found = tail(Arms(student, np.ones(300), np.zeros(300)), Risk()).interval
        missed += not found.low <= true <= found.high
    assert missed <= 8  # of 50 at 5 %: more than 8 once in 1,000
