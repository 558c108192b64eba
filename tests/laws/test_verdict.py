"""Laws of the verdict: it follows from the interval, guards against what was not seen, and says what is missing."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdcli.benchmarks.betting import STAKES
from kdcli.benchmarks.verdict import MIN_EPISODES, Comparison, compare, episodes_needed
from kdcli.errors import UsageError

GOOD, RANDOM = 500.0, 20.0


def saturated(n: int, falls: int = 0, to: float = RANDOM) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student, teacher, random (n,): a perfect teacher, and a student that falls `falls` times."""
    student = np.full(n, GOOD)
    student[:falls] = to
    return student, np.full(n, GOOD), np.full(n, RANDOM)


def noisy(n: int, score: float, spread: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student, teacher, random (n,): a gain of 100 over random play at -200, `spread` of it from episode to episode."""
    rng = np.random.default_rng(seed)
    student, teacher, random = (100 * (mean + spread * rng.normal(size=n)) - 200 for mean in (score, 1.0, 0.0))
    return student, teacher, random


@st.composite
def arms(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Any student, teacher and random play on up to 30 seeds, often with equal returns."""
    n = draw(st.integers(1, 30))
    one = st.integers(-40, 40).map(lambda k: k / 4)
    return tuple(np.array(draw(st.lists(one, min_size=n, max_size=n))) for _ in range(3))


def consistent(c: Comparison) -> bool:
    """Whether verdict, interval and estimate say the same."""
    if c.score is None or c.low is None or c.high is None:
        return c.verdict == "undecided" and c.rule is c.low is c.high is c.more_episodes is None
    above, below = c.low > c.min_score and c.n >= MIN_EPISODES, c.high < c.min_score
    expected = "holds" if above else "fails" if below else "undecided"
    asks = c.more_episodes is None or (c.verdict == "undecided" and c.more_episodes > 0)
    return c.low <= c.score <= c.high and c.verdict == expected and asks


NEAR = st.builds(
    noisy, st.integers(80, 120), st.floats(0.89, 1.01), st.sampled_from([0.0, 0.03, 0.1]), st.integers(0, 99)
)


@settings(max_examples=120, deadline=None)
@given(st.one_of(arms(), NEAR), st.sampled_from([0.9, 0.95]))
def test_verdict_and_interval_never_contradict(arms: tuple[np.ndarray, ...], min_score: float) -> None:
    """Law: holds iff the printed interval is above the bound, fails iff below; it contains the score; nothing warns."""
    c = compare(*arms, min_score=min_score)
    assert consistent(c)
    json.dumps(dataclasses.asdict(c), allow_nan=False)


@pytest.mark.parametrize("score", [0.8, 0.97, 1.0])
def test_units_do_not_matter(score: float) -> None:
    """Law: scaling and moving all returns changes neither score nor verdict; negative means are nothing special."""
    arms = noisy(60, score)
    plain, moved = compare(*arms), compare(*(0.01 * arm - 7 for arm in arms))
    assert (plain.verdict, plain.rule, plain.more_episodes) == (moved.verdict, moved.rule, moved.more_episodes)
    assert (plain.score, plain.low, plain.high) == pytest.approx((moved.score, moved.low, moved.high))


def test_same_returns_same_verdict() -> None:
    """Law: a comparison is a function of the returns: no hidden random state."""
    arms = noisy(40, 0.97)
    assert compare(*arms) == compare(*(arm.copy() for arm in arms))


@pytest.mark.parametrize("arms", [noisy(100, 0.97, spread=0.3), noisy(40, 1.0), saturated(100, 3)])
def test_the_interval_is_what_no_bet_refutes(arms: tuple[np.ndarray, ...]) -> None:
    """Law: where the interval ends, bets on s - m t - (1 - m) r have just made 40 of 1, the worst fall counted in."""
    c, student, (_, teacher, random) = compare(*arms), arms[0], arms
    assert c.low is not None
    x = student - c.low * teacher - (1 - c.low) * random
    fall = c.floor - c.low * teacher.max() - (1 - c.low) * random.max()
    made = sum(stake * np.prod(1 + x / (-fall * 2**k)) for k, stake in enumerate(STAKES))
    assert made == pytest.approx(40, rel=1e-6)


def test_a_perfect_student_of_a_saturated_task() -> None:
    """Law: 100 of 100 without a fall hold at 0.95, as the bound of zero failures says of half the error, and no rho."""
    c = compare(*saturated(100))
    assert (c.verdict, c.rule, c.score, c.rho) == ("holds", "falls", 1.0, None)
    assert c.low == pytest.approx(0.0125 ** (1 / 100), abs=1e-3)
    assert c.unseen == pytest.approx(1 - 0.0125 ** (1 / 100))


@pytest.mark.parametrize(("n", "min_score", "total"), [(20, 0.95, 85), (84, 0.95, 85), (100, 0.99, 429)])
def test_what_never_varied_is_not_certain(n: int, min_score: float, total: int) -> None:
    """Law: without variance too few episodes are undecided, and exactly as many more as it says decide."""
    c = compare(*saturated(n), min_score=min_score)
    assert (c.verdict, c.more_episodes) == ("undecided", total - n)
    assert compare(*saturated(total - 1), min_score=min_score).verdict == "undecided"
    assert compare(*saturated(total), min_score=min_score).verdict == "holds"


@pytest.mark.parametrize("n", [60, 72, 93, 100, 130, 184, 250])
@pytest.mark.parametrize("to", [RANDOM, (RANDOM + GOOD) / 2])
def test_rare_falls_seldom_pass(n: int, to: float) -> None:
    """Law: a student that falls just so often that its score is 0.95 gets *holds* in at most 5 % (exact binomial)."""
    rate = 0.05 * (GOOD - RANDOM) / (GOOD - to)
    passing = 0
    while compare(*saturated(n, passing, to)).verdict == "holds":
        passing += 1
    assert stats.binom.cdf(passing - 1, n, rate) <= 0.05


def test_an_unseen_fall_is_as_deep_as_random_plays_worst() -> None:
    """Law: an unseen fall costs what random play's lowest return does, or the floor that is known; less is refused."""
    student, teacher, random = saturated(130)
    usual = compare(student, teacher, random)
    random[0] = -500.0
    deep, known = compare(student, teacher, random), compare(student, teacher, random, floor=RANDOM - 10)
    assert (usual.floor, deep.floor, known.floor) == (RANDOM, -500.0, RANDOM - 10)
    assert (usual.verdict, deep.verdict, known.verdict) == ("holds", "undecided", "holds")
    student[0] = 0.0  # deeper than the floor was said to be
    assert compare(student, teacher, random, floor=RANDOM).floor == 0.0


def test_an_unseen_fall_is_as_deep_as_any_seen() -> None:
    """Law: an agent seen far below random play makes unseen falls count that deep."""
    student, teacher, random = saturated(100)
    teacher[0] = -1_000.0
    low, usual = compare(student, teacher, random).low, compare(*saturated(100)).low
    assert low is not None
    assert usual is not None
    assert low < usual - 0.05


def test_caution_does_not_hide_a_bad_student() -> None:
    """Law: a student a tenth worse fails at 130 episodes, whether it varies or not."""
    assert compare(*saturated(130, 130, to=GOOD - 48)).verdict == "fails"
    assert compare(*noisy(130, 0.9, spread=0.05)).verdict == "fails"


@pytest.mark.parametrize("n", range(1, MIN_EPISODES))
def test_few_episodes_never_hold(n: int) -> None:
    """Law: fewer than 10 episodes cannot show that a student holds, however good it looks."""
    student, teacher, random = saturated(n)
    c = compare(10_000 * student, teacher, random)
    assert c.verdict == "undecided"
    assert "fewer than 10" in c.reason


def test_few_episodes_can_fail() -> None:
    """Law: a student at the random level of a saturated task fails with 8 episodes already."""
    assert compare(*saturated(8, 8)).verdict == "fails"
    assert compare(*saturated(1, 1)).verdict == "undecided"


@pytest.mark.parametrize("teacher", [np.full(50, -3.0), np.zeros(50), np.linspace(-1.0, 1.2, 50)])
def test_no_score_without_a_teacher(teacher: np.ndarray) -> None:
    """Law: a teacher not shown to be better than random gives no score, no number of episodes, and the reason."""
    c = compare(np.full(50, 9.0), teacher, np.zeros(50))
    assert (c.verdict, c.score, c.low, c.high, c.rule, c.more_episodes) == ("undecided", None, None, None, None, None)
    assert "better than a random policy" in c.reason
    assert episodes_needed(np.full(50, 9.0), teacher, np.zeros(50)) is None


def test_rounding_is_no_advantage() -> None:
    """Law: a teacher that differs from random by the last bit is not better."""
    assert compare(np.full(20, 0.3), np.full(20, 0.1 + 0.2), np.full(20, 0.3)).score is None


@pytest.mark.parametrize("seed", range(4))
def test_more_episodes_is_enough(seed: int) -> None:
    """Law: the same returns over again, as many as it asks for, do decide; a quarter fewer do not."""
    arms = noisy(40, 0.98, spread=0.15, seed=seed)
    c = compare(*arms)
    assert c.verdict == "undecided"
    assert c.more_episodes is not None

    def again(n: int) -> str:
        # Whole repetitions only, so that score and spread are those of the first 40.
        return compare(*(np.tile(arm, n // 40) for arm in arms)).verdict

    total = c.n + c.more_episodes
    assert again(total + 40) != "undecided"
    assert again(int(0.75 * total)) == "undecided"


def test_no_number_decides_at_the_bound() -> None:
    """Law: a score at the bound itself asks for no number of episodes, and says why."""
    c = compare(*saturated(100, 5))
    assert (c.verdict, c.more_episodes) == ("undecided", None)
    assert "so near 0.95" in c.reason


def test_correlation_is_measured() -> None:
    """Law: rho is that of the paired returns: 1 for one agent beside itself, and pairing then narrows the interval."""
    _, teacher, random = noisy(350, 1.0, spread=0.4)
    itself = compare(teacher, teacher, random)
    other = compare(np.roll(teacher, 1), teacher, random)
    assert itself.rho == pytest.approx(1.0)
    assert other.rho == pytest.approx(0.0, abs=0.3)
    assert (itself.verdict, other.verdict) == ("holds", "undecided")


def test_the_worst_episodes_are_told() -> None:
    """Law: the lowest return of each is reported as it was."""
    c = compare(*saturated(100, 1, to=-77.0))
    assert (c.student_worst, c.teacher_worst, c.n) == (-77.0, GOOD, 100)


def test_more_confidence_is_wider() -> None:
    """Law: an interval at a higher confidence contains the one at a lower, for every rule."""
    for arms in (noisy(100, 1.0), noisy(100, 0.97, spread=0.5), saturated(100, 3)):
        usual, strict = compare(*arms), compare(*arms, confidence=0.975)
        assert None not in (usual.low, usual.high, strict.low, strict.high)
        assert strict.low < usual.low < usual.high < strict.high  # type: ignore[operator]


def test_a_plan_has_its_power() -> None:
    """Law: with the episodes planned from a pilot, about 8 in 10 final checks decide, and in the right direction."""
    for score, verdict in ((1.0, "holds"), (0.8, "fails")):
        n = episodes_needed(*noisy(2000, score, spread=0.3, seed=9), min_score=0.9)
        assert n is not None
        seen = [compare(*noisy(n, score, spread=0.3, seed=100 + k), min_score=0.9).verdict for k in range(20)]
        assert 0.6 < seen.count(verdict) / len(seen) < 0.97


def test_a_plan_asks_more_of_closer_scores() -> None:
    """Law: the nearer the score to the bound, the more episodes; at the bound none would do."""
    counts = [episodes_needed(*noisy(200, score, spread=0.2, seed=4), min_score=0.9) for score in (1.1, 1.0, 0.95)]
    assert None not in counts
    assert counts == sorted(counts)  # type: ignore[type-var]
    assert counts[0] < counts[-1]  # type: ignore[operator]
    assert episodes_needed(*saturated(100, 5)) is None


def test_a_plan_asks_more_than_an_even_chance() -> None:
    """Law: a plan with power 0.8 asks for more than `more_episodes`, which has an even chance."""
    arms = noisy(40, 0.98, spread=0.2)
    c, plan = compare(*arms), episodes_needed(*arms)
    assert c.more_episodes is not None
    assert plan is not None
    assert plan > c.n + c.more_episodes


@pytest.mark.parametrize(
    ("student", "options"),
    [
        (np.ones(19), {}),
        (np.array([np.nan] * 20), {}),
        (np.array([-np.inf] * 20), {}),
        (np.ones((20, 1)), {}),
        (np.ones(20), {"confidence": 95.0}),
        (np.ones(20), {"min_score": float("nan")}),
    ],
)
@pytest.mark.parametrize("verb", [compare, episodes_needed])
def test_unpaired_or_unfinished_returns_are_refused(verb: object, student: np.ndarray, options: dict) -> None:
    """Law: different lengths, nan, infinity, two axes and impossible options are usage errors."""
    with pytest.raises(UsageError):
        verb(student, np.ones(20), np.zeros(20), **options)  # type: ignore[operator]
