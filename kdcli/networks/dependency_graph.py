"""Which numbers of a network belong to which unit: what must go together when a unit goes.

A unit is a feature, a hidden neuron, a channel of a convolution, or a number that a recurrent cell remembers. Layers
that pass units on do not change whose they are; what the layers of a residual give belongs to the units that it is
added to. A layer added to `_LAYERS` says which numbers are its units', and which it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli.errors import UsageError
from kdcli.networks.attention import Attention, AttentionCell
from kdcli.networks.layers import Activation, LayerSpec, Shape, build_layer, inner
from kdcli.networks.residual import Mean, Residual
from kdcli.networks.stack import Branch, Stack

NOBODY = -1
# Layers that are sized by what they read, so that another size is no other description.
_SIZED = (nn.Conv2d, nn.GRUCell, nn.Linear, nn.LSTMCell)


@dataclass(frozen=True, eq=False)
class Slot:
    """Of the parameter `key`, entry i along `axis` belongs to unit owner[i], or to nobody that may go."""

    key: str
    axis: int
    owner: np.ndarray


@dataclass(frozen=True, eq=False)
class Reader:
    """A product that reads units: input number `argument` of `module`, whose entry (or channel) i is unit owner[i]'s.

    `padded`: zeros are added around it, so that a constant does not give the same everywhere.
    """

    module: str
    weight: str
    bias: str
    owner: np.ndarray
    argument: int = 0
    padded: bool = False


@dataclass(frozen=True)
class Group:
    """Units of one layer: from `first` on, `size` of them."""

    name: str
    first: int
    size: int

    @property
    def units(self) -> range:
        """The indices of its units."""
        return range(self.first, self.first + self.size)


@dataclass(frozen=True, eq=False)
class DependencyGraph:
    """All units of a stack: the features first, then those of `groups`.

    `mixed` are units that a normalization reads together: without one of them, the others are not what they were.
    `fixed` are those that must stay: features of an image or of rows, which a layer reads by their place, and what
    attention adds to others. `giving` says whose each number is that a layer gives: path -> unit.
    """

    n_features: int
    groups: tuple[Group, ...]
    slots: tuple[Slot, ...]
    readers: tuple[Reader, ...]
    mixed: frozenset[int]
    fixed: frozenset[int]
    giving: Mapping[str, np.ndarray]

    @property
    def n_units(self) -> int:
        """The number of all units."""
        return self.n_features + sum(group.size for group in self.groups)

    @cached_property
    def features(self) -> Group:
        """The features as a group."""
        return Group("inputs", 0, self.n_features)

    def everything(self) -> np.ndarray:
        """All units kept, (n_units,) of bool."""
        return np.ones(self.n_units, bool)


@dataclass
class _Walk:
    """What was found on the way; `owner` are the units of the flow, or of its channels, `shape` is the flow's."""

    n_units: int
    groups: list[Group] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    mixed: set[int] = field(default_factory=set)
    fixed: set[int] = field(default_factory=set)
    giving: dict[str, np.ndarray] = field(default_factory=dict)
    added_to: dict[str, np.ndarray] = field(default_factory=dict)
    owner: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    shape: Shape = ()

    def give(self, path: str, module: nn.Module, names: tuple[str, ...] = ("weight", "bias"), times: int = 1) -> None:
        """The layer gives units that begin here, or those that it is added to; its parameters have `times` of each."""
        size = len(getattr(module, names[0])) // times
        if path in self.added_to:
            self.owner = self.added_to[path]
        else:
            self.groups.append(Group(path, self.n_units, size))
            self.n_units += size
            self.owner = np.arange(self.n_units - size, self.n_units)
        self.giving[path] = self.owner
        for name in names:
            self.slot(module, f"{path}.{name}", 0, np.tile(self.owner, times))

    def slot(self, module: nn.Module, key: str, axis: int, owner: np.ndarray) -> None:
        """Numbers of a parameter `path.name`, where the module has it."""
        if getattr(module, key.rpartition(".")[2], None) is not None:
            self.slots.append(Slot(key, axis, owner))

    def read(self, path: str, end: str = "", argument: int = 0, padded: bool = False) -> None:
        """A product reads the flow; its weight and bias are called so, with `end` behind."""
        weight, bias = f"{path}.weight{end}", f"{path}.bias{end}"
        self.slots.append(Slot(weight, 1, self.owner))
        self.readers.append(Reader(path, weight, bias, self.owner, argument, padded))

    def dependency_graph(self, n_features: int) -> DependencyGraph:
        """What was found."""
        found = tuple(self.groups), tuple(self.slots), tuple(self.readers)
        return DependencyGraph(n_features, *found, frozenset(self.mixed), frozenset(self.fixed), self.giving)


def dependency_graph(stack: Stack) -> DependencyGraph:
    """The units of a stack and all numbers that are theirs.

    Raises:
        UsageError: it has a layer whose units are not known.
    """
    walk, ends = _Walk(stack.inputs), []
    for index, (branch, modules) in enumerate(zip(stack.parts, stack.branches, strict=True)):
        places = np.arange(branch.start, branch.stop)
        if _is_picture(branch):
            walk.fixed |= set(places.tolist())
        _begin(walk, branch, places)
        _follow(walk, f"branches.{index}", branch.layers, modules)
        _flatten(walk, "", nn.Flatten(), {})
        ends.append(walk.owner)
    walk.owner = np.concatenate(ends)
    walk.shape = (len(walk.owner),)
    _follow(walk, "trunk", stack.trunk_specs, stack.trunk)
    walk.read("head")
    return walk.dependency_graph(stack.inputs)


def _is_picture(branch: Branch) -> bool:
    """Whether a feature is read by its place, so that none may go alone."""
    return len(branch.shape) > 1 and bool(branch.layers) and branch.layers[0][0] != "flatten"


def _begin(walk: _Walk, branch: Branch, places: np.ndarray) -> None:
    if _is_picture(branch):
        width = branch.shape[0] if len(branch.shape) > 2 else branch.shape[-1]
        walk.owner, walk.shape = np.full(width, NOBODY), branch.shape
    else:
        walk.owner, walk.shape = places, (len(places),)


def _follow(walk: _Walk, path: str, specs: Sequence[LayerSpec], modules: Any) -> None:
    for index, (spec, module) in enumerate(zip(specs, modules, strict=True)):
        if type(module) not in _LAYERS:
            raise UsageError(f"the units of a network with the layer {spec[0]!r} are not known", "", "")
        before = walk.shape
        _LAYERS[type(module)](walk, f"{path}.{index}", module, spec[1])
        with torch.device("meta"):
            walk.shape = build_layer(before, spec)[1]


def _pass(walk: _Walk, path: str, module: nn.Module, _: Mapping[str, Any]) -> None:
    """A layer that changes each unit alone."""


def _linear(walk: _Walk, path: str, module: nn.Module, _: Mapping[str, Any]) -> None:
    walk.read(path)
    walk.give(path, module)


def _conv2d(walk: _Walk, path: str, module: nn.Conv2d, _: Mapping[str, Any]) -> None:
    if module.groups == 1:
        walk.read(path, padded=any(module.padding))
        walk.give(path, module)
    elif module.groups == module.in_channels == module.out_channels:
        walk.giving[path] = walk.owner
        for name in ("weight", "bias"):
            walk.slot(module, f"{path}.{name}", 0, walk.owner)
    else:
        raise UsageError("the units of a convolution in groups are not known", f"{module}", "")


def _flatten(walk: _Walk, path: str, module: nn.Module, _: Mapping[str, Any]) -> None:
    """Of an image, all places of a channel are side by side; of rows, all units of a row."""
    if len(walk.shape) == 2:
        walk.owner = np.tile(walk.owner, walk.shape[0])
    else:
        walk.owner = np.repeat(walk.owner, int(np.prod(walk.shape[1:], dtype=np.int64)))
    walk.shape = (len(walk.owner),)


def _layer_norm(walk: _Walk, path: str, module: nn.Module, _: Mapping[str, Any]) -> None:
    walk.mixed |= set(walk.owner.tolist())
    for name in ("weight", "bias"):
        walk.slot(module, f"{path}.{name}", 0, walk.owner)


def _cell(walk: _Walk, path: str, module: nn.GRUCell | nn.LSTMCell, _: Mapping[str, Any]) -> None:
    """A GRU cell has three numbers a unit in each parameter, one after the other, an LSTM cell four."""
    walk.read(path, "_ih")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    walk.give(path, module, names, 3 if isinstance(module, nn.GRUCell) else 4)
    walk.read(path, "_hh", argument=1)


def _attention(walk: _Walk, path: str, module: Attention | AttentionCell, _: Mapping[str, Any]) -> None:
    """What is inside the heads belongs to nobody: they are equally large. It gives as many units as it reads: those."""
    parts = ("query", "key", "value") if isinstance(module, Attention) else ("project",)
    for part in parts:
        walk.read(f"{path}.{part}")
    read = walk.owner
    walk.added_to.setdefault(f"{path}.out", read)
    walk.give(f"{path}.out", module.out)
    if not np.array_equal(read, walk.owner):  # as many must be read as are added to others
        walk.fixed |= set(read.tolist()) | set(walk.owner.tolist())


def _residual(walk: _Walk, path: str, module: Residual, options: Mapping[str, Any]) -> None:
    specs, stream = inner("residual", options), walk.owner
    giving = [i for i, layer in enumerate(module.layers) if isinstance(layer, (*_SIZED, Attention, AttentionCell))]
    if giving:
        last = f"{path}.layers.{giving[-1]}"
        ends = ".out" if isinstance(module.layers[giving[-1]], Attention | AttentionCell) else ""
        walk.added_to[last + ends] = stream
    _follow(walk, f"{path}.layers", specs, module.layers)
    if not np.array_equal(walk.owner, stream):
        raise UsageError("the units of a residual are not known", f"{options}"[:80], "")


_LAYERS: Mapping[type[nn.Module], Callable[[_Walk, str, Any, Mapping[str, Any]], None]] = {
    Activation: _pass,
    Attention: _attention,
    AttentionCell: _attention,
    nn.Conv2d: _conv2d,
    nn.Flatten: _flatten,
    nn.GRUCell: _cell,
    nn.LSTMCell: _cell,
    nn.LayerNorm: _layer_norm,
    nn.Linear: _linear,
    nn.MaxPool2d: _pass,
    Mean: _pass,
    Residual: _residual,
}
