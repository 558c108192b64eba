"""Whether a written file acts as the agent does: measured on the bytes that will be the file.

Two programs that add float32 numbers in another order differ by rounding. Where observations are large, as they are
without a normalizer, that can be more than a fixed tolerance; then the agent's own rounding is measured, against the
same weights in float64, and what is allowed follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.policy import Policy
from kdcli.agents.runtime import start
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import Box, MultiBinary, MultiDiscrete, Space

TOLERANCE = 1e-5
TIE = 1e-6
ROUNDINGS = 4
MOST = 1e-2
BATCH = 256
SINGLES = 32

Source = Literal["given", "rollout", "sampled"]


@dataclass(frozen=True, eq=False)
class States:
    """Raw observations (N, *shape): from the agent's own play (`rollout`), drawn (`sampled`), or the caller's."""

    observations: np.ndarray
    source: Source = "given"

    def __len__(self) -> int:
        return len(self.observations)


@dataclass(frozen=True)
class Parity:
    """How alike file and agent act on `n_states` states from `source`.

    Attributes:
        max_abs_difference: the largest of any real output, in units of max(1, half the action's range); for an output
            without bounds, of max(1, the state's largest output).
        tolerance: the difference allowed: 1e-5, or four times the agent's own rounding error where that is needed.
        ties: states in which file and agent choose otherwise, the agent's best two being equal up to 1e-6, or up to
            `tolerance` where it is not 1e-5.
    """

    n_states: int
    source: str
    max_abs_difference: float
    tolerance: float
    ties: int

    def to_json(self) -> dict[str, Any]:
        """JSON values for the file's record."""
        return asdict(self)


def check(data: bytes, agent: Agent, states: States) -> Parity:
    """Run the file in `data` and the agent on the same states, some alone and the others in batches.

    Raises:
        UsageError: there are no states, or not such as the agent observes.
        RefusedError: the file acts otherwise.
    """
    _check_states(states.observations, agent.observation)
    obs, tolerance = states.observations.astype(agent.observation.dtype, copy=False), TOLERANCE
    gap = _total(_gaps(data, agent, obs, tolerance))
    if gap.wrong:
        tolerance = _tolerance(agent, obs)
        gap = _total(_gaps(data, agent, obs, tolerance))
    if gap.wrong:
        most = f"the largest difference is {gap.worst:.3g}, allowed is {tolerance:.3g}"
        why = f"in {gap.wrong} of {len(obs)} states; {most}"
        fix = "nothing was written; try another --opset, and report it"
        raise RefusedError("the exported file does not act like the agent", why, fix)
    return Parity(len(obs), states.source, gap.worst, tolerance, gap.ties)


def _check_states(obs: np.ndarray, space: Space) -> None:
    if len(obs) == 0 or obs.shape[1:] != space.shape:
        why = f"they are an array {obs.shape}, the agent observes {space}"
        raise UsageError("file and agent cannot be compared on these states", why, "give raw observations (N, *shape)")


@dataclass(frozen=True)
class _Gap:
    """Of a batch or all: the largest difference, states that differ too much, and those that differ in a tie."""

    worst: float
    wrong: int
    ties: int


def _total(gaps: Iterable[_Gap]) -> _Gap:
    found = list(gaps)
    worst = float(np.max([gap.worst for gap in found]))
    return _Gap(worst, sum(gap.wrong for gap in found), sum(gap.ties for gap in found))


def _gaps(data: bytes, agent: Agent, observations: np.ndarray, tolerance: float) -> Iterator[_Gap]:
    session = start(data, "the exported file")
    names = [output.name for output in session.get_outputs()]
    for obs in _batches(observations):
        yield _gap(dict(zip(names, session.run(None, {"obs": obs}), strict=True)), agent, obs, tolerance)


def _batches(obs: np.ndarray) -> Iterable[np.ndarray]:
    """The first states alone, the others in batches; each once."""
    alone = min(SINGLES, len(obs) // 2)
    starts = [*range(alone), *range(alone, len(obs), BATCH)]
    return (obs[a:b] for a, b in zip(starts, [*starts[1:], len(obs)], strict=True))


def _gap(found: dict[str, np.ndarray], agent: Agent, obs: np.ndarray, tolerance: float) -> _Gap:
    """Compare the file's outputs with the agent's on one batch (B, *shape)."""
    heads = {name: tensor.numpy() for name, tensor in agent.heads(obs).present().items()}
    action, wanted = found.pop("action"), agent.act(obs)
    differences = [np.zeros(len(obs)), *(_difference(array, heads[name]) for name, array in found.items())]
    wrong = tied = np.zeros(len(obs), bool)
    if isinstance(agent.action, Box):
        differences.append(_difference(action, wanted, _half_range(agent.action)))
    else:
        other = (action != wanted).reshape(len(obs), -1)
        close = _is_close(heads[agent.policy.signal], agent.action, TIE if tolerance == TOLERANCE else tolerance)
        wrong, tied = (other & ~close).any(1), (other & close).any(1)
    worst = np.max(differences, axis=0)
    # Not "above": a nan is not within the tolerance either.
    wrong = wrong | ~(worst <= tolerance)
    return _Gap(float(worst.max()), int(wrong.sum()), int((tied & ~wrong).sum()))


@torch.inference_mode()
def _tolerance(agent: Agent, observations: np.ndarray) -> float:
    """Four times the agent's own largest rounding error, at least 1e-5 and at most 1e-2."""
    exact = deepcopy(agent.policy).double()
    errors = [0.0]
    for obs in _batches(observations):
        features = agent.preprocess(obs)
        errors += _errors(agent.policy(features), exact(features.double()), agent.policy)
    return min(max(TOLERANCE, ROUNDINGS * float(np.fmax.reduce(errors))), MOST)


def _errors(rounded: Heads, exact: Heads, policy: Policy) -> list[float]:
    """The largest difference of each head, and of the actions that come of them."""
    pairs = [(tensor, exact.present()[name]) for name, tensor in rounded.present().items() if name != "action"]
    errors = [_difference(a.numpy(), b.numpy()) for a, b in pairs]
    box = policy.rule.space
    if isinstance(box, Box):
        found, wanted = (policy.rule.decode(getattr(heads, policy.signal)).numpy() for heads in (rounded, exact))
        errors.append(_difference(found, wanted, _half_range(box)))
    return [float(error.max()) for error in errors]


def _half_range(box: Box) -> np.ndarray | None:
    """Half of the range of each dimension where it is above 1, else 1; None for a box without bounds."""
    half = (box.high.astype(np.float64) - box.low.astype(np.float64)) / 2
    return np.maximum(1.0, half).reshape(-1) if np.isfinite(half).all() else None


def _difference(found: np.ndarray, wanted: np.ndarray, unit: np.ndarray | None = None) -> np.ndarray:
    """The largest difference of each sample, (B, ...) -> (B,), in `unit` or else relative to the sample's largest."""
    found, wanted = (array.reshape(len(array), -1).astype(np.float64) for array in (found, wanted))
    if unit is None:
        unit = np.maximum(1.0, np.abs(wanted).max(1, keepdims=True))
    return (np.abs(found - wanted) / unit).max(1)


def _is_close(outputs: np.ndarray, space: Space, tie: float) -> np.ndarray:
    """Whether the best two of each choice are equal up to `tie`, relative, (B, P) -> (B, choices)."""
    near = tie * np.maximum(1.0, np.abs(outputs).max(1, keepdims=True))
    return _margins(outputs, space) <= near


def _margins(outputs: np.ndarray, space: Space) -> np.ndarray:
    """How much better the chosen is than the next best, (B, P) -> (B, choices)."""
    match space:
        case MultiBinary():
            return np.abs(outputs)
        case MultiDiscrete(nvec=nvec):
            groups = np.split(outputs, np.cumsum(nvec)[:-1], axis=1)
            return np.stack([_lead(group) for group in groups], axis=1)
    return _lead(outputs)[:, None]


def _lead(outputs: np.ndarray) -> np.ndarray:
    """The largest minus the second largest, (B, A) -> (B,)."""
    if outputs.shape[1] == 1:
        return np.full(len(outputs), np.inf)
    second, first = np.partition(outputs, -2, axis=1)[:, -2:].T
    return first - second
