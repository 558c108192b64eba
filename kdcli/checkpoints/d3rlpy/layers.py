"""The layers inside d3rlpy's networks, as its JSON describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import pi
from typing import Any

import torch
from torch import Tensor

from kdcli.checkpoints import assembly
from kdcli.checkpoints.assembly import Part
from kdcli.checkpoints.safe.weights import Layer, Weights
from kdcli.errors import RefusedError

EXPORT = "save_policy('policy.onnx') of d3rlpy gives a file that kdcli reads"
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "tanh": "tanh", "swish": "silu"}
_NATURE = [[32, 8, 4], [64, 4, 2], [64, 3, 1]]


def encoder(weights: Weights, prefix: str, factory: Mapping[str, Any]) -> list[Part]:
    """The layers of an encoder, in d3rlpy's order: linear, activation, batch norm, layer norm, dropout."""
    inside = f"{prefix}_encoder."
    if factory["type"] == "vector":
        hidden = len(factory.get("hidden_units") or (256, 256))
        return _blocks(_Walk(weights, f"{inside}_layers"), [None] * hidden, factory, True)
    filters: list[Any] = factory.get("filters") or _NATURE
    cnn = _blocks(_Walk(weights, f"{inside}_cnn_layers"), [int(f[2]) for f in filters], factory, False)
    last = _blocks(_Walk(weights, f"{inside}_last_layers"), [None], factory, True)
    return [*cnn, assembly.FLATTEN, *last]


class _Walk:
    """The places of an `nn.Sequential`, one after the other."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        self.weights, self.prefix, self.place = weights, prefix, 0

    def next(self) -> str:
        self.place += 1
        return f"{self.prefix}.{self.place - 1}"


def _blocks(walk: _Walk, strides: Sequence[int | None], factory: Mapping[str, Any], ends: bool) -> list[Part]:
    """One block a stride, a linear one where there is none; `ends`: the last one is the encoder's last."""
    parts: list[Part] = []
    for at, stride in enumerate(strides):
        name = walk.next()
        layer = assembly.linear(walk.weights.linear(name)) if stride is None else None
        parts.append(layer or assembly.conv2d(walk.weights, name, stride or 1))
        parts += _after(walk, factory, ends and at == len(strides) - 1, stride is None)
    return parts


def _after(walk: _Walk, factory: Mapping[str, Any], last: bool, flat: bool) -> list[Part]:
    """What follows a layer; an identity and a dropout take a place but do nothing."""
    found: list[Part] = []
    if not (last and factory.get("exclude_last_activation")):
        walk.next()
        name = (factory.get("last_activation") if last else None) or factory.get("activation", "relu")
        if name != "none":
            found.append(assembly.activation(_ACTIVATIONS[name]))
    if factory.get("use_batch_norm"):
        found.append(assembly.batch_norm(walk.weights, walk.next()))
    if factory.get("use_layer_norm") and flat:
        found.append(assembly.layer_norm(walk.weights, walk.next()))
    if factory.get("dropout_rate") is not None:
        walk.next()
    return found


def expected(weights: Weights, prefix: str, kind: Mapping[str, Any], n_actions: int) -> Layer:
    """The layer whose outputs are Q-values (A,): the mean over quantiles is taken in float64 beforehand."""
    head, name = weights.linear(f"{prefix}_fc"), kind["type"]
    if name == "mean":
        return head
    if name == "qr":
        quantiles = int(kind["params"]["n_quantiles"])
        weight = head.weight.double().reshape(n_actions, quantiles, -1).mean(1)
        assert head.bias is not None
        return Layer(head.name, weight.float(), head.bias.double().reshape(n_actions, quantiles).mean(1).float())
    if name == "iqn":
        mean = _embedding(weights.linear(f"{prefix}_embed"), kind["params"])
        return Layer(head.name, (head.weight.double() * mean).float(), head.bias)
    raise RefusedError(
        f"{weights.what}: Q-functions of kind {str(name)[:40]} are not read", "read: mean, qr, iqn", EXPORT
    )


def _embedding(layer: Layer, params: Mapping[str, Any]) -> Tensor:
    """The mean over the greedy quantile fractions of relu(W cos(pi i tau) + b), Dabney et al. 2018, eq. 4: (H,)."""
    taus = torch.linspace(0, 1, int(params["n_greedy_quantiles"]), dtype=torch.float64)
    steps = torch.arange(int(params["embed_size"]), dtype=torch.float64) + 1
    assert layer.bias is not None
    return torch.relu(torch.cos(pi * taus[:, None] * steps) @ layer.weight.double().T + layer.bias.double()).mean(0)
