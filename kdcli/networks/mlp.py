"""The multi-layer perceptron: a trunk of hidden layers and a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.choice import Choice
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.activations import ACTIVATIONS, activation

MAX_WIDTH, MAX_LAYERS = 1 << 20, 1000


class MLP(nn.Module):
    """Linear layers of `hidden` widths, each followed by `activation`, then a linear head; float32."""

    state_size = 0  # it has no memory

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, activation_name: str = "tanh", bias: bool = True
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.outputs = inputs, tuple(hidden), outputs
        self.activation_name, self.bias = activation_name, bias
        self._activation = activation(activation_name)
        self.trunk = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in pairwise((inputs, *hidden)))
        self.head = nn.Linear(hidden[-1] if hidden else inputs, outputs, bias=bias)

    @property
    def is_linear(self) -> bool:
        """Whether nothing is hidden."""
        return not self.hidden

    def latent(self, features: Tensor) -> Tensor:
        """(B, inputs) -> (B, last hidden width), or the features where nothing is hidden."""
        for layer in self.trunk:
            # A call of the function instead of the module: at batch 1 the difference is a third of the time.
            features = self._activation(F.linear(features, layer.weight, layer.bias))  # type: ignore[arg-type]
        return features

    def output(self, latent: Tensor) -> Tensor:
        """(B, last hidden width) -> (B, outputs)."""
        return F.linear(latent, self.head.weight, self.head.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return self.output(self.latent(features))

    def linears(self) -> list[nn.Linear]:
        """The linear layers from input to output."""
        return [m for m in (*self.trunk, self.head) if isinstance(m, nn.Linear)]

    def config(self) -> dict[str, Any]:
        """JSON values that `from_config` rebuilds the network from."""
        return {
            "kind": "mlp",
            "inputs": self.inputs,
            "hidden": list(self.hidden),
            "outputs": self.outputs,
            "activation": self.activation_name,
            "bias": self.bias,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MLP:
        """The inverse of `config`, weights not set.

        Raises:
            RefusedError: a width or the activation is not one.
        """
        try:
            widths = [int(config["inputs"]), *map(int, config["hidden"]), int(config["outputs"])]
            name, bias = config["activation"], bool(config["bias"])
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedError("the network's description cannot be read", repr(error)) from None
        sound = len(widths) <= MAX_LAYERS and all(1 <= w <= MAX_WIDTH for w in widths)
        if not sound or name not in ACTIVATIONS:
            told = f"{len(widths)} widths, the first {widths[:8]}, activation {str(name)[:40]!r}"
            raise RefusedError("the network's description makes no sense", told)
        return cls(widths[0], tuple(widths[1:-1]), widths[-1], name, bias)

    def __str__(self) -> str:
        return "-".join(str(w) for w in (self.inputs, *self.hidden, self.outputs))


def parse_widths(text: str) -> tuple[int, ...]:
    """`64x32` -> (64, 32).

    Raises:
        UsageError: not positive integers joined by x.
    """
    try:
        widths = tuple(int(part) for part in text.split("x"))
    except ValueError:
        widths = (0,)
    if not all(1 <= w <= MAX_WIDTH for w in widths):
        raise UsageError(
            f"cannot read the widths {text!r}", "they are positive integers joined by 'x'", "e.g. mlp:32x32"
        )
    return widths


def width_of(input_shapes: Sequence[tuple[int, ...]]) -> int:
    """Features in all; images are flattened."""
    return sum(map(prod, input_shapes))


def linear(choice: Choice, input_shapes: Sequence[tuple[int, ...]], outputs: int) -> MLP:
    """The network of `linear`."""
    choice.only()
    return MLP(width_of(input_shapes), (), outputs)
