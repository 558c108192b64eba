"""Whole units go: the least important first, until the agent is as small as asked."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from kdcli.agents.agent import Agent
from kdcli.errors import UsageError, option
from kdcli.pruning.unit_stats import UnitStats

Measure = Callable[[Agent], float]
Allocation = Literal["uniform", "global"]


class TooSmallError(UsageError):
    """No units are left to go, and the network is still larger than asked."""


def order(unit_stats: UnitStats, scores: np.ndarray, allocation: Allocation, comparable: bool) -> list[int]:
    """Hidden units in the order in which they go; the most important of each layer stays.

    uniform: from every layer the same share. global: by score; those that do not compare between layers (`comparable`
    false) are divided by their layer's mean.
    """
    keys, body = list[tuple[float, int]](), unit_stats.body
    for group in body.groups:
        units = np.array(sorted(set(group.units) - body.fixed), int)
        ranked = units[np.argsort(scores[units], kind="stable")]
        scale = 1.0 if comparable else max(float(np.abs(scores[list(group.units)]).mean()), 1e-30)
        shares = np.arange(1, len(ranked) + 1) / len(ranked)
        key = shares if allocation == "uniform" else scores[ranked] / scale
        keys += list(zip(key[:-1].tolist(), ranked[:-1].tolist(), strict=True))
    return [unit for _, unit in sorted(keys)]


def shrink(unit_stats: UnitStats, going: list[int], measure: Measure, size: float) -> Agent:
    """The agent without the first of `going`, as few as bring `measure` to at most `size`.

    Raises:
        TooSmallError: one unit in each layer is still more than that.
    """
    if measure(unit_stats.given) <= size:
        return unit_stats.given
    least = unit_stats.kept(going)
    if measure(least) > size:
        why = f"one unit in each layer comes to {measure(least):,.0f}"
        fix = f"ask for {math.ceil(measure(least))} or more in {option('to')}, or distill another network"
        raise TooSmallError(f"this network cannot come to {size:,.0f}", why, fix)
    low, high, best = 0, len(going), least
    while high - low > 1:
        middle = (low + high) // 2
        found = unit_stats.kept(going[:middle])
        if measure(found) <= size:
            high, best = middle, found
        else:
            low = middle
    return best
