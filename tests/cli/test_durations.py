"""Lengths of time as people type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdcli.durations import format_duration, parse_duration
from kdcli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("90", 90),
        ("0.5h", 1800),
        (" 250ms ", 0.25),
        ("1M", 60),
    ],
)
def test_what_people_type(text: str, seconds: float) -> None:
    """Law: a number and a unit, pieces add up, a plain number is seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "5x", "-5m", "5 m", "1e3s", "inf", "nan", "5m and", "1.2.3s"])
def test_anything_else_is_refused(text: str) -> None:
    """Law: no guessing; the error says how to write it."""
    with pytest.raises(UsageError, match="cannot read the duration") as caught:
        parse_duration(text)
    assert "1h30m" in caught.value.fix


@given(st.integers(0, 10**7))
def test_formatting_is_the_inverse(seconds: int) -> None:
    """Law: what is written can be read back, to the second."""
    assert parse_duration(format_duration(seconds)) == seconds
