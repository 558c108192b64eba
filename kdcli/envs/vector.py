"""Several copies of an env stepped side by side, each episode with a seed of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdcli.envs.make import make, to_action, to_space
from kdcli.spec import Dict, EnvSpec

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray]


class Vector:
    """`n` slots, each an env. Only the slots named are stepped, so finished ones cost nothing.

    gymnasium's vector envs cannot give each episode its seed without stepping finished slots along.
    `obs` (n, *shape) holds what each slot observes now; of a Dict it is structured, (n,) with a field a part.
    """

    def __init__(self, spec: EnvSpec, n: int) -> None:
        self.spec = spec
        self._envs = [make(spec) for _ in range(n)]
        self.observation = to_space(self._envs[0].observation_space)
        self.action = to_action(self._envs[0].action_space)
        self.obs = np.zeros((n, *self.observation.shape), self.observation.dtype)
        columns = {name: self.obs[name] for name in self.obs.dtype.names or ()}
        self._rows = _Rows(columns) if isinstance(self.observation, Dict) else self.obs
        self._renewed = _remembers(self._envs[0].spec)

    def __len__(self) -> int:
        return len(self._envs)

    def reset(self, slot: int, seed: int) -> None:
        """Start an episode in `slot` from the initial state that `seed` gives."""
        if self._renewed:
            self._envs[slot].close()
            self._envs[slot] = make(self.spec)
        self._rows[slot] = self._envs[slot].reset(seed=seed)[0]

    def step(self, slots: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step slots with actions (b, *shape) -> reward, terminated, truncated, each (b,); updates `obs`.

        An env is handed its row as it is, a choice as NumPy's integer: so do the libraries that agents come from.
        """
        reward = np.empty(len(slots))
        terminated, truncated = np.empty(len(slots), bool), np.empty(len(slots), bool)
        for row, slot in enumerate(slots):
            obs, reward[row], terminated[row], truncated[row], _ = self._envs[slot].step(actions[row])
            self._rows[slot] = obs
        return reward, terminated, truncated

    def close(self) -> None:
        """Close every env."""
        for env in self._envs:
            env.close()


class _Rows:
    """Rows of a structured array, set from a mapping with a value a field."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = list(columns.items())

    def __setitem__(self, row: int, values: Mapping[str, Any]) -> None:
        for name, column in self._columns:
            column[row] = values[name]


def _remembers(known: Any) -> bool:
    """Whether episodes depend on those before, so that a seed alone does not fix them.

    Box2D's walkers carry contacts over a reset, MinAtar the action that may stick.
    """
    return known is not None and any(name in str(known.entry_point) for name in ("box2d", "minatar"))
