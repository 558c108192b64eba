"""Schedules: progress 0 -> 1 to a number. Each is one line of arithmetic, chosen as `linear:1->0`."""

from __future__ import annotations

import math
from collections.abc import Callable

from kdcli.choice import Choice
from kdcli.distillation import SCHEDULES
from kdcli.errors import UsageError

Schedule = Callable[[float], float]


def constant(numbers: list[float]) -> Schedule:
    """The first number, always."""
    return lambda _: numbers[0]


def linear(numbers: list[float]) -> Schedule:
    """From the first number to the last in a straight line."""
    start, end = numbers[0], numbers[-1]
    return lambda p: start + (end - start) * p


def cosine(numbers: list[float]) -> Schedule:
    """From the first number to the last by half a cosine (Loshchilov & Hutter 2017, eq. 5)."""
    start, end = numbers[0], numbers[-1]
    return lambda p: end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * p))


def exponential(numbers: list[float]) -> Schedule:
    """From the first number to the last by a constant ratio.

    Raises:
        UsageError: a number is not positive.
    """
    start, end = numbers[0], numbers[-1]
    if start <= 0 or end <= 0:
        raise UsageError(f"exponential:{start}->{end} is undefined", "a ratio needs positive numbers", "use linear")
    return lambda p: start * (end / start) ** p


def steps(numbers: list[float]) -> Schedule:
    """Each number for an equal part of the time."""
    return lambda p: numbers[min(int(p * len(numbers)), len(numbers) - 1)]


def parse_schedule(text: str) -> Schedule:
    """`0.5`, `linear:1->0`, `steps:1->0.5->0.1` as a function of progress in [0, 1].

    Raises:
        UsageError: unknown name, or not finite numbers.
    """
    choice = Choice.parse(text)
    if not choice.value and choice.name not in SCHEDULES.rows:
        choice = Choice("constant", choice.name)
    make = SCHEDULES.load(choice.only().name)
    try:
        numbers = [float(part) for part in choice.value.split("->")]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"cannot read the schedule {text!r}", "numbers are joined by '->'", "e.g. linear:1->0, or 0.5")
    if len(numbers) == 1 and choice.name != "constant":
        raise UsageError(f"the schedule {text!r} has one number", "it goes from one to another", f"{choice.name}:1->0")
    return make(numbers)
