"""Whether an episode is lost: its rewards have long been worse than they ever were while the teacher acted."""

from __future__ import annotations

import numpy as np

STRETCH = 100  # steps


class Lost:
    """Looks at the last `STRETCH` steps of the episode in each slot; shorter episodes are never lost.

    While it is `learning` it takes the worst stretch it sees for the least that is right.
    """

    def __init__(self, slots: int) -> None:
        self.learning, self.worst = True, np.inf
        self._rewards = np.zeros((slots, STRETCH))

    def __call__(self, slots: np.ndarray, t: np.ndarray, reward: np.ndarray) -> np.ndarray:
        """Rewards (b,) that slots (b,) had for steps t (b,) of their episodes -> which of these are lost (b,)."""
        self._rewards[slots, t % STRETCH] = reward
        stretch = np.where(t + 1 >= STRETCH, self._rewards[slots].sum(1), np.inf)
        if not self.learning:
            return stretch < self.worst if np.isfinite(self.worst) else np.zeros(len(slots), bool)
        self.worst = min(self.worst, float(stretch.min()))
        return np.zeros(len(slots), bool)
