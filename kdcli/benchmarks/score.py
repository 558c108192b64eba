"""The score: the share of a teacher's advantage over a random policy that a student keeps, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdcli.benchmarks.betting import STAKES, Estimate, log_fortune, log_gains
from kdcli.benchmarks.statistics import ROUNDING, check_confidence, checked, unseen_share
from kdcli.errors import UsageError


@dataclass(frozen=True)
class Risk:
    """How sure an interval is to be, and what it is to allow for.

    Attributes:
        confidence: that the interval covers the true value at all looks at once; each end has half of the rest.
        share: of that rest, for this comparison: where several are made and the best is taken, theirs add up to 1.
        floor: the lowest return an episode can have, where it is known; None: the lowest of random play.

    Raises:
        UsageError: a number is out of its range.
    """

    confidence: float = 0.95
    share: float = 1.0
    floor: float | None = None

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0 < self.share <= 1:
            raise UsageError(f"share {self.share:g} of the error", "it is more than 0 and at most 1", "1 is usual")
        if self.floor is not None and not math.isfinite(self.floor):
            raise UsageError(f"floor {self.floor} is no return", "it is the lowest one possible", "leave it out")

    @property
    def error(self) -> float:
        """The probability with which either end of an interval may ever be wrong."""
        return self.share * (1 - self.confidence) / 2

    def unseen(self, n: int) -> float:
        """The greatest share of falls that n episodes without one leave possible: 4.3 % for 100 at 95 %."""
        return unseen_share(n, 1 - 2 * self.error * float(STAKES[0]))


@dataclass(frozen=True, eq=False)
class Arms:
    """Returns (n,) of student, teacher and random policy; element i of all three began in the same state.

    Raises:
        UsageError: lengths differ, or a return is not finite.
    """

    student: np.ndarray
    teacher: np.ndarray
    random: np.ndarray

    def __post_init__(self) -> None:
        for name in ("student", "teacher", "random"):
            object.__setattr__(self, name, checked(getattr(self, name), f"{name} returns"))
        if len({len(self.student), len(self.teacher), len(self.random)}) > 1:
            why = (
                f"student, teacher and random have {len(self.student)}, {len(self.teacher)}, {len(self.random)} returns"
            )
            raise UsageError("returns must be paired, one for each seed", why, "run all three on the same seeds")

    def floor(self, risk: Risk) -> float:
        """The return of the worst fall that is allowed for: the known one, or random play's lowest, or one seen."""
        known = float(self.random.min()) if risk.floor is None else risk.floor
        return min(known, float(self.student.min()), float(self.teacher.min()))

    @property
    def teacher_floor(self) -> float:
        """The return of the worst fall of the teacher that is allowed for: the random policy's mean, or one seen."""
        return min(float(self.random.mean()), float(self.teacher.min()))

    @property
    def chances(self) -> tuple[float, float]:
        """The lowest and the highest return of random play."""
        return float(self.random.min()), float(self.random.max())


def better_than_random(arms: Arms, risk: Risk) -> bool:
    """Whether the teacher's mean return is shown to be above the random policy's, at `risk`, at all looks at once."""
    gain = arms.teacher - arms.random
    scale = max(float(np.abs(arms.teacher).max()), float(np.abs(arms.random).max()))
    if float(gain.mean()) <= ROUNDING * scale:
        return False
    return log_fortune(log_gains(gain, arms.teacher_floor - arms.chances[1])) >= math.log(1 / risk.error)


def score(arms: Arms, risk: Risk) -> Estimate:
    """(R - R_random) / (R_teacher - R_random) for a teacher that is better than random.

    An unseen episode could be one in which the student falls to `Arms.floor` where the teacher does its best; or one in
    which the teacher falls to `Arms.teacher_floor` where the student does as well as either ever did.
    """
    best, low = float(arms.teacher.max()), arms.teacher_floor
    top = max(best, float(arms.student.max()))
    return Estimate(
        a=arms.student - arms.random,
        b=arms.teacher - arms.random,
        falls=np.array([(arms.floor(risk) - chance, best - chance) for chance in arms.chances]),
        rises=np.array([(top - chance, low - chance) for chance in arms.chances]),
        error=risk.error,
    )
