"""Which weights of a policy lie on few levels: a description beside the float weights that torch computes with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from kdcli.agents.policy import Policy
from kdcli.networks.activation_grid import GridLayer
from kdcli.networks.packed_weights import Packed


def unpack_into(policy: Policy, packing: Mapping[str, Packed]) -> Policy:
    """Set the decoded weights in `policy` itself and remember what they lie on; returns it."""
    for name, packed in packing.items():
        module_name, _, key = name.rpartition(".")
        module = dict(policy.named_modules()).get(module_name)
        before = getattr(module, key, None)
        if not isinstance(module, nn.Module) or not isinstance(before, nn.Parameter):
            raise ValueError(f"packed weights of {name[:80]}, which is no parameter")
        if tuple(before.shape) != packed.codes.shape:
            raise ValueError(f"packed weights {packed.codes.shape} of {name[:80]}, which is {tuple(before.shape)}")
        setattr(module, key, nn.Parameter(torch.from_numpy(packed.decoded()), requires_grad=False))
    policy.packing = dict(packing)
    return policy


def held(policy: Policy) -> dict[str, Packed]:
    """The packing of those parameters that still are what it says; changed ones, as by training, are float again."""
    parameters = dict(policy.named_parameters())
    return {
        name: packed
        for name, packed in policy.packing.items()
        if name in parameters and np.array_equal(parameters[name].detach().numpy(), packed.decoded())
    }


def stored_as(policy: Policy) -> str:
    """What the weights are stored as: `fp32`, or the bits of a weight: `8 bits`, `4 to 8 bits`."""
    bits = sorted({packed.bits for packed in policy.packing.values()})
    return "fp32" if not bits else f"{bits[0]} bits" if len(bits) == 1 else f"{bits[0]} to {bits[-1]} bits"


def is_quantized(policy: Policy) -> bool:
    """Whether weights lie on few levels or activations on a grid."""
    return bool(policy.packing) or any(isinstance(module, GridLayer) for module in policy.modules())


def bits_a_weight(policy: Policy) -> float:
    """Bits of storage for each number of the weight matrices that act, with what their codes stand for."""
    packing = held(policy)
    matrices = {f"network.{name}": p for name, p in policy.network.named_parameters() if p.ndim > 1}
    stored = sum(packing[name].n_bytes if name in packing else 4 * p.numel() for name, p in matrices.items())
    return 8 * stored / sum(p.numel() for p in matrices.values())
