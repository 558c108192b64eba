"""How fast this machine is on this task, and what that allows within a budget."""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.distillation.config import DistillConfig

ROUNDS = 16
# Of a candidate's time: gradient steps, labelling, measuring its return after each round, and the screening.
_TRAIN, _LABEL, _JUDGE = 0.40, 0.25, 0.20
_SLACK = 1.15


@dataclass(frozen=True)
class Pace:
    """Measured speeds: env steps a second while an agent acts, gradient steps a second, steps an episode."""

    steps: float
    updates: float
    length: float

    def play(self, episodes: int) -> float:
        """Seconds to play so many episodes."""
        return _SLACK * episodes * self.length / self.steps

    def episodes(self, seconds: float) -> int:
        """Episodes that fit into so many seconds."""
        return int(seconds * self.steps / (_SLACK * self.length))


@dataclass(frozen=True)
class Lesson:
    """The counts of one candidate's training."""

    labels: int
    updates: int
    judged: int

    def config(self, student: str, loss: tuple[str, ...], seed: int) -> DistillConfig:
        """The distillation these counts stand for; all else is as in `kdcli distill`."""
        return DistillConfig(
            student=student,
            loss=loss,
            labels=self.labels,
            rounds=ROUNDS,
            updates=self.updates,
            episodes=self.judged,
            seed=seed,
        )


def plan(pace: Pace, seconds: float) -> Lesson:
    """What one candidate gets in `seconds`; counts, so that the same plan gives the same student again."""
    return Lesson(
        labels=_clamp(_LABEL * seconds * pace.steps, 4_000, 150_000),
        updates=_clamp(_TRAIN * seconds * pace.updates, 3_000, 120_000),
        judged=_clamp(_JUDGE * seconds * pace.steps / (ROUNDS * pace.length), 4, 24),
    )


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(max(value, low), high))
