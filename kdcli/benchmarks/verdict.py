"""Does a student hold? Returns on paired seeds -> holds, fails or undecided, from one interval of the score.

The interval is true at all looks at once (`betting`), so more episodes may be played after *undecided*, on further
seeds or on the same and further ones, and the verdict read again: `sequential` does. Its price and its promise are in
docs/verdict.md, by simulation (tests/studies/verdict_simulation.py).
The verdict reads the printed interval and nothing else, so that the two cannot contradict each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from kdcli.benchmarks.betting import MAX_EPISODES, MIN_EPISODES, Estimate
from kdcli.benchmarks.score import Arms, Risk, better_than_random, score
from kdcli.benchmarks.statistics import flat
from kdcli.errors import UsageError

POWER = 0.8

Verdict = Literal["holds", "fails", "undecided"]
Rule = Literal["spread", "falls"]

_NO_SCORE = "the teacher is not shown to be better than a random policy, so no score is defined"


@dataclass(frozen=True)
class Comparison:
    """A student beside its teacher on `n` paired episodes.

    `score` with its interval `low` to `high` at `confidence` (all None when the teacher is not shown to be better
    than random); `rule`: what set the end of the interval that faces `min_score`, the spread of the episodes or falls
    that none of them showed; `floor`: the lowest return that the interval allows for, `unseen`: the greatest share of
    falls that so many episodes could have missed; `rho`: correlation of the two agents' returns over the seeds, None
    where one does not vary; `student_worst`, `teacher_worst`: lowest returns; `more_episodes`: how many further ones
    would decide, None when decided or when no number in reason would; `reason`: the verdict in a sentence.
    """

    verdict: Verdict
    rule: Rule | None
    score: float | None
    low: float | None
    high: float | None
    min_score: float
    confidence: float
    n: int
    floor: float
    unseen: float
    rho: float | None
    student_worst: float
    teacher_worst: float
    more_episodes: int | None
    reason: str


def check_min_score(min_score: float) -> None:
    """Raise UsageError unless it is a number."""
    if not math.isfinite(min_score):
        raise UsageError(
            f"min_score {min_score} is not a number", "it is a share of the teacher's gain", "0.95 is usual"
        )


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of two arrays (n,), None where one of them does not vary."""
    if any(flat(z, float(np.abs(z).max())) for z in (x, y)):
        return None
    return float(np.corrcoef(x, y)[0, 1])


def decide(estimate: Estimate, bar: float) -> Verdict:
    """Where the interval lies: wholly above (never with fewer than 10 episodes), wholly below, or around."""
    if estimate.interval.low > bar and estimate.n >= MIN_EPISODES:
        return "holds"
    return "fails" if estimate.interval.high < bar else "undecided"


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


def _judged(blank: Comparison, estimate: Estimate) -> Comparison:
    """The comparison with its score filled in, and the verdict that the interval of the score allows."""
    n, m, interval = estimate.n, blank.min_score, estimate.interval
    verdict = decide(estimate, m)
    needed = estimate.needed(m) if verdict == "undecided" else None
    more = needed and max(needed - n, 1)
    return replace(
        blank,
        verdict=verdict,
        rule="falls" if estimate.is_about_falls(m) else "spread",
        score=estimate.value,
        low=interval.low,
        high=interval.high,
        more_episodes=more,
        reason=_reason(verdict, n, m, more),
    )


def compare(
    student: np.ndarray,
    teacher: np.ndarray,
    random: np.ndarray,
    min_score: float = 0.95,
    confidence: float = 0.95,
    floor: float | None = None,
) -> Comparison:
    """Judge whether the student keeps `min_score` of the teacher's gain over a random policy.

    The arrays (n,) are returns of one episode for each seed: element i of all three began in the same state.
    *holds*: the interval of the score is above `min_score`; *fails*: below; *undecided* otherwise, with the number of
    further episodes after which the interval would clear `min_score` were the episodes to go on as they did (an even
    chance; `episodes_needed` plans with more). Judging again with those is allowed: the error is kept over all looks.

    Equal returns do not decide what was never seen: with a score of 1 and no fall at all, `min_score` 0.95 takes 85
    episodes and 0.99 takes 429, more where random play falls below its mean. An unseen fall counts as `floor`, the
    lowest return there can be; without one as the lowest of random play, or of either agent. Falls deeper than that are
    not guarded against. Fewer than 10 episodes never hold; they fail only when no falls of the teacher that so few may
    have missed would explain the score.

    A teacher that is not shown to be better than random gives *undecided* without a score, and no error, so that a
    table of many students can still be made.

    Raises:
        UsageError: lengths differ, a return is not finite, or a number is out of its range.
    """
    check_min_score(min_score)
    risk, arms = Risk(confidence, floor=floor), Arms(student, teacher, random)
    blank = Comparison(
        verdict="undecided",
        rule=None,
        score=None,
        low=None,
        high=None,
        min_score=min_score,
        confidence=confidence,
        n=len(arms.student),
        floor=arms.floor(risk),
        unseen=risk.unseen(len(arms.student)),
        rho=_correlation(arms.student, arms.teacher),
        student_worst=float(arms.student.min()),
        teacher_worst=float(arms.teacher.min()),
        more_episodes=None,
        reason=_NO_SCORE,
    )
    return _judged(blank, score(arms, risk)) if better_than_random(arms, risk) else blank


def episodes_needed(
    student: np.ndarray,
    teacher: np.ndarray,
    random: np.ndarray,
    min_score: float = 0.95,
    confidence: float = 0.95,
    floor: float | None = None,
) -> int | None:
    """How many episodes decide with a chance of 0.8, if the episodes of this pilot are like the others.

    The arrays (n,) are a pilot's returns as in `compare`. None when no number up to 100,000 would do, or when the
    teacher is not shown to be better than random.

    Raises:
        UsageError: as `compare`.
    """
    check_min_score(min_score)
    risk, arms = Risk(confidence, floor=floor), Arms(student, teacher, random)
    if not better_than_random(arms, risk):
        return None
    return score(arms, risk).needed(min_score, NormalDist().inv_cdf(POWER))
