"""Networks with a place for a grid in front of every product: what reads an activation reads it from one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from kdcli.agents.policy import Network
from kdcli.networks.activation_grid import GridLayer
from kdcli.networks.layers import LayerSpec, inner
from kdcli.networks.residual import Residual
from kdcli.networks.stack import Branch, Stack

PRODUCTS = ("attention", "attention_cell", "conv2d", "gru_cell", "linear", "lstm_cell")
_MOVES = ("flatten", "max_pool2d")  # what they give lies on the grid of what they are given


def as_stack(network: Network) -> Stack:
    """The same network, its layers named one by one; the very same parameters."""
    if isinstance(network, Stack):
        return network
    layers: list[LayerSpec] = [
        layer
        for width in network.hidden
        for layer in (("linear", {"out": width, "bias": network.bias}), (network.activation_name, {}))
    ]
    with torch.device("meta"):  # neither draws random numbers nor fills memory
        stack = Stack([Branch(0, (network.inputs,))], layers, network.outputs, network.bias)
    linears = [module for module in (*stack.trunk, stack.head) if isinstance(module, nn.Linear)]
    for ours, theirs in zip(linears, network.linears(), strict=True):
        ours.weight, ours.bias = theirs.weight, theirs.bias
    return stack


@dataclass(frozen=True)
class Places:
    """Which layers have a place for a grid in front of them, and which grid.

    Attributes:
        inputs: the place where features come in; None leaves them as they are.
        hidden: the name of the last layer that computes something, or empty -> the place behind it.
        before: the layers that read from a grid.
        at_once: whether features are put on theirs where they come in, whatever is first to compute with them.
    """

    inputs: LayerSpec | None
    hidden: Callable[[str], LayerSpec]
    before: tuple[str, ...] = (*PRODUCTS, *_MOVES)
    at_once: bool = True


@dataclass(frozen=True)
class _Found:
    """Layers with places; whether their end is on a grid, and the last layer that computed something."""

    layers: tuple[LayerSpec, ...]
    on_grid: bool
    last: str


def with_places(network: Stack, places: Places) -> Stack:
    """A network with a place for a grid in front of every product that is to read from one.

    The other modules are the very same; the new ones are not set.
    """
    first = (places.inputs,) if places.inputs and places.at_once else ()
    start = _Found(first, places.inputs is None or places.at_once, "")
    branches = [_placed(branch.layers, places, start) for branch in network.parts]
    lasts = {branch.last for branch in branches}
    joined = _Found((), all(branch.on_grid for branch in branches), lasts.pop() if len(lasts) == 1 else "concat")
    trunk = _placed([*network.trunk_specs, ("linear", {})], places, joined).layers[:-1]
    parts = [Branch(b.start, b.shape, found.layers) for b, found in zip(network.parts, branches, strict=True)]
    with torch.device("meta"):
        made = Stack(parts, trunk, network.outputs, network.bias)
    made.branches = nn.ModuleList(
        _take_over(old, new) for old, new in zip(network.branches, made.branches, strict=True)
    )
    made.trunk, made.head = _take_over(network.trunk, made.trunk), network.head
    return made


def _placed(layers: Sequence[LayerSpec], places: Places, start: _Found) -> _Found:
    """The layers of `start`, then these with a place before each that needs one.

    What only moves numbers comes after the place, so that runtimes find product, activation and grid side by side.
    """
    found, on_grid, last = list(start.layers), start.on_grid, start.last
    for name, options in layers:
        if name in places.before and not on_grid:
            found.append(places.hidden(last) if last or places.inputs is None else places.inputs)
            on_grid = True
        if name == "residual":
            inside = _placed(inner(name, options), places, _Found((), on_grid, last)).layers
            found.append((name, {**options, "layers": inside}))
        else:
            found.append((name, options))
        if name not in _MOVES:
            on_grid, last = False, name
    return _Found(tuple(found), on_grid, last)


def _take_over(old: nn.Module, new: nn.Module) -> nn.ModuleList:
    """The old modules, between the new places."""
    rest = iter(old.children())
    return nn.ModuleList(
        module if isinstance(module, GridLayer) else _same(next(rest), module) for module in new.children()
    )


def _same(old: nn.Module, new: nn.Module) -> nn.Module:
    """The old module; what it holds inside has places, too."""
    return Residual(_take_over(old.layers, new.layers)) if isinstance(new, Residual) else old  # type: ignore[arg-type]
