"""Several copies of an env stepped side by side, each episode with a seed of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdcli.envs.make import make, to_space
from kdcli.spec import Discrete, EnvSpec, MultiBinary, MultiDiscrete, Space

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_actions(space: Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` uniformly random actions (n, *shape); a dimension without bounds is drawn from a standard normal."""
    match space:
        case Discrete():
            return rng.integers(space.start, space.start + space.n, n).astype(space.dtype)
        case MultiDiscrete():
            return rng.integers(0, space.nvec, (n, len(space.nvec))).astype(space.dtype)
        case MultiBinary():
            return rng.integers(0, 2, (n, space.n)).astype(space.dtype)
    bounded = np.isfinite(space.low) & np.isfinite(space.high)
    low, high = np.where(bounded, space.low, 0.0), np.where(bounded, space.high, 0.0)
    draws = rng.uniform(low, high, (n, *space.shape))
    return np.where(bounded, draws, rng.standard_normal(draws.shape)).astype(space.dtype)


class Vector:
    """`n` slots, each an env. Only the slots named are stepped, so finished ones cost nothing.

    gymnasium's vector envs cannot give each episode its seed without stepping finished slots along.
    `obs` (n, *shape) holds what each slot observes now.
    """

    def __init__(self, spec: EnvSpec, n: int) -> None:
        self.spec = spec
        self._envs = [make(spec) for _ in range(n)]
        self.observation = to_space(self._envs[0].observation_space)
        self.action = to_space(self._envs[0].action_space)
        self.obs = np.zeros((n, *self.observation.shape), self.observation.dtype)
        # Box2D's walkers carry contacts of the last episode over a reset, so that their seed alone does not fix it.
        self._remembers = "box2d" in str(self._envs[0].spec and self._envs[0].spec.entry_point)
        self._as_int = isinstance(self.action, Discrete)

    def __len__(self) -> int:
        return len(self._envs)

    def reset(self, slot: int, seed: int) -> None:
        """Start an episode in `slot` from the initial state that `seed` gives."""
        if self._remembers:
            self._envs[slot].close()
            self._envs[slot] = make(self.spec)
        self.obs[slot] = self._envs[slot].reset(seed=seed)[0]

    def step(self, slots: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step slots with actions (b, *shape) -> reward, terminated, truncated, each (b,); updates `obs`."""
        reward = np.empty(len(slots))
        terminated, truncated = np.empty(len(slots), bool), np.empty(len(slots), bool)
        todo = actions.tolist() if self._as_int else actions
        for row, slot in enumerate(slots):
            obs, reward[row], terminated[row], truncated[row], _ = self._envs[slot].step(todo[row])
            self.obs[slot] = obs
        return reward, terminated, truncated

    def close(self) -> None:
        """Close every env."""
        for env in self._envs:
            env.close()
