"""A student that begins with its teacher's layers: whole where widths are equal, else with the units that matter most.

Where the student is narrower, those units stay whose weights are the largest: the product of what comes in and what
goes out. Where it is wider, units are there several times and share what they say, so that nothing changes
(Net2WiderNet, Chen et al. 2016, section 2.3).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.errors import UsageError
from kdcli.networks.attention import Attention, AttentionCell
from kdcli.networks.dependency_graph import NOBODY, DependencyGraph, dependency_graph
from kdcli.networks.layers import Activation
from kdcli.networks.residual import Residual
from kdcli.networks.stack import Stack
from kdcli.networks.surgery import Network, Tensors, as_stack, built, like, tensors_of

# What two layers of one kind must have in common, beside having a bias or none.
_ALIKE: Mapping[type[nn.Module], tuple[str, ...]] = {
    Activation: ("name",),
    Attention: ("heads", "size"),
    AttentionCell: ("heads", "size", "history"),
    nn.Conv2d: ("kernel_size", "stride", "padding"),
    nn.LayerNorm: ("eps",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding"),
}
# Layers that are nothing without what follows them.
_OPEN = (Attention, nn.Conv2d, nn.LayerNorm, nn.Linear)


def transfer_weights(student: Network, teacher: Network) -> Network:
    """A new network of the student's shape that begins with the layers that the two have in common.

    Layers are compared from the input on; from the first on that differs in more than its width, they stay the
    student's own. Networks of equal widths give equal outputs.

    Raises:
        UsageError: they have no layer in common, or see different things.
    """
    ours, theirs = as_stack(student), as_stack(teacher)
    shared, whole = _shared(ours, theirs)
    if not shared and not whole:
        why = f"the student is {student}, the teacher {teacher}: not even their first layers are alike"
        raise UsageError("the student cannot begin with its teacher's layers", why, "choose a student of its kind")
    if whole and ours.outputs == theirs.outputs:
        shared.add("head")
    tensors = {**tensors_of(ours), **_WeightTransfer(ours, theirs).tensors(shared)}
    return like(built(ours.config(), tensors), student).requires_grad_(True).train(student.training)


def _shared(ours: Stack, theirs: Stack) -> tuple[set[str], bool]:
    """The paths of the layers that both have, and whether those are all of both."""
    places = [[(part.start, part.shape) for part in stack.parts] for stack in (ours, theirs)]
    if places[0] != places[1]:
        return set(), False
    found: set[str] = set()
    whole = True
    for index, pair in enumerate(zip(ours.branches, theirs.branches, strict=True)):
        whole &= _match(f"branches.{index}", *pair, found)  # type: ignore[arg-type]
    return found, whole and _match("trunk", ours.trunk, theirs.trunk, found) and (ours.bias == theirs.bias)


def _match(path: str, ours: nn.ModuleList, theirs: nn.ModuleList, found: set[str]) -> bool:
    """Add the layers at the beginning that are alike; returns whether all are."""
    forms = [[_form(module) for module in modules] for modules in (ours, theirs)]
    n = next((i for i, (a, b) in enumerate(zip(*forms, strict=False)) if a != b), min(map(len, forms)))
    whole = n == len(ours) == len(theirs)
    while not whole and n and isinstance(ours[n - 1], _OPEN):
        n -= 1
    found |= {f"{path}.{i}" for i in range(n)}
    return whole


def _form(module: nn.Module) -> tuple[Any, ...]:
    """What a layer is apart from its width."""
    if isinstance(module, Residual):
        return Residual, *map(_form, module.layers)
    features = tuple(getattr(module, name) for name in _ALIKE.get(type(module), ()))
    names = tuple(name for name, _ in module.named_parameters())
    return type(module), *features, names, getattr(module, "groups", 1) > 1


@dataclass(frozen=True)
class _Source:
    """Where each of our units comes from, and its share of what that one says, both (n_units,)."""

    unit: np.ndarray
    share: np.ndarray


class _WeightTransfer:
    """The teacher's tensors in the student's widths."""

    def __init__(self, ours: Stack, theirs: Stack) -> None:
        self._given = tensors_of(theirs)
        self._wanted = {key: tensor.shape for key, tensor in tensors_of(ours).items()}
        self._ours, self._theirs = dependency_graph(ours), dependency_graph(theirs)
        self._source = _source(self._ours, self._theirs, _weights(self._theirs, self._given))

    def tensors(self, paths: Collection[str]) -> Tensors:
        """Those of the layers at `paths`.

        Raises:
            UsageError: units that have no counterpart.
        """
        return {key: self._taken(key) for key in self._wanted if any(key.startswith(f"{path}.") for path in paths)}

    def _taken(self, key: str) -> Tensor:
        tensor = self._given[key]
        axes = {slot.axis: slot.owner for slot in self._theirs.slots if slot.key == key}
        for slot in self._ours.slots:
            if slot.key == key and slot.axis in axes:
                index, share = self._places(slot.owner, axes[slot.axis])
                tensor = tensor.index_select(slot.axis, index)
                tensor = tensor * share.reshape(1, -1, *(1,) * (tensor.ndim - 2)) if slot.axis else tensor
        if tensor.shape != self._wanted[key]:
            why = f"{key} has the shape {tuple(tensor.shape)}, the student's {tuple(self._wanted[key])}"
            raise UsageError("the student cannot begin with its teacher's layers", why, "choose other widths")
        return tensor

    def _places(self, ours: np.ndarray, theirs: np.ndarray) -> tuple[Tensor, Tensor]:
        """For each of our entries the one of theirs, and its share: the k-th of a unit is its k-th there."""
        where: dict[int, list[int]] = defaultdict(list)
        for place, unit in enumerate(theirs.tolist()):
            where[unit].append(place)
        seen: Counter[int] = Counter()
        found = []
        for unit in ours.tolist():
            at = where[NOBODY if unit == NOBODY else int(self._source.unit[unit])]
            found += at[seen[unit] : seen[unit] + 1]
            seen[unit] += 1
        share = np.where(ours == NOBODY, 1.0, self._source.share[ours])
        return torch.tensor(found, dtype=torch.int64), torch.from_numpy(share[: len(found)].astype(np.float32))


def _weights(body: DependencyGraph, tensors: Tensors) -> np.ndarray:
    """How much each unit weighs, (n_units,): the norm of what comes in times that of what goes out."""
    squares = np.zeros((2, body.n_units))
    for slot in body.slots:
        entries = tensors[slot.key].double().movedim(slot.axis, 0)
        known = slot.owner != NOBODY
        norms = entries.reshape(len(entries), -1).square().sum(1).numpy()
        np.add.at(squares[slot.axis], slot.owner[known], norms[known])
    return np.sqrt(squares[0] * squares[1])


def _source(ours: DependencyGraph, theirs: DependencyGraph, weights: np.ndarray) -> _Source:
    unit, share = np.full(ours.n_units, NOBODY), np.ones(ours.n_units)
    unit[: ours.n_features] = np.arange(ours.n_features)
    given = {group.name: group for group in theirs.groups}
    for group in ours.groups:
        if group.name in given:
            other = given[group.name]
            picked, parts = _picked(group.size, weights[list(other.units)])
            unit[list(group.units)], share[list(group.units)] = other.first + picked, parts
    return _Source(unit, share)


def _picked(n: int, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`n` of the units with these weights (W,), in their order, and the share of each: (n,) and (n,).

    Beyond W, the heaviest are there again. Copies have unequal shares: equal ones would stay equal in training.
    """
    order, size = np.argsort(-weights, kind="stable"), len(weights)
    if n <= size:
        return np.sort(order[:n]), np.ones(n)
    picked = np.concatenate([np.arange(size), order[np.arange(n - size) % size]])
    total = Counter(picked.tolist())
    return picked, np.array([k / (total[u] * (total[u] + 1) / 2) for u, k in _numbered(picked.tolist())])


def _numbered(units: Iterable[int]) -> list[tuple[int, int]]:
    """Each with the number of times it was there, this time included."""
    seen: Counter[int] = Counter()
    found = []
    for unit in units:
        seen[unit] += 1
        found.append((unit, seen[unit]))
    return found
