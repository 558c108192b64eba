"""The score: the share of a teacher's advantage over a random policy that a student keeps, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.benchmarks.statistics import ROUNDING, Interval, bca, flat, student_t, unseen_share


@dataclass(frozen=True)
class Score:
    """`value` = (R - R_random) / (R_teacher - R_random) over `n` paired episodes, with its interval.

    `bca` and `t` are the two sampling intervals at n episodes; `spread` is the standard deviation of one episode's
    part in the value; `floor` <= 0 is the score of an episode in which the student falls.
    """

    n: int
    value: float
    bca: Interval
    t: Interval
    spread: float
    floor: float
    confidence: float

    def sampling(self, n: int) -> Interval:
        """The interval of what was seen, spanning BCa and t, as it would be after n such episodes."""
        seen, shrink = self.bca.span(self.t), (self.n / n) ** 0.5
        return Interval(self.value - shrink * (self.value - seen.low), self.value + shrink * (seen.high - self.value))

    def zero_failure(self, n: int) -> Interval:
        """The interval of what was not seen: a share p of the episodes in which one of the two agents falls.

        Below, the student falls to `floor` while the teacher does as ever. Above, the teacher falls to the random
        level while the student does as well as the better of the two.
        """
        p = unseen_share(n, self.confidence)
        return Interval((1 - p) * self.value + p * self.floor, self.value + p / (1 - p) * max(self.value, 1.0))

    def interval(self, n: int) -> Interval:
        """The interval after n such episodes: it contains the sampling and the zero-failure interval, and `value`."""
        return self.sampling(n).span(self.zero_failure(n))


def _scale(*returns: np.ndarray) -> float:
    """The size of the numbers at hand, beside which a difference may be rounding."""
    return max(float(np.abs(array).max()) for array in returns)


def better_than_random(teacher: np.ndarray, random: np.ndarray, confidence: float) -> bool:
    """Whether the BCa interval of the mean of teacher - random, paired (n,) each, lies above 0."""
    gain, scale = teacher - random, _scale(teacher, random)
    if float(gain.mean()) <= ROUNDING * scale:
        return False
    return flat(gain, scale) or bca(np.mean, (gain,), confidence).low > 0


def measure(student: np.ndarray, teacher: np.ndarray, random: np.ndarray, confidence: float) -> Score:
    """The score from returns (n,) on the same n initial states, of a teacher that is better than random.

    The ratio of mean gains over random is resampled in pairs. That the score is at least m is the same as that
    d = student - m teacher - (1 - m) random has a mean of at least 0, so the interval of the ratio is (but for the
    bootstrap's second-order corrections) the set of m for which a test of E[d] = 0 does not reject.
    """
    a, b = student - random, teacher - random
    gain = float(b.mean())
    value = float(a.mean()) / gain
    rest = (a - value * b) / gain  # first-order part of each episode in the ratio: mean 0
    fall = min(float(random.mean()), float(student.min()), float(teacher.min()))
    constant = flat(rest, _scale(student, teacher, random) / gain)
    spread = 0.0 if constant else float(rest.std(ddof=1))
    point = Interval(value, value)

    def ratio(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        # A rare resample in which the teacher is not better than random says "far above" or "far below", no more.
        # Rounded, since BCa counts resamples equal to the value, and sums of the same terms differ in the last bit.
        return np.round(a.mean(axis) / np.maximum(b.mean(axis), 1e-3 * gain), 12)

    return Score(
        n=len(a),
        value=value,
        bca=point if constant else bca(ratio, (a, b), confidence),
        t=point if constant else student_t(value, spread, len(a), confidence),
        spread=spread,
        floor=(fall - float(random.mean())) / gain,
        confidence=confidence,
    )
