"""Which reset seeds are used for what, so that no student is judged on initial states it was chosen by."""

from __future__ import annotations

from typing import Literal

Purpose = Literal["bench", "select", "screen", "train", "reinforce", "evolve"]
_BASE: dict[Purpose, int] = {
    "bench": 10_000,
    "select": 500_000_000,
    "screen": 1_000_000_000,
    "train": 1_500_000_000,
    "reinforce": 2_000_000_000,
    "evolve": 250_000_000,
}
_STRIDE = 1_000_003


def first_seed(purpose: Purpose, seed: int) -> int:
    """The first of a run of consecutive reset seeds for `purpose` under the user's `seed`; below 2^31."""
    return (_BASE[purpose] + seed * _STRIDE) % (2**31 - 2**24)
