"""How much a unit matters: one function a way to judge, from evidence to a number for each unit, (n_units,)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kdcli.errors import UsageError
from kdcli.pruning.activity import by_entry, listening, run
from kdcli.pruning.alike import moved
from kdcli.pruning.evidence import Evidence

Importance = Callable[[Evidence], np.ndarray]
# These are in units of the outputs, so that units of different layers compare.
OF_OUTPUTS = frozenset({"disagreement", "taylor"})


def _by_unit(evidence: Evidence, parts: Iterable[tuple[np.ndarray, Tensor]]) -> np.ndarray:
    """The sum of values (entries,) over the entries of each unit."""
    total = np.zeros(evidence.body.n_units)
    for owner, values in parts:
        mine = owner >= 0
        np.add.at(total, owner[mine], values.numpy().astype(np.float64)[mine])
    return total


def _along(tensor: Tensor, axis: int) -> Tensor:
    """A parameter as one row an entry of `axis`."""
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


def magnitude(evidence: Evidence) -> np.ndarray:
    """The norm of all weights that go with a unit: Li et al. 2017, over its whole coupled group."""
    squares = (
        (slot.owner, _along(evidence.tensors[slot.key], slot.axis).square().sum(1)) for slot in evidence.body.slots
    )
    return np.sqrt(_by_unit(evidence, squares))


def activation(evidence: Evidence) -> np.ndarray:
    """How far the sums behind move, root mean square, when a unit is replaced by its mean."""
    parts = []
    for reader, seen in zip(evidence.body.readers, evidence.seen, strict=True):
        columns = _along(evidence.tensors[reader.weight], 1).square().sum(1)
        parts.append((reader.owner, columns * seen.variance.mean(1)))
    return np.sqrt(_by_unit(evidence, parts))


def taylor(evidence: Evidence) -> np.ndarray:
    """The same of the outputs, to first order: E[sum over outputs of ((a - mean a) do/da)^2]; Molchanov et al. 2017."""
    total, rule, means = np.zeros(evidence.body.n_units), evidence.agent.rule, evidence.means
    reads: dict[int, tuple[Tensor, Tensor]] = {}

    def hear(index: int, x: Tensor) -> Tensor:
        nudge = torch.zeros_like(x).requires_grad_()
        reads[index] = x.detach(), nudge
        return x + nudge

    with listening(evidence.agent, evidence.body.readers, hear):
        for heads in run(evidence.agent, evidence.states):
            outputs = heads.scores()
            outputs = rule.unit(outputs) if rule.continuous else outputs
            for k in range(outputs.shape[1]):
                total += _first_order(evidence, means, outputs[:, k], reads)
            reads.clear()
    return np.sqrt(total / len(evidence.states))


def _first_order(
    evidence: Evidence, means: Sequence[Tensor], output: Tensor, reads: Mapping[int, tuple[Tensor, Tensor]]
) -> np.ndarray:
    """Of one output (B,): the sum over states of the squared first-order change for each unit."""
    nudges = [nudge for _, nudge in reads.values()]
    slopes = torch.autograd.grad(output.sum(), nudges, retain_graph=True, allow_unused=True)
    change = torch.zeros(len(output), evidence.body.n_units, dtype=torch.float64)
    for (index, (x, _)), slope in zip(reads.items(), slopes, strict=True):
        if slope is None:
            continue
        away = by_entry(x).double() - means[index][:, None]
        effect = (away * by_entry(slope)).sum(2)
        owner = torch.from_numpy(evidence.body.readers[index].owner)
        change.index_add_(1, owner[owner >= 0], effect[:, owner >= 0])
    return change.square().sum(0).numpy()


def movement(evidence: Evidence) -> np.ndarray:
    """How far training moved a unit's weights away from zero: sum of w (w - w before); Sanh et al. 2020.

    Raises:
        UsageError: what the weights were before is not known.
    """
    if evidence.before is None:
        raise UsageError("movement needs training", "the weights did not move yet", "give --recover")
    old = Evidence(evidence.before, evidence.states).tensors
    parts = []
    for slot in evidence.body.slots:
        new = _along(evidence.tensors[slot.key], slot.axis)
        parts.append((slot.owner, (new * (new - _along(old[slot.key], slot.axis))).sum(1)))
    return _by_unit(evidence, parts)


def disagreement(evidence: Evidence) -> np.ndarray:
    """How far actions move in the mean when a unit is replaced by its mean, one at a time: measured, not estimated."""
    total, rule = np.zeros(evidence.body.n_units), evidence.agent.rule
    for group in evidence.body.groups:
        for unit in group.units:
            total[unit] = float(moved(rule, evidence.scores, evidence.without(unit)).mean())
    return total


def random(evidence: Evidence) -> np.ndarray:
    """Nothing: what the others must beat."""
    return np.random.default_rng(0).random(evidence.body.n_units)
