"""Networks with a place for a grid in front of every product: what reads an activation reads it from one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from kdcli.agents.policy import Network
from kdcli.networks.grid import Quantize
from kdcli.networks.layers import LayerSpec
from kdcli.networks.stack import Branch, Stack

PRODUCTS = ("conv2d", "gru_cell", "linear", "lstm_cell")
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


def with_places(network: Stack, inputs: LayerSpec | None, hidden: LayerSpec) -> Stack:
    """A network with a `quantize` layer in front of every product: `inputs` where features come in, else `hidden`.

    Without `inputs`, the features stay as they are. The other modules are the very same; the new ones are not set.
    """
    first = [] if inputs is None else [inputs]
    branches = [_placed(branch.layers, first, hidden) for branch in network.parts]
    trunk, on_grid = _placed(network.trunk_specs, [], hidden, all(there for _, there in branches))
    parts = [Branch(b.start, b.shape, tuple(layers)) for b, (layers, _) in zip(network.parts, branches, strict=True)]
    with torch.device("meta"):
        made = Stack(parts, trunk if on_grid else [*trunk, hidden], network.outputs, network.bias)
    made.branches = nn.ModuleList(
        _take_over(old, new) for old, new in zip(network.branches, made.branches, strict=True)
    )
    made.trunk, made.head = _take_over(network.trunk, made.trunk), network.head
    return made


def _placed(
    layers: Sequence[LayerSpec], first: list[LayerSpec], hidden: LayerSpec, on_grid: bool = True
) -> tuple[list[LayerSpec], bool]:
    """`first`, then the layers with a place before each product that needs one; whether the end is on a grid.

    What only moves numbers comes after the place, so that runtimes find product, activation and grid side by side.
    """
    found = list(first)
    for name, options in layers:
        if name in (*PRODUCTS, *_MOVES) and not on_grid:
            found.append(hidden)
            on_grid = True
        found.append((name, options))
        on_grid = on_grid and name in _MOVES
    return found, on_grid


def _take_over(old: nn.Module, new: nn.Module) -> nn.ModuleList:
    """The old modules, between the new places."""
    rest = iter(old.children())
    return nn.ModuleList(module if isinstance(module, Quantize) else next(rest) for module in new.children())
