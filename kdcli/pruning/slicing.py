"""A stack without some of its units: every number of theirs is cut out, what they always said goes into biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli.networks.dependency_graph import NOBODY, DependencyGraph, Reader, dependency_graph
from kdcli.networks.stack import Branch, Stack
from kdcli.pruning.surgery import Tensors, built, tensors_of

# What a unit says in the mean, to each reader: (entries,), or (channels,) of a convolution.
Means = Sequence[Tensor]


def keep(stack: Stack, kept: np.ndarray, means: Means | None = None) -> Stack:
    """A new stack of the units with `kept` (n_units,) true; `means` of the others are added to the biases behind.

    Exact where a unit that goes is constant, is not normalized together with others and not padded; else as near as a
    constant in its place can be.
    """
    if means is not None and _lacks_bias(stack, kept, means):
        stack = with_biases(stack)
    body, tensors = dependency_graph(stack), tensors_of(stack)
    if means is not None:
        for reader, mean in zip(body.readers, means, strict=True):
            _fold(tensors, reader, ~_stays(reader.owner, kept), mean)
    for slot in body.slots:
        at = torch.from_numpy(np.flatnonzero(_stays(slot.owner, kept)))
        tensors[slot.key] = tensors[slot.key].index_select(slot.axis, at)
    return built(_resized(stack, body, kept), tensors)


def _stays(owner: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return (owner == NOBODY) | kept[owner]


def _fold(tensors: Tensors, reader: Reader, gone: np.ndarray, mean: Tensor) -> None:
    """bias + weight times what the units that go say in the mean; of a convolution, at every place of its kernel."""
    if not gone.any() or reader.bias not in tensors:
        return
    weight = tensors[reader.weight][:, torch.from_numpy(gone)].double()
    weight = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    added = weight @ mean[torch.from_numpy(gone)].double()
    tensors[reader.bias] = (tensors[reader.bias].double() + added).float()


def _resized(stack: Stack, body: DependencyGraph, kept: np.ndarray) -> dict[str, Any]:
    """The configuration of what is left."""
    sizes = {path: int(_stays(owner, kept).sum()) for path, owner in body.giving.items()}
    config = stack.config()
    for i, (branch, described) in enumerate(zip(stack.parts, config["branches"], strict=True)):
        start, shape = _place(branch, body, kept)
        described.update(start=start, shape=list(shape))
        _size(f"branches.{i}", described["layers"], sizes)
    _size("trunk", config["trunk"], sizes)
    return config


def _place(branch: Branch, body: DependencyGraph, kept: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Where the branch's features begin among those that are left, and their shape."""
    features = kept[: body.n_features]
    here = int(features[branch.start : branch.stop].sum())
    shape = branch.shape if here == branch.stop - branch.start else (here,)
    return int(features[: branch.start].sum()), shape


def _size(path: str, layers: list[Any], sizes: Mapping[str, int]) -> None:
    for i, (name, options) in enumerate(layers):
        if f"{path}.{i}" in sizes:
            options["out"] = sizes[f"{path}.{i}"]
            if options.get("groups", 1) > 1:
                options["groups"] = options["out"]
        if name == "residual":
            _size(f"{path}.{i}.layers", options["layers"], sizes)


def _lacks_bias(stack: Stack, kept: np.ndarray, means: Means) -> bool:
    """Whether what a unit said would have nowhere to go."""
    names, readers = set(stack.state_dict()), dependency_graph(stack).readers
    pairs = zip(readers, means, strict=True)
    said = ((reader, mean[torch.from_numpy(~_stays(reader.owner, kept))]) for reader, mean in pairs)
    return any(reader.bias not in names and bool(mean.any()) for reader, mean in said)


def with_biases(stack: Stack) -> Stack:
    """The same function, with a bias (zeros) wherever one was left out."""
    config, tensors = stack.config(), tensors_of(stack)
    for layers in (config["trunk"], *(branch["layers"] for branch in config["branches"])):
        _drop_biasless(layers)
    for name, weight in stack.state_dict().items():
        path, _, leaf = name.rpartition(".")
        if leaf.startswith("weight"):
            tensors.setdefault(f"{path}.{leaf.replace('weight', 'bias')}", weight.new_zeros(len(weight)))
    return built({**config, "bias": True}, tensors)


def _drop_biasless(layers: list[Any]) -> None:
    for name, options in layers:
        options.pop("bias", None)
        if name == "residual":
            _drop_biasless(options["layers"])
