"""Whether a written file acts as the agent does: measured on the bytes that will be the file.

Two programs that add float32 numbers in another order differ by rounding. Where observations are large, as they are
without a normalizer, that can be more than a fixed tolerance; then the agent's own rounding is measured, against the
same weights in float64, and what is allowed follows from it. On grids a rounding error becomes a step where a half is
between the two sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.agents.policy import Policy
from kdcli.agents.states import States
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.formats import Run
from kdcli.exporters.rounding_ties import Edges, watched
from kdcli.networks.activation_grid import GridLayer
from kdcli.spec import STATE_IN, STATE_OUT, Box, MultiBinary, MultiDiscrete, Space, feed

TOLERANCE = 1e-5
TIE = 1e-6
ROUNDINGS = 4
MOST = 1e-2
BATCH = 256
SINGLES = 32


@dataclass(frozen=True)
class Parity:
    """How alike file and agent act on `n_states` states from `source`.

    Attributes:
        max_abs_difference: the largest of any real output, in units of max(1, half the action's range); for an output
            without bounds, of max(1, the state's largest output).
        tolerance: the difference allowed: 1e-5; where that is needed, four times the agent's own rounding error, or
            four steps of the last grid that activations lie on.
        ties: states in which file and agent choose otherwise, the agent's best two being equal up to 1e-6, or up to
            `tolerance` where it is not 1e-5; and those in which they differ, an activation being on the edge between
            two codes of a grid.
    """

    n_states: int
    source: str
    max_abs_difference: float
    tolerance: float
    ties: int

    def to_json(self) -> dict[str, Any]:
        """JSON values for the file's record."""
        return asdict(self)


def check(run: Run, agent: Agent, states: States, state_size: int = 0, step: float = 0.0) -> Parity:
    """Run the file and the agent on the same states, some alone and the others in batches.

    With memory, both go through the episodes with states of their own, side by side, and the first episode alone; the
    file's has `state_size` numbers. `step` is what may differ where activations lie on grids (see `grid_step`).

    Raises:
        UsageError: there are no states, or not such as the agent observes.
        RefusedError: the file acts otherwise.
    """
    check_states(states.observations, agent.observation)
    states = replace(states, observations=states.observations.astype(agent.observation.dtype, copy=False))
    tolerance = TOLERANCE
    gap = _total(_gaps(run, agent, states, tolerance, state_size))
    if gap.wrong:
        tolerance = max(_tolerance(agent, states), step)
        gap = _total(_gaps(run, agent, states, tolerance, state_size))
    if gap.wrong:
        most = f"the largest difference is {gap.worst:.3g}, allowed is {tolerance:.3g}"
        why = f"in {gap.wrong} of {len(states)} states; {most}"
        fix = "nothing was written; try another --format or --opset, and report it"
        raise RefusedError("the exported file does not act like the agent", why, fix)
    return Parity(len(states), states.source, gap.worst, tolerance, gap.ties)


def check_states(obs: np.ndarray, space: Space) -> None:
    """Raise UsageError unless these are observations (N, *shape) of the space, at least one."""
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


def _gaps(run: Run, agent: Agent, states: States, tolerance: float, state_size: int) -> Iterator[_Gap]:
    with watched(agent.policy) as edges:
        remembers = agent.state_size
        pairs = _unrolled(run, agent, states, state_size) if remembers else _each(run, agent, states.observations)
        for found, heads in pairs:
            yield _gap(found, heads, agent, tolerance, edges)


Pair = tuple[dict[str, np.ndarray], Heads]


def _each(run: Run, agent: Agent, observations: np.ndarray) -> Iterator[Pair]:
    """What file and agent say of each batch."""
    for obs in _batches(observations):
        yield dict(run(feed(agent.observation, obs))), agent.heads(obs)


def _batches(obs: np.ndarray) -> Iterable[np.ndarray]:
    """The first states alone, the others in batches; each once."""
    alone = min(SINGLES, len(obs) // 2)
    starts = [*range(alone), *range(alone, len(obs), BATCH)]
    return (obs[a:b] for a, b in zip(starts, [*starts[1:], len(obs)], strict=True))


def _unrolled(run: Run, agent: Agent, states: States, state_size: int) -> Iterator[Pair]:
    """What file and agent say of each turn, each remembering what it said itself; with grids, what the agent said."""
    obs, begins = states.turns()
    yield from _unroll(run, agent, obs, begins, state_size)
    if states.slots > 1:
        yield from _unroll(run, agent, obs[:, :1], begins[:, :1], state_size)


def _unroll(run: Run, agent: Agent, obs: np.ndarray, begins: np.ndarray, state_size: int) -> Iterator[Pair]:
    ours = np.zeros((obs.shape[1], agent.state_size), np.float32)
    theirs = np.zeros((obs.shape[1], state_size), np.float32)
    grids = any(isinstance(module, GridLayer) for module in agent.policy.modules())
    for now, fresh in zip(obs, begins, strict=True):
        ours[fresh], theirs[fresh] = 0.0, 0.0
        found, heads = dict(run({**feed(agent.observation, now), STATE_IN: theirs})), agent.heads(now, ours)
        assert heads.state is not None
        ours, theirs = heads.state.numpy().copy(), np.array(found[STATE_OUT])
        theirs = ours[:, :state_size].copy() if grids else theirs  # one that took another code would never come back
        yield found, heads


def _gap(found: dict[str, np.ndarray], heads: Heads, agent: Agent, tolerance: float, edges: Edges) -> _Gap:
    """Compare the file's outputs with the agent's on one batch (B, *shape)."""
    ours = {name: tensor.numpy() for name, tensor in heads.present().items()}
    action, wanted = found.pop("action"), agent.decode(heads)
    if STATE_OUT in found:
        found["state"] = found.pop(STATE_OUT)
        ours["state"] = ours["state"][:, : found["state"].shape[1]]
    n = len(action)
    edge = edges.take(n)
    differences = [np.zeros(n), *(_difference(array, ours[name]) for name, array in found.items())]
    wrong = tied = np.zeros(n, bool)
    if isinstance(agent.action, Box):
        differences.append(_difference(action, wanted, _half_range(agent.action)))
    else:
        other = (action != wanted).reshape(n, -1)
        close = _is_close(ours[agent.policy.signal], agent.action, TIE if tolerance == TOLERANCE else tolerance)
        wrong, tied = (other & ~close).any(1), (other & close).any(1)
    worst = np.max(differences, axis=0)
    # Not "above": a nan is not within the tolerance either.
    wrong = wrong | ~(worst <= tolerance)
    tied, wrong = (tied & ~wrong) | (wrong & edge), wrong & ~edge
    return _Gap(float(worst[~edge].max(initial=0.0)), int(wrong.sum()), int(tied.sum()))


@torch.inference_mode()
def _tolerance(agent: Agent, states: States) -> float:
    """Four times the agent's own largest rounding error, at least 1e-5 and at most 1e-2."""
    exact = deepcopy(agent.policy).double()
    errors = [0.0]
    for rounded, wanted in _both(agent, exact, states):
        errors += _errors(rounded, wanted, agent.policy)
    return min(max(TOLERANCE, ROUNDINGS * float(np.fmax.reduce(errors))), MOST)


def _both(agent: Agent, exact: Policy, states: States) -> Iterator[tuple[Heads, Heads]]:
    """What the agent says, and what it would say without rounding."""
    if not agent.state_size:
        for obs in _batches(states.observations):
            features = agent.preprocess(obs)
            yield agent.policy(features), exact(features.double())
        return
    single = torch.zeros(states.slots, agent.state_size)
    double = single.double()
    for now, fresh in zip(*states.turns(), strict=True):
        keep = torch.from_numpy(~fresh)[:, None]
        features = agent.preprocess(now)
        rounded, wanted = agent.policy(features, single * keep), exact(features.double(), double * keep)
        single, double = rounded.state, wanted.state
        yield rounded, wanted


def _errors(rounded: Heads, exact: Heads, policy: Policy) -> list[float]:
    """The largest difference of each head, and of the actions that come of them."""
    told = {name: tensor for name, tensor in rounded.present().items() if name not in ("action", "features")}
    errors = [_difference(tensor.numpy(), exact.present()[name].numpy()) for name, tensor in told.items()]
    box = policy.rule.space
    if isinstance(box, Box):
        found, wanted = (policy.rule.decode(heads.scores()).numpy() for heads in (rounded, exact))
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
