"""The same function of features in other units: what scales and shifts them goes into the layers that read them."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcli.errors import UsageError
from kdcli.networks.dependency_graph import DependencyGraph, Reader, dependency_graph
from kdcli.networks.surgery import Network, Tensors, as_stack, built, like, tensors_of


def rescaled(network: Network, scale: Tensor, shift: Tensor) -> Network:
    """A new network that makes of x what this one makes of scale x + shift, both (F,); computed in float64.

    Raises:
        UsageError: a layer that reads features has no bias, or reads rows or an image by their places.
    """
    stack = as_stack(network)
    tensors, body = tensors_of(stack), dependency_graph(stack)
    fixed, first = list(body.fixed), _first(body)
    if (scale[fixed] != 1).any() or (shift[fixed] != 0).any() or _lack_bias(first, tensors):
        why = "a layer that reads them has no bias, or reads rows or an image"
        raise UsageError("what the network sees cannot be scaled otherwise", why, "normalize alike")
    for reader in first:
        at, weight = torch.from_numpy(reader.owner), tensors[reader.weight].double()
        tensors[reader.bias] = (tensors[reader.bias].double() + weight @ shift[at]).float()
        tensors[reader.weight] = (weight * scale[at]).float()
    trained = next(network.parameters()).requires_grad
    return like(built(stack.config(), tensors), network).requires_grad_(trained).train(network.training)


def can_rescale(network: Network) -> bool:
    """Whether `rescaled` can do it, whatever the units are."""
    stack = as_stack(network)
    try:
        body = dependency_graph(stack)
    except UsageError:
        return False
    return not body.fixed and not _lack_bias(_first(body), tensors_of(stack))


def _first(body: DependencyGraph) -> list[Reader]:
    """Who reads features."""
    return [r for r in body.readers if ((r.owner >= 0) & (r.owner < body.n_features)).all()]


def _lack_bias(readers: list[Reader], tensors: Tensors) -> bool:
    return any(reader.bias not in tensors for reader in readers)
