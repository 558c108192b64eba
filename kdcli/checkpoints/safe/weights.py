"""Tensors of a state dict, checked one by one as they are taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kdcli.checkpoints.safe.containers import unwrapped
from kdcli.checkpoints.safe.torch_files import read_torch
from kdcli.errors import RefusedError
from kdcli.networks.mlp import MAX_WIDTH, MLP

_INDEXED = re.compile(r"\.(\d{1,6})\.(?:weight|bias)$", re.ASCII)


def read_state(data: bytes, what: str) -> dict[str, Tensor]:
    """Name -> tensor of a state dict; `what` names the member in errors.

    Raises:
        RefusedError: it is damaged, or holds anything but tensors by name.
    """
    state = read_torch(data, what)
    named = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not named:
        raise RefusedError(f"{what} is not a state dict", "it holds other things than tensors by name")
    return unwrapped(state)


@dataclass(frozen=True)
class Layer:
    """One linear layer: `weight` (out, in), `bias` (out,) or none."""

    name: str
    weight: Tensor
    bias: Tensor | None


class Weights:
    """Tensors by name, each checked when taken; what is left over in the end was not understood."""

    def __init__(self, state: Mapping[str, Tensor], what: str) -> None:
        self.state, self.what = state, what
        self._taken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.state

    def take(self, name: str) -> Tensor:
        """A copy of one float32 tensor.

        Raises:
            RefusedError: it is missing, of another dtype, or holds NaN or infinity.
        """
        if name not in self.state:
            raise RefusedError(f"{self.what} has no tensor {name!r}", f"it has {_some(self.state)}")
        tensor = self.state[name]
        if tensor.dtype != torch.float32:
            raise RefusedError(f"{self.what}: {name} is {tensor.dtype}", "kdcli reads float32 weights", "")
        if not torch.isfinite(tensor).all():
            raise RefusedError(f"{self.what}: {name} holds NaN or infinity", "the training diverged, or it is damaged")
        self._taken.add(name)
        return tensor.detach().clone(memory_format=torch.contiguous_format)

    def linear(self, prefix: str) -> Layer:
        """The layer at `prefix`.weight and, where there is one, `prefix`.bias."""
        weight = self.take(f"{prefix}.weight")
        bias = self.take(f"{prefix}.bias") if f"{prefix}.bias" in self else None
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]) or weight.numel() == 0:
            raise RefusedError(f"{self.what}: {prefix} is not a linear layer", f"its weight is {tuple(weight.shape)}")
        return Layer(prefix, weight, bias)

    def linears(self, prefix: str) -> list[Layer]:
        """The layers of a Sequential of Linear, activation, Linear, ...: at 0, 2, 4, ..."""
        inside = [name for name in self.state if name.startswith(prefix + ".")]
        found = sorted({int(m[1]) for name in inside if (m := _INDEXED.match(name, len(prefix)))})
        if found != list(range(0, 2 * len(found), 2)):
            raise RefusedError(f"{self.what}: {prefix} is not an MLP", f"layers at {found}", "")
        return [self.linear(f"{prefix}.{index}") for index in found]

    def refuse_leftovers(self, unneeded: Iterable[str]) -> None:
        """Raise RefusedError when a tensor was neither taken nor under one of the `unneeded` prefixes."""
        ours = tuple(unneeded)
        left = [name for name in self.state if name not in self._taken and not name.startswith(ours)]
        if left:
            raise RefusedError(
                f"{self.what}: {left[0]} is part of a network not read yet",
                "kdcli reads multi-layer perceptrons on flat observations",
                "export the policy to ONNX where it was trained",
            )

    def count(self, *prefixes: str) -> int:
        """Numbers under the prefixes (all without), tensors that share memory counted once."""
        chosen = [t for name, t in self.state.items() if name.startswith(prefixes or "")]
        return sum({(t.untyped_storage().data_ptr(), t.storage_offset()): t.numel() for t in chosen}.values())


def _some(names: Iterable[str]) -> str:
    listed = sorted(name[:60] for name in names)
    return ", ".join(listed[:6]) + (", ..." if len(listed) > 6 else "")


def perceptron(layers: list[Layer], activation: str, what: str) -> MLP:
    """The layers as one MLP.

    Raises:
        RefusedError: their widths do not follow each other, or only some have a bias.
    """
    if not layers:
        raise RefusedError(f"{what} has no layers", "it is not a policy kdcli knows")
    widths = [layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)]
    if [layer.weight.shape[1] for layer in layers] != widths[:-1] or max(widths) > MAX_WIDTH:
        raise RefusedError(f"{what}: the layers do not fit each other", f"{[tuple(x.weight.shape) for x in layers]}")
    if len({layer.bias is None for layer in layers}) > 1:
        raise RefusedError(f"{what}: only some layers have a bias", "not read yet")
    with torch.device("meta"):  # neither draws random numbers nor fills memory
        network = MLP(widths[0], tuple(widths[1:-1]), widths[-1], activation, layers[0].bias is not None)
    for linear, layer in zip(network.linears(), layers, strict=True):
        linear.weight = torch.nn.Parameter(layer.weight)
        linear.bias = None if layer.bias is None else torch.nn.Parameter(layer.bias)  # type: ignore[assignment]
    return network
