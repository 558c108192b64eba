"""Batch normalization of a student's convolutions while it trains, folded into their weights before it acts.

Most of an image never changes, and a fresh convolution passes that on: its units are always on or always off, and what
moves is lost beside it. Normalized over batches (Ioffe and Szegedy 2015, algorithm 1) they follow what changes. The
student that acts, is kept and is exported is an ordinary network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdcli.agents.packed_weights import is_quantized
from kdcli.agents.policy import Policy

_EPSILON = 1e-5  # of Ioffe and Szegedy, added to a variance
_OVER = (0, 2, 3)  # a channel's statistics are those of all images and places
# A convolution and what it gave (B, C, h, w) -> what stands in its place.
Hook = Callable[[nn.Conv2d, Tensor], Tensor]


def standardize(policy: Policy, features: Tensor) -> None:
    """Scale fresh convolutions so that each channel has mean 0 and variance 1 over these features (B, F).

    Salimans and Kingma 2016 (Weight Normalization), section 3, on data-dependent initialization.
    """

    def scale(layer: nn.Conv2d, out: Tensor) -> Tensor:
        mean, deviation = _statistics(out)
        _scale(layer, 1.0 / deviation)
        _bias(layer).sub_(mean).div_(deviation)
        return _normalized(out)

    _visit(policy, features, scale)


class BatchNorm(nn.Module):
    """What a student's convolutions are between trainings, when their weights hold the normalization.

    A layer's bias is added after it, and its gain is the deviation that a channel began with, so that it begins as the
    function that the student is; an activation that follows needs no gain that is learned.
    """

    def __init__(self, policy: Policy | None) -> None:
        super().__init__()
        self._policy = (policy,)  # a tuple hides it: its parameters are not ours
        self._layers = () if policy is None else tuple(_convolutions(policy))
        self.register_buffer("begun", torch.tensor(False))
        for i, layer in enumerate(self._layers):
            self.register_buffer(f"gain{i}", torch.ones(layer.out_channels))
            self.register_buffer(f"weight{i}", layer.weight.detach().clone())
            self.register_buffer(f"bias{i}", _bias(layer).detach().clone())

    @contextmanager
    def training_on(self, features: Callable[[], Tensor]) -> Iterator[None]:
        """Normalize over batches within; at its end fold the statistics of `features()` (B, F) into the weights."""
        if not self._layers:
            yield
            return
        self._unfold(features)
        handles = [layer.register_forward_hook(_hook(self._by_batch)) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._fold(features())

    def _visit(self, features: Tensor, change: Hook) -> None:
        (policy,) = self._policy
        assert policy is not None
        _visit(policy, features, change)

    def _by_batch(self, layer: nn.Conv2d, out: Tensor) -> Tensor:
        gain = getattr(self, f"gain{self._layers.index(layer)}")
        return _normalized(out) * _channels(gain) + _channels(_bias(layer))

    @torch.no_grad()
    def _unfold(self, features: Callable[[], Tensor]) -> None:
        """Back to the weights that are trained; the first time, to the function that the student is."""
        if not self.begun:
            self._visit(features(), self._begin)
            self.begun.fill_(True)  # type: ignore[operator]
            return
        for i, layer in enumerate(self._layers):
            layer.weight.copy_(getattr(self, f"weight{i}"))
            _bias(layer).copy_(getattr(self, f"bias{i}"))

    def _begin(self, layer: nn.Conv2d, out: Tensor) -> Tensor:
        mean, deviation = _statistics(out)
        getattr(self, f"gain{self._layers.index(layer)}").copy_(deviation)
        _bias(layer).copy_(mean)
        return out

    def _fold(self, features: Tensor) -> None:
        def fold(layer: nn.Conv2d, out: Tensor) -> Tensor:
            i, given = self._layers.index(layer), self._by_batch(layer, out)
            mean, deviation = _statistics(out)
            factor = getattr(self, f"gain{i}") / deviation
            getattr(self, f"weight{i}").copy_(layer.weight)
            getattr(self, f"bias{i}").copy_(_bias(layer))
            _scale(layer, factor)
            _bias(layer).add_((_bias(layer) - mean) * factor)
            return given

        self._visit(features, fold)


def _convolutions(policy: Policy) -> Sequence[nn.Conv2d]:
    """Those whose weights may be scaled: none on few levels, none that something else makes."""
    if is_quantized(policy):
        return ()
    found = [layer for layer in policy.network.modules() if isinstance(layer, nn.Conv2d)]
    return [layer for layer in found if layer.bias is not None and not parametrize.is_parametrized(layer)]


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _hook(change: Hook) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda layer, _, out: change(layer, out)  # type: ignore[arg-type]


@torch.no_grad()
def _visit(policy: Policy, features: Tensor, change: Hook) -> None:
    """Run the network once; `change` sees each convolution in turn, behind those that were changed."""
    layers = _convolutions(policy)
    if not layers:
        return
    handles = [layer.register_forward_hook(_hook(change)) for layer in layers]
    try:
        policy.outputs(features)
    finally:
        for handle in handles:
            handle.remove()


def _statistics(out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel (C,)."""
    variance, mean = torch.var_mean(out, _OVER, correction=0)
    return mean, (variance + _EPSILON).sqrt()


def _normalized(out: Tensor) -> Tensor:
    return nn.functional.batch_norm(out, None, None, training=True, eps=_EPSILON)


def _scale(layer: nn.Conv2d, factor: Tensor) -> None:
    layer.weight.mul_(factor[:, None, None, None])


def _channels(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]
