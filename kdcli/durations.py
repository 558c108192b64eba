"""Lengths of time as people type them: `90s`, `5m`, `1h30m`; plain numbers are seconds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from kdcli.errors import UsageError

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"\d+(?:\.\d+)?"
_PIECE = re.compile(rf"({_NUMBER})(ms|[dhms])")


def parse_duration(text: str) -> float:
    """Seconds in `text`.

    Raises:
        UsageError: not a duration.
    """
    compact = text.strip().lower()
    if re.fullmatch(_NUMBER, compact):
        return float(compact)
    if not re.fullmatch(rf"(?:{_PIECE.pattern})+", compact):
        raise UsageError(
            f"cannot read the duration {text!r}", "it is not a number and a unit", "write 90s, 5m or 1h30m"
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in _PIECE.findall(compact))


def format_duration(seconds: float) -> str:
    """The short way to write `seconds`; the inverse of `parse_duration` for whole seconds."""
    if seconds < 60:
        return f"{seconds:.3g}s"
    left, text = round(seconds), ""
    for unit in "dhms":
        count, left = divmod(left, int(_SECONDS[unit]))
        text += f"{count}{unit}" if count else ""
    return text


def _to_seconds(value: Any) -> Any:
    # pydantic turns only a ValueError into an error that names the field.
    try:
        return parse_duration(value) if isinstance(value, str) else value
    except UsageError as error:
        raise ValueError(f"{error.why}; {error.fix}") from None


Duration = Annotated[
    float,
    BeforeValidator(_to_seconds),
    Field(ge=0, allow_inf_nan=False),
    WithJsonSchema({"type": "string", "format": "duration"}),
]
"""The type of a config's field that holds seconds and may be given as text."""
