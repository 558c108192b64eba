"""What a score is measured against: the teacher's and a random policy's returns on the same initial states."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.evaluate import play


@dataclass(frozen=True)
class BaselineReturns:
    """Returns (n,) of teacher and random play on `seeds`, what playing costs, and whether the env tells success."""

    seeds: range
    teacher: np.ndarray
    random: np.ndarray
    steps_per_second: float
    mean_length: float
    tells_success: bool = False


def extended(reference: BaselineReturns, teacher: Actor, vector: Vector, seeds: range) -> BaselineReturns:
    """The same on `seeds`, which begin with those that were played."""
    further = seeds[len(reference.seeds) :]
    teachers, chance = (play(agent, vector, further).returns for agent in (teacher, None))
    return replace(
        reference,
        seeds=seeds,
        teacher=np.concatenate([reference.teacher, teachers]),
        random=np.concatenate([reference.random, chance]),
    )


def measure(teacher: Actor, vector: Vector, seeds: range, seconds: float) -> BaselineReturns:
    """Play teacher and random policy on as many of the seeds as `seconds` allow, at least one a slot.

    Raises:
        UsageError: the teacher is not better than random play.
    """
    pilot = seeds[: len(vector)]
    begin = time.perf_counter()
    first = play(teacher, vector, pilot)
    taken = time.perf_counter() - begin
    allowed = len(pilot) * max(1, int(seconds / (2 * taken)))
    rest = seeds[len(pilot) : allowed]
    returns = [first.returns] + ([play(teacher, vector, rest).returns] if rest else [])
    used = seeds[: len(pilot) + len(rest)]
    chance = play(None, vector, used)
    found = BaselineReturns(
        seeds=used,
        teacher=np.concatenate(returns),
        random=chance.returns,
        steps_per_second=float(first.lengths.sum() / taken),
        mean_length=float(first.lengths.mean()),
        tells_success=bool(np.isfinite(first.success).all()),
    )
    _check(found, vector)
    return found


def _check(reference: BaselineReturns, vector: Vector) -> None:
    teacher, chance = reference.teacher.mean(), reference.random.mean()
    if teacher <= chance:
        raise UsageError(
            f"the teacher returns {teacher:.1f} on {vector.spec}, random play {chance:.1f}",
            "there is nothing to hold: a wrong env, a missing normalizer (--vecnormalize), or an untrained agent",
            "name the env and the wrappers it was trained in: --env, --wrapper; kdcli bench shows how it plays",
        )
