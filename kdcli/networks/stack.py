"""A network of named layers: convolutions, several inputs, memory. What widths alone describe is an `MLP`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.errors import RefusedError
from kdcli.networks.layers import LayerSpec, Shape, build_layer
from kdcli.networks.mlp import MAX_LAYERS


@dataclass(frozen=True)
class Branch:
    """Layers over a part of the features: those from `start` on, in `shape`."""

    start: int
    shape: Shape
    layers: tuple[LayerSpec, ...] = ()

    @property
    def stop(self) -> int:
        """The first feature after the part."""
        return self.start + prod(self.shape)


def state_size(cell: nn.Module) -> int:
    """Numbers that a layer carries from one step to the next: h of a GRU, h and c of an LSTM, none of others."""
    if isinstance(cell, nn.GRUCell):
        return cell.hidden_size
    return 2 * cell.hidden_size if isinstance(cell, nn.LSTMCell) else 0


class Stack(nn.Module):
    """Branches over parts of the features (B, F), their outputs side by side, a trunk, and a linear head; float32.

    `branches[i]` and `trunk` hold the layers as modules, in order; only the trunk has memory. A state (B, S) is h of
    every GRU cell, and h and c of every LSTM cell, in order; zeros begin an episode.
    """

    def __init__(self, branches: Sequence[Branch], trunk: Sequence[LayerSpec], outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.parts, self.trunk_specs, self.outputs, self.bias = tuple(branches), tuple(trunk), outputs, bias
        self.inputs = max(branch.stop for branch in branches)
        built = [_modules(branch.shape, branch.layers) for branch in branches]
        self.branches = nn.ModuleList(modules for modules, _ in built)
        self.trunk, after = _modules((sum(prod(shape) for _, shape in built),), trunk)
        (width,) = after
        self.head = nn.Linear(width, outputs, bias)
        self.state_size = sum(map(state_size, self.trunk))

    is_linear = False  # it has layers that an MLP has not

    def joined(self, features: Tensor) -> Tensor:
        """(B, F) -> what the branches give, flat and side by side."""
        found = []
        for branch, modules in zip(self.parts, self.branches, strict=True):
            x = features[:, branch.start : branch.stop].reshape(-1, *branch.shape)
            for module in modules:  # type: ignore[attr-defined]
                x = module(x)
            found.append(x.flatten(1))
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def maps(self, features: Tensor) -> Tensor | None:
        """(B, F) -> the last thing in the form of an image that the first image becomes, (B, C, h, w)."""
        for branch, modules in zip(self.parts, self.branches, strict=True):
            x = features[:, branch.start : branch.stop].reshape(-1, *branch.shape)
            last = None
            for module in modules:  # type: ignore[attr-defined]
                x = module(x)
                last = x if x.dim() == 4 else last
            if last is not None:
                return last
        return None

    def advance(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and state (B, S) -> the last hidden layer (B, H) and the next state (B, S)."""
        x, after, at = self.joined(features), [], 0
        for module in self.trunk:
            size = state_size(module)
            if size:
                x, cell = _remember(module, x, state[:, at : at + size])
                after.append(cell)
                at += size
            else:
                x = module(x)
        return x, torch.cat(after, 1) if after else state

    def latent(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, H), at the beginning of an episode."""
        return self.advance(features, features.new_zeros((len(features), self.state_size)))[0]

    def output(self, latent: Tensor) -> Tensor:
        """(B, H) -> (B, outputs)."""
        return F.linear(latent, self.head.weight, self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, outputs), at the beginning of an episode."""
        return self.output(self.latent(features))

    def layers(self) -> Iterator[nn.Module]:
        """Every layer from input to output, branch by branch."""
        for modules in self.branches:
            yield from modules  # type: ignore[misc]
        yield from self.trunk
        yield self.head

    def config(self) -> dict[str, Any]:
        """JSON values that `from_config` rebuilds the network from."""
        branches = [{"start": b.start, "shape": list(b.shape), "layers": _listed(b.layers)} for b in self.parts]
        trunk = _listed(self.trunk_specs)
        return {"kind": "stack", "branches": branches, "trunk": trunk, "outputs": self.outputs, "bias": self.bias}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Stack:
        """The inverse of `config`, weights not set.

        Raises:
            RefusedError: a layer that is unknown or does not fit.
        """
        try:
            _refuse_many(config)
            branches = [
                Branch(int(b["start"]), tuple(int(n) for n in b["shape"]), _specs(b["layers"]))
                for b in config["branches"]
            ]
            return cls(branches, _specs(config["trunk"]), int(config["outputs"]), bool(config["bias"]))
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RefusedError("the network's description cannot be read", repr(error)) from None

    def __str__(self) -> str:
        return (
            " + ".join(map(_words, self.parts))
            + "".join(f"-{_word(layer)}" for layer in self.trunk_specs)
            + (f"-{self.outputs}")
        )


def _refuse_many(config: dict[str, Any]) -> None:
    layers = [*config["trunk"], *(layer for branch in config["branches"] for layer in branch["layers"])]
    if max(len(layers), len(config["branches"])) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers, {len(config['branches'])} branches")


def _modules(shape: Shape, specs: Sequence[LayerSpec]) -> tuple[nn.ModuleList, Shape]:
    modules = nn.ModuleList()
    for spec in specs:
        module, shape = build_layer(shape, spec)
        modules.append(module)
    return modules, shape


def _remember(cell: nn.Module, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One step of a cell: x (B, I) and its state (B, S) -> h (B, H) and the next state (B, S)."""
    if isinstance(cell, nn.GRUCell):
        h = cell(x, state)
        return h, h
    h, c = cell(x, tuple(state.chunk(2, 1)))
    return h, torch.cat([h, c], 1)


def _listed(layers: Sequence[LayerSpec]) -> list[list[Any]]:
    return [[name, dict(options)] for name, options in layers]


def _specs(layers: Any) -> tuple[LayerSpec, ...]:
    return tuple((str(name), dict(options)) for name, options in layers)


def _words(branch: Branch) -> str:
    return "x".join(map(str, branch.shape)) + "".join(f"-{_word(layer)}" for layer in branch.layers)


def _word(layer: LayerSpec) -> str:
    name, options = layer
    return f"{name}:{options['out']}" if "out" in options and name != "linear" else str(options.get("out", name))
