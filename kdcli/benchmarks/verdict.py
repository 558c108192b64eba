"""Does a student hold? Returns on paired seeds -> holds, fails or undecided, from one interval of the score.

Three intervals are spanned, for each is wrong where another is right: BCa follows skew, Student's t is wide enough when
both agents fall now and then, and the zero-failure bound knows of falls that no episode showed (100 episodes without
one leave 3.6 % of falling ones possible at 95 %). Ten real agents, 100 episodes, 13 kinds of student; worst of them:

    spanned             bad enough, yet *holds*     interval covers the true score
    BCa alone                  15.1 %                       76.3 %
    without t                   4.4 %                       90.0 %
    without BCa                 5.7 %                       92.2 %
    without zero-failure        4.4 %                       84.7 %
    all three                   4.4 %                       94.2 %

(tests/studies/verdict_simulation.py [--without ...]; at least 1000 simulations of each.)
The verdict reads the printed interval and nothing else, so that the two cannot contradict each other.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from kdcli.benchmarks.score import Score, better_than_random, measure
from kdcli.benchmarks.statistics import Interval, check_confidence, checked, flat
from kdcli.errors import UsageError

MIN_EPISODES = 10
MAX_EPISODES = 100_000
POWER = 0.8

Verdict = Literal["holds", "fails", "undecided"]
Rule = Literal["bca", "t", "zero-failure"]

_NO_SCORE = "the teacher is not shown to be better than a random policy, so no score is defined"


@dataclass(frozen=True)
class Comparison:
    """A student beside its teacher on `n` paired episodes.

    `score` with its interval `low` to `high` at `confidence` (all None when the teacher is not shown to be better
    than random); `rule`: what set the end of the interval that faces `min_score`; `rho`: correlation of the two
    agents' returns over the seeds, None where one does not vary; `student_worst`, `teacher_worst`: lowest returns;
    `more_episodes`: how many further ones would decide, None when decided or when no number in reason would;
    `reason`: the verdict in a sentence.
    """

    verdict: Verdict
    rule: Rule | None
    score: float | None
    low: float | None
    high: float | None
    min_score: float
    confidence: float
    n: int
    rho: float | None
    student_worst: float
    teacher_worst: float
    more_episodes: int | None
    reason: str


def _paired(*arms: np.ndarray) -> list[np.ndarray]:
    """Student, teacher, random as checked float64 arrays of one length."""
    arrays = [checked(arm, f"{name} returns") for arm, name in zip(arms, ("student", "teacher", "random"), strict=True)]
    if len({len(array) for array in arrays}) > 1:
        lengths = ", ".join(str(len(array)) for array in arrays)
        why = f"student, teacher and random have {lengths} returns"
        raise UsageError("returns must be paired, one for each seed", why, "run all three on the same seeds")
    return arrays


def _check(min_score: float, confidence: float) -> None:
    check_confidence(confidence)
    if not math.isfinite(min_score):
        raise UsageError(
            f"min_score {min_score} is not a number", "it is a share of the teacher's gain", "0.95 is usual"
        )


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of two arrays (n,), None where one of them does not vary."""
    if any(flat(z, float(np.abs(z).max())) for z in (x, y)):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _decide(interval: Interval, n: int, min_score: float) -> Verdict:
    """Where the interval lies: wholly above (never with fewer than 10 episodes), wholly below, or around."""
    if interval.low > min_score and n >= MIN_EPISODES:
        return "holds"
    return "fails" if interval.high < min_score else "undecided"


def _rule(score: Score, min_score: float) -> Rule:
    """Which of the three intervals reaches furthest from the value toward `min_score`."""
    ends: dict[Rule, Interval] = {"bca": score.bca, "t": score.t, "zero-failure": score.zero_failure(score.n)}
    if score.value >= min_score:
        return min(ends, key=lambda rule: ends[rule].low)
    return max(ends, key=lambda rule: ends[rule].high)


def _needed(score: Score, min_score: float, deviate: float) -> int | None:
    """The fewest episodes whose interval, shifted by `deviate` standard errors toward `min_score`, decides."""

    def decided(n: int) -> bool:
        slip = deviate * score.spread / n**0.5
        end = score.interval(n)
        return end.low - slip > min_score if score.value > min_score else end.high + slip < min_score

    counts = range(MIN_EPISODES, MAX_EPISODES + 1)
    at = bisect_left(counts, True, key=decided)
    return counts[at] if at < len(counts) else None


def _reason(verdict: Verdict, n: int, min_score: float, more: int | None) -> str:
    if verdict == "holds":
        return f"the whole interval of the score is above {min_score:g}"
    if verdict == "fails":
        return f"the whole interval of the score is below {min_score:g}"
    if more is None:
        return f"the score is so near {min_score:g} that {MAX_EPISODES} episodes would not decide"
    if n < MIN_EPISODES:
        return f"fewer than {MIN_EPISODES} episodes cannot show that a student holds"
    return f"the interval of the score contains {min_score:g}"


def _judged(blank: Comparison, score: Score) -> Comparison:
    """The comparison with its score filled in, and the verdict that the interval of the score allows."""
    n, m, interval = score.n, blank.min_score, score.interval(score.n)
    verdict = _decide(interval, n, m)
    needed = _needed(score, m, deviate=0.0) if verdict == "undecided" else None
    more = needed and max(needed - n, 1)
    return replace(
        blank,
        verdict=verdict,
        rule=_rule(score, m),
        score=score.value,
        low=interval.low,
        high=interval.high,
        more_episodes=more,
        reason=_reason(verdict, n, m, more),
    )


def compare(
    student: np.ndarray, teacher: np.ndarray, random: np.ndarray, min_score: float = 0.95, confidence: float = 0.95
) -> Comparison:
    """Judge whether the student keeps `min_score` of the teacher's gain over a random policy.

    The arrays (n,) are returns of one episode for each seed: element i of all three began in the same state.
    *holds*: the interval of the score is above `min_score`; *fails*: below; *undecided* otherwise, with the number of
    further episodes after which the interval would clear `min_score` were score and spread to stay as they are (an
    even chance; `episodes_needed` plans with more).

    Equal returns do not decide what was never seen: with a score of 1 and no fall at all, `min_score` 0.95 takes 72
    episodes and 0.99 takes 368. An unseen fall counts as an episode of the random policy, or as the worst that either
    agent showed if that is lower; falls deeper than both are not guarded against. Fewer than 10 episodes never hold;
    they fail only when no falls that so few may have missed would explain the score.

    A teacher that is not shown to be better than random gives *undecided* without a score, and no error, so that a
    table of many students can still be made.

    Raises:
        UsageError: lengths differ, a return is not finite, or a number is out of its range.
    """
    _check(min_score, confidence)
    student, teacher, random = _paired(student, teacher, random)
    blank = Comparison(
        verdict="undecided",
        rule=None,
        score=None,
        low=None,
        high=None,
        min_score=min_score,
        confidence=confidence,
        n=len(student),
        rho=_correlation(student, teacher),
        student_worst=float(student.min()),
        teacher_worst=float(teacher.min()),
        more_episodes=None,
        reason=_NO_SCORE,
    )
    if not better_than_random(teacher, random, confidence):
        return blank
    return _judged(blank, measure(student, teacher, random, confidence))


def episodes_needed(
    student: np.ndarray, teacher: np.ndarray, random: np.ndarray, min_score: float = 0.95, confidence: float = 0.95
) -> int | None:
    """How many episodes decide with a chance of 0.8, if the score and spread of this pilot are the true ones.

    The arrays (n,) are a pilot's returns as in `compare`. Plan the final check with it before looking at new episodes,
    and judge those alone: judging again after every few more would call too many students good. None when no number
    up to 100,000 would do, or when the teacher is not shown to be better than random.

    Raises:
        UsageError: as `compare`.
    """
    _check(min_score, confidence)
    student, teacher, random = _paired(student, teacher, random)
    if not better_than_random(teacher, random, confidence):
        return None
    return _needed(measure(student, teacher, random, confidence), min_score, NormalDist().inv_cdf(POWER))
