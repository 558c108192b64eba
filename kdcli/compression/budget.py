"""How fast this machine is on this task, and what that allows within a budget."""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.distillation.config import DistillConfig

_ROUNDS, _FEWEST_ROUNDS, _JUDGED = 16, 4, 4
_LABELS, _UPDATES = 4_000, 3_000
# What a student gets at least, however short the time is, may take so many seconds: images and long episodes take more.
_CHEAP = 30.0
# Of a candidate's time: gradient steps, labelling, measuring its return after each round, and the screening.
_TRAIN, _LABEL, _JUDGE = 0.40, 0.25, 0.20
_SLACK = 1.15


@dataclass(frozen=True)
class Throughput:
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
class TrainingBudget:
    """The counts of one candidate's training."""

    labels: int
    updates: int
    rounds: int
    judged: int

    def config(self, student: str, loss: tuple[str, ...], seed: int) -> DistillConfig:
        """The distillation these counts stand for; all else is as in `kdcli distill`."""
        return DistillConfig(
            student=student,
            loss=loss,
            labels=self.labels,
            rounds=self.rounds,
            updates=self.updates,
            episodes=self.judged,
            seed=seed,
        )


def plan(throughput: Throughput, seconds: float) -> TrainingBudget:
    """What one candidate gets in `seconds`; counts, so that the same plan gives the same student again."""
    episodes, cheap = (time * throughput.steps / throughput.length for time in (_JUDGE * seconds, _CHEAP))
    rounds = _clamp(max(episodes, cheap) / _JUDGED, _FEWEST_ROUNDS, _ROUNDS)
    return TrainingBudget(
        labels=_clamp(_LABEL * seconds * throughput.steps, min(_LABELS, _CHEAP * throughput.steps), 150_000),
        updates=_clamp(_TRAIN * seconds * throughput.updates, min(_UPDATES, _CHEAP * throughput.updates), 120_000),
        rounds=rounds,
        judged=_clamp(episodes / rounds, min(_JUDGED, max(1, cheap / rounds)), 24),
    )


def _clamp(value: float, low: float, high: float) -> int:
    return int(min(max(value, low), high))
