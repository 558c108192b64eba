"""How much a unit matters: one function a way to judge, from evidence to a number for each unit, (n_units,)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kdcli.errors import UsageError, option
from kdcli.pruning.activation_stats import by_entry, listening, run
from kdcli.pruning.equivalence import moved
from kdcli.pruning.unit_stats import UnitStats

Importance = Callable[[UnitStats], np.ndarray]
# These are in units of the outputs, so that units of different layers compare.
OF_OUTPUTS = frozenset({"disagreement", "taylor"})


def _by_unit(unit_stats: UnitStats, parts: Iterable[tuple[np.ndarray, Tensor]]) -> np.ndarray:
    """The sum of values (entries,) over the entries of each unit."""
    total = np.zeros(unit_stats.body.n_units)
    for owner, values in parts:
        mine = owner >= 0
        np.add.at(total, owner[mine], values.numpy().astype(np.float64)[mine])
    return total


def _along(tensor: Tensor, axis: int) -> Tensor:
    """A parameter as one row an entry of `axis`."""
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


def magnitude(unit_stats: UnitStats) -> np.ndarray:
    """The norm of all weights that go with a unit: Li et al. 2017, over its whole coupled group."""
    squares = (
        (slot.owner, _along(unit_stats.tensors[slot.key], slot.axis).square().sum(1)) for slot in unit_stats.body.slots
    )
    return np.sqrt(_by_unit(unit_stats, squares))


def activation(unit_stats: UnitStats) -> np.ndarray:
    """How far the sums behind move, root mean square, when a unit is replaced by its mean."""
    parts = []
    for reader, seen in zip(unit_stats.body.readers, unit_stats.seen, strict=True):
        columns = _along(unit_stats.tensors[reader.weight], 1).square().sum(1)
        parts.append((reader.owner, columns * seen.variance.mean(1)))
    return np.sqrt(_by_unit(unit_stats, parts))


def taylor(unit_stats: UnitStats) -> np.ndarray:
    """The same of the outputs, to first order: E[sum over outputs of ((a - mean a) do/da)^2]; Molchanov et al. 2017."""
    total, rule, means = np.zeros(unit_stats.body.n_units), unit_stats.agent.rule, unit_stats.means
    reads: dict[int, tuple[Tensor, Tensor]] = {}

    def hear(index: int, x: Tensor) -> Tensor:
        nudge = torch.zeros_like(x).requires_grad_()
        reads[index] = x.detach(), nudge
        return x + nudge

    with listening(unit_stats.agent, unit_stats.body.readers, hear):
        for heads in run(unit_stats.agent, unit_stats.states):
            outputs = heads.scores()
            outputs = rule.unit(outputs) if rule.continuous else outputs
            for k in range(outputs.shape[1]):
                total += _first_order(unit_stats, means, outputs[:, k], reads)
            reads.clear()
    return np.sqrt(total / len(unit_stats.states))


def _first_order(
    unit_stats: UnitStats, means: Sequence[Tensor], output: Tensor, reads: Mapping[int, tuple[Tensor, Tensor]]
) -> np.ndarray:
    """Of one output (B,): the sum over states of the squared first-order change for each unit."""
    nudges = [nudge for _, nudge in reads.values()]
    slopes = torch.autograd.grad(output.sum(), nudges, retain_graph=True, allow_unused=True)
    change = torch.zeros(len(output), unit_stats.body.n_units, dtype=torch.float64)
    for (index, (x, _)), slope in zip(reads.items(), slopes, strict=True):
        if slope is None:
            continue
        away = by_entry(x).double() - means[index][:, None]
        effect = (away * by_entry(slope)).sum(2)
        owner = torch.from_numpy(unit_stats.body.readers[index].owner)
        change.index_add_(1, owner[owner >= 0], effect[:, owner >= 0])
    return change.square().sum(0).numpy()


def movement(unit_stats: UnitStats) -> np.ndarray:
    """How far training moved a unit's weights away from zero: sum of w (w - w before); Sanh et al. 2020.

    Raises:
        UsageError: what the weights were before is not known.
    """
    if unit_stats.before is None:
        raise UsageError("movement needs training", "the weights did not move yet", f"give {option('recover')}")
    old = UnitStats(unit_stats.before, unit_stats.states).tensors
    parts = []
    for slot in unit_stats.body.slots:
        new = _along(unit_stats.tensors[slot.key], slot.axis)
        parts.append((slot.owner, (new * (new - _along(old[slot.key], slot.axis))).sum(1)))
    return _by_unit(unit_stats, parts)


def disagreement(unit_stats: UnitStats) -> np.ndarray:
    """How far actions move in the mean when a unit is replaced by its mean, one at a time: measured, not estimated."""
    total, rule = np.zeros(unit_stats.body.n_units), unit_stats.agent.rule
    for group in unit_stats.body.groups:
        for unit in group.units:
            total[unit] = float(moved(rule, unit_stats.scores, unit_stats.without(unit)).mean())
    return total


def random(unit_stats: UnitStats) -> np.ndarray:
    """Nothing: what the others must beat."""
    return np.random.default_rng(0).random(unit_stats.body.n_units)
