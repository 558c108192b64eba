"""One form for surgery: every network as a stack of named layers, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdcli.networks.layers import LayerSpec
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Branch, Stack

Network = MLP | Stack
Tensors = dict[str, Tensor]


def tensors_of(network: Network) -> Tensors:
    """Copies of the network's parameters by name."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def built(config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Stack:
    """The stack of a configuration with these parameters."""
    with torch.device("meta"):
        stack = Stack.from_config(dict(config))
    stack.load_state_dict(dict(tensors), assign=True)
    return stack.eval().requires_grad_(False)


def as_stack(network: Network) -> Stack:
    """The same function as a stack with parameters of its own."""
    if isinstance(network, Stack):
        return built(network.config(), tensors_of(network))
    layers: list[LayerSpec] = []
    for width in network.hidden:
        layers += [("linear", {"out": width, "bias": network.bias}), (network.activation_name, {})]
    config = Stack([Branch(0, (network.inputs,))], layers, network.outputs, network.bias).config()
    moved = {_moved(name): tensor for name, tensor in tensors_of(network).items()}
    return built(config, moved)


def _moved(name: str) -> str:
    """`trunk.1.weight` of an MLP is `trunk.2.weight` of its stack, where activations are layers, too."""
    trunk, index, *rest = name.split(".")
    return ".".join([trunk, str(2 * int(index)), *rest]) if trunk == "trunk" else name


def like(stack: Stack, network: Network) -> Network:
    """The stack in the form that `network` has: an MLP again, if widths still describe it."""
    if not isinstance(network, MLP) or not _is_mlp(stack, network.activation_name):
        return stack
    linears = [stack.trunk[i] for i in range(0, len(stack.trunk), 2)]
    hidden = tuple(len(linear.weight) for linear in linears)  # type: ignore[arg-type]
    with torch.device("meta"):
        found = MLP(stack.inputs, hidden, stack.outputs, network.activation_name, stack.bias)
    moved = {_moved(name): name for name in found.state_dict()}
    found.load_state_dict({moved[name]: tensor for name, tensor in stack.state_dict().items()}, assign=True)
    return found.eval().requires_grad_(False)


def _is_mlp(stack: Stack, activation: str) -> bool:
    """Linear layers, each with this activation behind, all with biases or all without."""
    specs = stack.trunk_specs
    names = [name for name, _ in specs]
    biases = {bool(options.get("bias", True)) for name, options in specs if name == "linear"}
    plain = len(stack.parts) == 1 and stack.parts[0] == Branch(0, (stack.inputs,))
    return plain and names == ["linear", activation] * (len(specs) // 2) and biases <= {stack.bias}
