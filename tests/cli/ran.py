"""What a command line comes to, and a stream that is a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).parents[2]


class Ran(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True
