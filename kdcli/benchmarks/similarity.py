"""Whether agents do the same in the same states: those that the reference visits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.agents.agreement import agreement
from kdcli.agents.states import States, actions
from kdcli.benchmarks.entry import BenchEntry
from kdcli.spec import Discrete, MultiBinary, MultiDiscrete, Space

Signals = dict[str, np.ndarray]


@dataclass(frozen=True)
class Similarity:
    """A contender beside the reference on `n_states` states of the reference's play.

    Attributes:
        agreement: see `kdcli.agents.agreement`.
        kl: mean KL(reference || contender) of their distributions, in nats; None where one has none.
    """

    n_states: int
    agreement: float
    kl: float | None


def compare_actions(reference: BenchEntry, other: BenchEntry, states: States) -> Similarity:
    """Compare greedy actions and, where none has memory, distributions on the same states."""
    ours, theirs = (actions(entry.player, states) for entry in (other, reference))
    near = agreement(ours, theirs, reference.player.action)
    memory = reference.player.state_size or other.player.state_size
    return Similarity(len(states), near, None if memory else _kl(reference, other, states.observations))


def _kl(reference: BenchEntry, other: BenchEntry, obs: np.ndarray) -> float | None:
    ours, theirs = signals(other, obs), signals(reference, obs)
    if {"logits"} <= ours.keys() & theirs.keys():
        return float(kl_logits(ours["logits"], theirs["logits"], reference.player.action).mean())
    # A squash that both share changes nothing about the KL; with different ones the densities do not compare.
    if {"mean", "log_std"} <= ours.keys() & theirs.keys() and _squash(other) == _squash(reference):
        return float(kl_gaussian(ours, theirs).mean())
    return None


def signals(entry: BenchEntry, obs: np.ndarray) -> Signals:
    """What the contender says of its distribution: name -> (N, A), float64; only what it has."""
    if entry.agent is not None:
        found = {name: tensor.numpy() for name, tensor in entry.agent.heads(obs).present().items()}
    else:
        assert entry.exported is not None
        found = entry.exported.run(obs)
    return {name: found[name].astype(np.float64) for name in ("logits", "mean", "log_std") if name in found}


def _squash(entry: BenchEntry) -> str:
    if entry.agent is not None:
        return entry.agent.policy.rule.squash
    assert entry.exported is not None
    return entry.exported.record["rule"]["squash"]


def kl_logits(ours: np.ndarray, theirs: np.ndarray, space: Space) -> np.ndarray:
    """KL(theirs || ours) of logits (N, A) -> (N,), in nats; summed over groups, or over bits."""
    if isinstance(space, MultiBinary):
        pairs = [(np.stack([0 * a, a], 1), np.stack([0 * b, b], 1)) for a, b in zip(ours.T, theirs.T, strict=True)]
    else:
        cuts = np.cumsum(_groups(space))[:-1]
        pairs = list(zip(np.split(ours, cuts, axis=1), np.split(theirs, cuts, axis=1), strict=True))
    return np.sum([_categorical(a, b) for a, b in pairs], axis=0)


def _groups(space: Space) -> tuple[int, ...]:
    if isinstance(space, MultiDiscrete):
        return space.nvec
    assert isinstance(space, Discrete)
    return (space.n,)


def _categorical(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    log_q, log_p = _log_softmax(ours), _log_softmax(theirs)
    return (np.exp(log_p) * (log_p - log_q)).sum(1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def kl_gaussian(ours: Signals, theirs: Signals) -> np.ndarray:
    """KL(theirs || ours) of diagonal Gaussians `mean`, `log_std` (N, A) -> (N,), in nats."""
    spread = theirs["log_std"] - ours["log_std"]
    shift = (theirs["mean"] - ours["mean"]) / np.exp(ours["log_std"])
    return 0.5 * (np.exp(2 * spread) + shift**2 - 1 - 2 * spread).sum(1)
