"""Quantized agents for tests: a trained policy put on grids after training, with what it saw in its own play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.policy import Policy
from kdcli.networks.activation_grid import Quantize
from kdcli.networks.layers import LayerSpec
from kdcli.networks.mlp import MLP
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Branch, Stack


def on_grids(agent: Agent, obs: np.ndarray, bits: int = 8, *, each: bool = False, inputs: int = 16) -> Agent:
    """An agent with an MLP, its activations on 8-bit grids, its features on a wider one (`each`: one for each), its
    weights on `bits` bits a row."""
    mlp = agent.policy.network
    assert isinstance(mlp, MLP)
    byte = ("quantize", {"low": 0, "high": 255})
    wide = ("quantize", {"low": -(1 << (inputs - 1)), "high": (1 << (inputs - 1)) - 1, "each": each})
    trunk: list[LayerSpec] = []
    for width in mlp.hidden:
        trunk += [("linear", {"out": width}), (mlp.activation_name, {}), byte]
    stack = Stack([Branch(0, (mlp.inputs,), (wide,))], trunk, mlp.outputs)
    ours = [module for module in (*stack.trunk, stack.head) if isinstance(module, nn.Linear)]
    for layer, theirs in zip(ours, mlp.linears(), strict=True):
        layer.load_state_dict(theirs.state_dict())
    _calibrate([*stack.branches[0], *stack.trunk], agent.preprocess(obs))  # type: ignore[misc]
    made = replace(agent, policy=Policy(stack, agent.policy.rule, agent.policy.signal).eval().requires_grad_(False))
    return made.packed(rounded(made, bits))


@torch.no_grad()
def _calibrate(modules: Sequence[nn.Module], x: torch.Tensor) -> None:
    """Put each grid over the range of what it sees, 0 on a code."""
    for module in modules:
        if isinstance(module, Quantize):
            seen = x if module.scale.ndim else x.reshape(-1, 1)
            low, high = seen.amin(0).clamp(max=0), seen.amax(0).clamp(min=0)
            scale = ((high - low) / (module.high - module.low)).clamp(min=1e-6).reshape(module.scale.shape)
            module.scale = scale
            module.zero = (module.low - (low.reshape(scale.shape) / scale)).round()
        x = module(x)


def rounded(agent: Agent, bits: int) -> dict[str, Packed]:
    """Every weight matrix to the nearest of its codes, a scale for each row."""
    found = {}
    for name, parameter in agent.policy.named_parameters():
        if parameter.ndim > 1:
            weight, top = parameter.detach().numpy(), (1 << (bits - 1)) - 1
            scale = np.abs(weight).reshape(len(weight), -1).max(1).astype(np.float32) / np.float32(top)
            codes = np.round(weight / scale.reshape(-1, *(1,) * (weight.ndim - 1)))
            found[name] = Packed(np.clip(codes, -top, top).astype(np.int16), bits, scale=scale)
    return found
