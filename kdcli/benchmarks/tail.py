"""The tail: what the worst episodes return, a student's beside its teacher's.

CVaR at a share of 5 % is the mean of the worst 5 % of the episodes (Rockafellar and Uryasev 2000). A student's tail is
1 + (CVaR - CVaR of the teacher) / (R_teacher - R_random): 1 where its worst episodes are as good as the teacher's,
0 where they are worse by all that the teacher gains over random play.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.benchmarks.betting import Estimate
from kdcli.benchmarks.score import Arms, Risk, better_than_random

SHARE = 0.05


@dataclass(frozen=True)
class Tail:
    """The worst of `n` episodes, in returns: `worst` and `cvar` of the student and of its teacher (the reference).

    `loss` is the most that the student lost against the teacher on one seed. `tail` with its interval `low` to `high`
    is None where the teacher is not shown to be better than random, and with fewer than 20 episodes.
    """

    n: int
    share: float
    worst: float
    reference_worst: float
    loss: float
    cvar: float
    reference_cvar: float
    tail: float | None
    low: float | None
    high: float | None


def _edge(returns: np.ndarray) -> float:
    """The return up to which an episode is one of the worst 5 %."""
    return float(np.sort(returns)[max(0, int(np.ceil(SHARE * len(returns) - 1e-9)) - 1)])


def _parts(returns: np.ndarray | float, edge: float) -> np.ndarray:
    """Each episode's part in the CVaR; the mean of these is the CVaR. Rockafellar and Uryasev 2000, eq. 4."""
    return np.asarray(edge - np.maximum(edge - np.asarray(returns), 0.0) / SHARE)


def cvar(returns: np.ndarray) -> float:
    """The mean of the worst 5 % of the returns (n,); of fewer than 20, the lowest."""
    return float(_parts(returns, _edge(returns)).mean())


def tail(arms: Arms, risk: Risk) -> Estimate:
    """The student's tail beside the teacher's, for a teacher that is better than random.

    The edges of the two tails count as known: the CVaR does not depend on its edge in the first order. What an unseen
    episode could be is as for the score; a fall weighs twenty times as much.
    """
    ours, theirs = _edge(arms.student), _edge(arms.teacher)
    best, low = float(arms.teacher.max()), arms.teacher_floor
    fall = float(_parts(arms.floor(risk), ours)) - theirs
    rise = ours - float(_parts(low, theirs))
    gain = arms.teacher - arms.random
    return Estimate(
        a=_parts(arms.student, ours) - _parts(arms.teacher, theirs) + gain,
        b=gain,
        falls=np.array([(fall + best - chance, best - chance) for chance in arms.chances]),
        rises=np.array([(rise + low - chance, low - chance) for chance in arms.chances]),
        error=risk.error,
    )


def describe(arms: Arms, risk: Risk) -> Tail:
    """The worst episodes of both, and the tail with its interval."""
    defined = SHARE * len(arms.student) >= 1 and better_than_random(arms, risk)
    found = tail(arms, risk) if defined else None
    return Tail(
        n=len(arms.student),
        share=SHARE,
        worst=float(arms.student.min()),
        reference_worst=float(arms.teacher.min()),
        loss=float((arms.teacher - arms.student).max()),
        cvar=cvar(arms.student),
        reference_cvar=cvar(arms.teacher),
        tail=None if found is None else found.value,
        low=None if found is None else found.interval.low,
        high=None if found is None else found.interval.high,
    )
