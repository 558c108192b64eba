"""What a linear student may cost, so that the simplest of all students can be shown beside the others."""

from __future__ import annotations

from dataclasses import dataclass

from kdcli.agents.actor import Actor
from kdcli.benchmarks.returns import Seeds, play_one
from kdcli.envs.vector import Vector
from kdcli.rollouts.evaluate import N_SLOTS, seeds_from
from kdcli.rollouts.seeds import first_seed

ROUNDS = 6
# Of the time: labelling, measuring returns after each round, gradient steps; the rest is for the pilot.
_LABEL, _JUDGE = 0.25, 0.3
_UPDATES_A_SECOND = 300  # of the whole time: a linear student learns at thousands a second, so this is a fifth of it
_FEWEST_LABELS = 1_000


@dataclass(frozen=True)
class Throughput:
    """Measured on the teacher's own play: env steps a second, steps an episode, and the seconds this took."""

    steps: float
    length: float
    seconds: float


@dataclass(frozen=True)
class TrainingBudget:
    """Counts of a short distillation, named as its options are."""

    labels: int
    updates: int
    rounds: int
    episodes: int


def measure_throughput(teacher: Actor, vector: Vector, seed: int) -> Throughput:
    """Play one episode a slot."""
    played = play_one(teacher, vector, Seeds(seeds_from(first_seed("screen", seed), N_SLOTS), seed))
    lengths = played.episodes.lengths
    return Throughput(float(lengths.sum()) / played.seconds, float(lengths.mean()), played.seconds)


def affordable(throughput: Throughput, seconds: float) -> TrainingBudget | None:
    """What fits into `seconds`, the pilot included; None where it is too little to learn from."""
    left = seconds - throughput.seconds
    labels = int(min(20_000, _LABEL * left * throughput.steps))
    episodes = int(min(8, _JUDGE * left * throughput.steps / (ROUNDS * throughput.length)))
    if labels < _FEWEST_LABELS or episodes < 1:
        return None
    return TrainingBudget(labels, int(min(6_000, _UPDATES_A_SECOND * left)), ROUNDS, episodes)
