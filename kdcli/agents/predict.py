"""`predict` as in Stable-Baselines3, so that an agent drops into code written for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kdcli.spec import Dict, Space, join_rows, parts

if TYPE_CHECKING:
    from kdcli.agents.actor import Actor

Observation = np.ndarray | Mapping[str, np.ndarray]


def predict(
    agent: Actor,
    observation: Observation,
    state: np.ndarray | None = None,
    episode_start: np.ndarray | None = None,
    deterministic: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Actions for one raw observation `shape`, or a batch (B, *shape), and the next state.

    The signature and the return values are those of `stable_baselines3.common.base_class.BaseAlgorithm.predict`.

    Args:
        observation: As the env gives it; a Dict of arrays for Dict spaces.
        state: Of an agent with memory, (B, S); None begins an episode.
        episode_start: (B,), true where an episode begins; the state is reset there.
        deterministic: The mode of the policy, instead of a draw from NumPy's global generator.

    Returns:
        Actions (B, *action shape), without B for one observation; and the next state, None without memory.
    """
    rows, alone = _batched(agent.observation, observation)
    rng = None if deterministic else np.random.default_rng(np.random.randint(2**31))
    if not agent.state_size:
        actions = agent.act(rows, rng)
        return (actions[0] if alone else actions), state
    before = np.zeros((len(rows), agent.state_size), np.float32) if state is None else np.array(state)
    if episode_start is not None:
        before[np.asarray(episode_start, bool).reshape(-1)] = 0
    actions, after = agent.step(rows, before, rng)
    return (actions[0] if alone else actions), after


def _batched(space: Space, observation: Observation) -> tuple[np.ndarray, bool]:
    """Observations (B, *shape), and whether there was only one, without B."""
    columns: dict[str, Any] = dict(observation) if isinstance(observation, Mapping) else {"obs": observation}
    kinds = parts(space) if isinstance(space, Dict) else {"obs": space}
    arrays = {name: np.asarray(columns[name]) for name in kinds}
    alone = all(arrays[name].ndim == len(part.shape) for name, part in kinds.items())
    if alone:
        arrays = {name: array[None] for name, array in arrays.items()}
    return join_rows(space, arrays) if isinstance(space, Dict) else arrays["obs"], alone
