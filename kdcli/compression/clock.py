"""A time budget and what has been spent of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """`budget` seconds from the moment it is made."""

    budget: float
    _start: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds until the budget is spent; negative afterwards."""
        return self.budget - self.spent
