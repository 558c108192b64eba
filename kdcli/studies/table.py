"""Cells -> means over seeds, differences to the base, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import numpy as np

from kdcli.benchmarks.statistics import student_t
from kdcli.spec import Json
from kdcli.studies.config import BASE

Mark = Literal["best", "better", "worse", ""]
# Of one teacher: variant -> seed -> its record.
Records = Mapping[str, Mapping[int, Json]]


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds; its t interval `low` to `high` is None for a single one."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One variant of one teacher.

    `score`: over seeds; a student whose training failed counts as random play, 0. `difference`: of the same seeds'
    scores from the base's. Both are None where no cell is done, and `reason` says why if the variant does not apply.
    """

    variant: str
    score: Estimate | None
    difference: Estimate | None
    mark: Mark
    failed: int
    agreement: float | None
    params: int | None
    labels: int | None
    updates: int | None
    seconds: float | None
    reason: str


def estimate(values: Sequence[float], confidence: float) -> Estimate | None:
    """The mean of one number a seed with Student's t interval; None without numbers."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, None, 1)
    x = np.asarray(values, np.float64)
    interval = student_t(float(x.mean()), float(x.std(ddof=1)), len(x), confidence)
    return Estimate(float(x.mean()), interval.low, interval.high, len(x))


def scores(records: Mapping[int, Json]) -> dict[int, float]:
    """Seed -> score of the cells of one variant that apply."""
    found = {seed: record.get("score", 0.0) for seed, record in records.items()}
    return {seed: score for seed, score in found.items() if records[seed]["status"] != "not applicable"}


def gains(records: Records, variant: str) -> dict[int, float]:
    """Seed -> how much the variant's score is above the base's with the same seed."""
    ours, base = scores(records.get(variant, {})), scores(records.get(BASE, {}))
    return {seed: ours[seed] - base[seed] for seed in sorted(ours.keys() & base.keys())}


def rows(records: Records, variants: Sequence[str], confidence: float) -> list[Row]:
    """A row a variant, in their order."""
    differences = {name: estimate(list(gains(records, name).values()), confidence) for name in variants if name != BASE}
    marks = _marks(differences)
    return [
        _row(name, records.get(name, {}), differences.get(name), marks.get(name, ""), confidence) for name in variants
    ]


def _row(name: str, records: Mapping[int, Json], difference: Estimate | None, mark: Mark, confidence: float) -> Row:
    done = [record for record in records.values() if record["status"] == "done"]
    reasons = [record["reason"] for record in records.values() if record["status"] == "not applicable"]
    first = done[0] if done else {}
    return Row(
        variant=name,
        score=estimate(list(scores(records).values()), confidence),
        difference=difference,
        mark=mark,
        failed=sum(record["status"] == "failed" for record in records.values()),
        agreement=mean(record["agreement"] for record in done) if done else None,
        params=first.get("params"),
        labels=first.get("labels"),
        updates=first.get("updates"),
        seconds=mean(record["seconds"] for record in done) if done else None,
        reason="; ".join(reasons[0]) if reasons else "",
    )


def _marks(differences: Mapping[str, Estimate | None]) -> dict[str, Mark]:
    """What is shown to differ from the base: the interval of its difference does not hold 0."""
    shown: dict[str, Mark] = {}
    for name, found in differences.items():
        if found is not None and found.low is not None and found.high is not None and not found.low <= 0 <= found.high:
            shown[name] = "better" if found.low > 0 else "worse"
    better = {name: found.mean for name, found in differences.items() if found and shown.get(name) == "better"}
    if better:
        shown[max(better, key=better.__getitem__)] = "best"
    return shown


@dataclass(frozen=True)
class Overall:
    """One variant over all teachers it applies to: the mean over them of a seed's differences, and over seeds."""

    variant: str
    difference: Estimate | None
    teachers: int
    mark: Mark


def overall(teachers: Sequence[Records], variants: Sequence[str], confidence: float) -> list[Overall]:
    """A row a variant but the base. The interval is that of other seeds with these teachers, not of other teachers."""
    found: dict[str, tuple[Estimate | None, int]] = {}
    for name in variants:
        if name != BASE:
            each = [gain for records in teachers if (gain := gains(records, name))]
            seeds = set.intersection(*(set(gain) for gain in each)) if each else set()
            means = [mean(gain[seed] for gain in each) for seed in sorted(seeds)]
            found[name] = estimate(means, confidence), len(each)
    marks = _marks({name: difference for name, (difference, _) in found.items()})
    return [Overall(name, difference, n, marks.get(name, "")) for name, (difference, n) in found.items()]
