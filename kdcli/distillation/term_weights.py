"""The weight of a term: on a schedule over time, or following what is measured of the student after each round."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kdcli.choice import Choice
from kdcli.distillation import CONTROLS
from kdcli.distillation.schedules import parse_schedule
from kdcli.errors import UsageError

# Progress in [0, 1] and what was measured last, by the names of CONTROLS -> a weight.
Weight = Callable[[float, Mapping[str, float]], float]


def parse_weight(text: str) -> Weight:
    """`0.7`, `linear:1->0`, or `agreement:1->0.1`, which goes from the first number at 0 to the last at 1.

    Raises:
        UsageError: unknown name, or not the numbers it needs.
    """
    name = Choice.parse(text).name
    if name not in CONTROLS.rows:
        schedule = parse_schedule(text)
        return lambda progress, measured: schedule(progress)
    try:
        first, last = (float(part) for part in Choice.parse(text).only().value.split("->"))
    except ValueError:
        why = "two numbers are joined by '->': at 0 and at 1"
        raise UsageError(f"cannot read the weight {text!r}", why, f"{name}:1->0") from None
    return lambda progress, measured: first + (last - first) * min(1.0, max(0.0, measured.get(name, 0.0)))


def follows(text: str, measured: str) -> bool:
    """Whether a weight, alone or as a term's `name@weight`, follows this row of CONTROLS."""
    return Choice.parse(text.rpartition("@")[2]).name == measured
