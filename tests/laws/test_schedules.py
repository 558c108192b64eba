"""Laws of every schedule in the table."""

from __future__ import annotations

import pytest

from kdcli.distillation import SCHEDULES
from kdcli.distillation.schedules import parse_schedule
from kdcli.errors import UsageError

MOVING = [name for name in SCHEDULES.names() if name != "constant"]


@pytest.mark.parametrize("name", MOVING)
def test_schedules_hit_their_ends(name: str) -> None:
    """Law: progress 0 gives the first number, progress 1 the last."""
    schedule = parse_schedule(f"{name}:4->0.5")
    assert schedule(0.0) == pytest.approx(4.0)
    assert schedule(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("ends", [(4.0, 0.5), (0.1, 3.0)])
def test_schedules_are_monotone(name: str, ends: tuple[float, float]) -> None:
    """Law: between its ends a schedule never turns back, and stays between them."""
    schedule = parse_schedule(f"{name}:{ends[0]}->{ends[1]}")
    values = [schedule(i / 50) for i in range(51)]
    assert values == sorted(values, reverse=ends[0] > ends[1])
    assert min(ends) - 1e-9 <= min(values) <= max(values) <= max(ends) + 1e-9


def test_shapes_at_half_way() -> None:
    """Law: the names mean what they say: half-way values of each."""
    half = {name: parse_schedule(f"{name}:4->1")(0.5) for name in MOVING}
    assert half == pytest.approx({"linear": 2.5, "cosine": 2.5, "exponential": 2.0, "steps": 1.0})
    assert parse_schedule("cosine:1->0")(0.1) == pytest.approx(0.97553, abs=1e-5)
    assert [parse_schedule("steps:3->2->1")(p) for p in (0.0, 0.4, 0.7)] == [3, 2, 1]
    assert parse_schedule("0.25")(0.7) == parse_schedule("constant:0.25")(0.1) == 0.25


@pytest.mark.parametrize(
    "text",
    ["", "linear", "linear:1", "linear:a->b", "cosin:1->0", "linear:1->nan", "exponential:1->0", "linear:1->0,x=1"],
)
def test_bad_schedules_are_refused(text: str) -> None:
    """Law: what cannot be read is a usage error, never a default."""
    with pytest.raises(UsageError):
        parse_schedule(text)


def test_the_nearest_name_is_suggested() -> None:
    """Law: a misspelt name gets the nearest one suggested."""
    with pytest.raises(UsageError) as error:
        parse_schedule("cosin:1->0")
    assert "cosine" in error.value.fix
