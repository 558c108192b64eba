"""Observations to compare on: of the agent's own play, or where it cannot be played, drawn from what is known."""

from __future__ import annotations

import numpy as np

from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.states import States
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.progress import Listener, Note, silent
from kdcli.rollouts.evaluate import collect_turns, open_vector
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import MASK, Box, Discrete, MultiDiscrete, Part, join_rows

N_SLOTS = 4


def gather(agent: Agent, n: int, seed: int, listener: Listener = silent) -> States:
    """`n` observations of the agent's play; drawn ones, and a note, where its env is not known or cannot be made."""
    try:
        return played(agent, n, seed)
    except UsageError as error:
        why = f"{error.what}{': ' if error.why else ''}{error.why}"
        listener(Note(f"the export is checked on drawn observations, not on the agent's own play: {why}"))
        return sampled(agent, n, seed)


def played(agent: Agent, n: int, seed: int) -> States:
    """`n` observations of the agent's deterministic play in its env; with memory, of whole episodes side by side.

    Raises:
        UsageError: the env is not known, cannot be made, or is not the agent's.
    """
    if agent.env is None:
        raise UsageError("the agent's env is not known", "", "name it with --env")
    vector = open_vector(agent.env, agent, min(n, N_SLOTS))
    try:
        return played_in(vector, agent, n, seed)
    finally:
        vector.close()


def played_in(vector: Vector, agent: Agent, n: int, seed: int) -> States:
    """As `played`, in envs that are there."""
    obs, begins = collect_turns(agent, vector, n, first_seed("screen", seed), whole=bool(agent.state_size))
    return States(obs, "rollout", len(vector), begins) if agent.state_size else States(obs[:n], "rollout")


def sampled(agent: Agent, n: int, seed: int) -> States:
    """`n` observations from the normalizers' means and scales where there are some, else from the space."""
    rng = np.random.default_rng(seed)
    columns = {name: _draw(part.space, _whole(part), n, rng) for name, part in agent.preprocess.parts.items()}
    if MASK in columns:
        columns[MASK] = _some_allowed(columns[MASK], agent)
    obs = join_rows(agent.observation, columns)
    # One episode for an agent with memory.
    return States(obs, "sampled")


def _whole(part: Preprocess) -> Normalizer | None:
    """The normalizer of all numbers of the part; those that are not read are drawn around 0."""
    norm, places = part.normalizer, part.places
    if norm is None or places is None:
        return norm
    mean, scale = np.zeros(part.space.shape), np.ones(part.space.shape)
    mean.reshape(-1)[places], scale.reshape(-1)[places] = norm.mean, norm.scale
    return Normalizer(mean, scale, norm.clip)


def _some_allowed(masks: np.ndarray, agent: Agent) -> np.ndarray:
    """Drawn masks (N, M) with at least one choice of each allowed, as an env's have: the first."""
    rule = agent.policy.rule
    sizes = (2,) * rule.n_outputs if rule.bits else rule.groups
    masks[:, np.cumsum((0, *sizes[:-1]))] = 1
    return masks


def _draw(space: Part, normalizer: Normalizer | None, n: int, rng: np.random.Generator) -> np.ndarray:
    match space:
        case Discrete():
            return rng.integers(space.start, space.start + space.n, n).astype(space.dtype)
        case MultiDiscrete():
            return rng.integers(0, space.nvec, (n, len(space.nvec))).astype(space.dtype)
        case Box():
            return _draw_box(space, normalizer, rng.standard_normal((n, *space.shape)))
    return rng.integers(0, 2, (n, *space.shape)).astype(space.dtype)


def _draw_box(space: Box, normalizer: Normalizer | None, normal: np.ndarray) -> np.ndarray:
    """Standard normal draws (N, *shape) moved to where the observations are, inside their bounds."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if normalizer is not None:
        mean, scale = normalizer.mean, normalizer.scale
    else:
        bounded = np.isfinite(high - low) & (high - low < 1e6)
        with np.errstate(invalid="ignore"):
            mean, scale = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 4, 1.0)
    return np.clip(mean + scale * normal, low, high).astype(space.dtype)
