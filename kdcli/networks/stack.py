"""A network of named layers: convolutions, several inputs, memory. What widths alone describe is an `MLP`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.errors import RefusedError
from kdcli.networks.layers import LayerSpec, Shape, build_layers, inner
from kdcli.networks.memory import state_size, step_through
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


class Stack(nn.Module):
    """Branches over parts of the features (B, F), their outputs side by side, a trunk, and a linear head; float32.

    `branches[i]` and `trunk` hold the layers as modules, in order; only the trunk has memory. A state (B, S) is that of
    its layers in order (h of a GRU cell, h and c of an LSTM cell, see also `AttentionCell`); zeros begin an episode.

    Raises:
        RefusedError: a layer that is unknown or does not fit.
    """

    def __init__(self, branches: Sequence[Branch], trunk: Sequence[LayerSpec], outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.parts, self.trunk_specs, self.outputs, self.bias = tuple(branches), tuple(trunk), outputs, bias
        self.inputs = max(branch.stop for branch in branches)
        built = [build_layers(branch.shape, branch.layers) for branch in branches]
        self.branches = nn.ModuleList(nn.ModuleList(modules) for modules, _ in built)
        modules, after = build_layers((sum(prod(shape) for _, shape in built),), trunk)
        self.trunk = nn.ModuleList(modules)
        (width,) = after
        self.head = nn.Linear(width, outputs, bias)
        self.state_size = sum(map(state_size, self.trunk))
        if any(map(state_size, self.branches.modules())):
            raise RefusedError("the network remembers in a branch", "layers with memory belong in the trunk")

    is_linear = False  # it has layers that an MLP has not

    def joined(self, features: Tensor) -> Tensor:
        """(B, F) -> what the branches give, flat and side by side."""
        found = []
        for branch, modules in zip(self.parts, self.branches, strict=True):
            # Side by side in memory: torch would add up scattered rows in an order that depends on who needs gradients.
            x = features[:, branch.start : branch.stop].reshape(-1, *branch.shape).contiguous()
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
        x, after = step_through(self.trunk, self.joined(features), state)
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
    outer = [*config["trunk"], *(layer for branch in config["branches"] for layer in branch["layers"])]
    layers = [*outer, *(layer for name, options in outer for layer in inner(name, options))]
    if max(len(layers), len(config["branches"])) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers, {len(config['branches'])} branches")


def _listed(layers: Sequence[LayerSpec]) -> list[list[Any]]:
    """As JSON values."""
    return [[name, _plain(name, options)] for name, options in layers]


def _plain(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    inside = {"layers": _listed(inner(name, options))} if name == "residual" else {}
    return {**options, **inside}


def _specs(layers: Any) -> tuple[LayerSpec, ...]:
    return tuple((str(name), dict(options)) for name, options in layers)


def _words(branch: Branch) -> str:
    return "x".join(map(str, branch.shape)) + "".join(f"-{_word(layer)}" for layer in branch.layers)


def _word(layer: LayerSpec) -> str:
    name, options = layer
    inside = inner(name, options)
    if inside:
        return f"+({'-'.join(map(_word, inside))})"
    return f"{name}:{options['out']}" if "out" in options and name != "linear" else str(options.get("out", name))
