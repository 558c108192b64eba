"""Real states for evidence and proof: the agent's own play, and play that strays from it."""

from __future__ import annotations

import numpy as np

from kdcli.agents.actor import Actor, env_of
from kdcli.agents.actor_wrapper import ActorWrapper
from kdcli.agents.states import States
from kdcli.envs.vector import Vector
from kdcli.rollouts.behavior_policy import perturb
from kdcli.rollouts.evaluate import collect_turns, open_vector
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import zeros

N_SLOTS = 8
NOISE = 0.3
_MOST_BYTES = 1 << 28


class PerturbedPlay(ActorWrapper):
    """An agent that acts as another one does, with noise: half-ranges of an action, or the share of random choices."""

    def __init__(self, agent: Actor, noise: float, seed: int) -> None:
        super().__init__(agent)
        self._noise, self._rng = noise, np.random.default_rng(seed)

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """As the agent acts, with noise."""
        return self._perturbed(self.agent.act(obs, rng), obs)

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As the agent steps, with noise."""
        actions, after = self.agent.step(obs, state, rng)
        return self._perturbed(actions, obs), after

    def _perturbed(self, actions: np.ndarray, obs: np.ndarray) -> np.ndarray:
        return perturb(actions, self.action, obs, self._noise, self._rng)


def real_states(agent: Actor, n: int, seed: int, noise: float = NOISE) -> States:
    """About `n` states of its env: half of its own deterministic play, half where noise leads it astray.

    Of large observations they are fewer, at most 256 MB.

    Raises:
        UsageError: the env is not known, cannot be made, or is not the agent's.
    """
    env = env_of(agent)
    n = max(N_SLOTS, min(n, _MOST_BYTES // zeros(agent.observation).nbytes))
    vector = open_vector(env, agent, N_SLOTS)
    first = first_seed("train", seed)
    try:
        own = _played(agent, vector, n // 2, first)
        return together(own, _played(PerturbedPlay(agent, noise, seed), vector, n - n // 2, first + 1_000))
    finally:
        vector.close()


def _played(agent: Actor, vector: Vector, n: int, first: int) -> States:
    obs, begins = collect_turns(agent, vector, n, first)
    return States(obs, "rollout", len(vector), begins)


def together(one: States, other: States) -> States:
    """The states of both, which have as many slots."""
    assert one.begins is not None
    assert other.begins is not None
    obs = np.concatenate([one.observations, other.observations])
    return States(obs, one.source, one.slots, np.concatenate([one.begins, other.begins]))
