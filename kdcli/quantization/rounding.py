"""Whole numbers times a scale: for weights here, for activations in `grids`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdcli.networks.activation_grid import TINY, on_grid
from kdcli.networks.packed_weights import Packed

_SHARES = np.linspace(0.3, 1.0, 71)


class Linear(nn.Module):
    """weight -> (clip(round(weight / scale) + zero) - zero) * scale, with a learned scale.

    The gradient is that of LSQ (Esser et al. 2020): straight through to the weights inside the range, and to the
    logarithm of the scale, so that a step of the optimizer changes scales of any size by as much.
    """

    zero: Tensor

    def __init__(self, scale: np.ndarray, zero: np.ndarray, bits: int) -> None:
        super().__init__()
        self.bits, self.low, self.high = bits, -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        self.log_scale = nn.Parameter(torch.from_numpy(scale.astype(np.float32)).log())
        self.register_buffer("zero", torch.from_numpy(zero.astype(np.float32)))

    def _beside(self, numbers: Tensor, weight: Tensor) -> Tensor:
        """One number for all, or one a row beside all that follow."""
        return numbers.reshape(-1, *(1,) * (weight.ndim - 1)) if numbers.ndim else numbers

    def forward(self, weight: Tensor) -> Tensor:
        """(O, ...) -> (O, ...)."""
        scale, zero = (self._beside(numbers, weight) for numbers in (self.log_scale.exp(), self.zero))
        return straight_through(weight, scale, zero, self.low, self.high)

    def packed(self, weight: Tensor) -> Packed:
        """Codes, scale and, where it is not 0, zero."""
        scale = self.log_scale.detach().exp()
        beside, zero = self._beside(scale, weight), self._beside(self.zero, weight)
        codes = ((weight.detach() / beside).round() + zero).clamp(self.low, self.high)
        kind = np.int8 if self.bits <= 8 else np.int16
        zeros = self.zero.numpy().astype(np.int32) if self.zero.any() else None
        return Packed(codes.numpy().astype(kind), self.bits, scale=scale.numpy().copy(), zero=zeros)


def straight_through(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """`on_grid`, whose rounding has the gradient of the identity."""
    if not torch.is_grad_enabled():
        return on_grid(x, scale, zero, low, high)
    return _StraightThrough.apply(x, scale, low - zero, high - zero)


class _StraightThrough(torch.autograd.Function):
    """clip(round(x / scale), low, high) * scale, whole bounds; in one piece, since students are small and train on
    overhead.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
        steps = x / scale
        whole = steps.round().clamp_(low, high)
        ctx.save_for_backward(steps, whole, low, high)
        ctx.scale_shape = scale.shape
        return whole * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Of x where it is inside; of the scale, whole - steps inside, else whole (Esser et al. 2020, eq. 3)."""
        steps, whole, low, high = ctx.saved_tensors
        inside = (steps >= low) & (steps <= high)
        passed = gradient * inside
        of_scale = (gradient * whole).sub_(passed * steps)
        return passed, of_scale.sum_to_size(ctx.scale_shape), None, None


def fitted(weight: np.ndarray, bits: int, rows: bool, zero: bool, search: bool) -> Linear:
    """Levels for a matrix (O, ...): to its range, or with `search` to the share of it with the least squared error."""
    flat = weight.astype(np.float64).reshape(len(weight), -1) if rows else weight.astype(np.float64).reshape(1, -1)
    low, high = np.minimum(flat.min(1), 0.0), np.maximum(flat.max(1), 0.0)
    if not zero:
        high = np.maximum(high, -low)
        low = -high
    best_error, best = np.full(len(flat), np.inf), scale_and_zero(low, high, bits, zero)
    for share in _SHARES if search else ():
        scale, at = scale_and_zero(share * low, share * high, bits, zero)
        error = _squared(flat, scale, at, bits)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best = np.where(better, scale, best[0]), np.where(better, at, best[1])
    scale, at = best if rows else (best[0][0], best[1][0])
    return Linear(np.asarray(scale), np.asarray(at), bits)


def scale_and_zero(low: np.ndarray, high: np.ndarray, bits: int, zero: bool) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the code of 0 for ranges around it, signed codes; a symmetric range uses as many on each side."""
    steps = (1 << bits) - 1 if zero else max((1 << bits) - 2, 1)
    if bits == 2 and not zero:
        steps = 3  # of four codes, symmetry would leave one unused
    scale = np.maximum((high - low) / steps, TINY)
    at = np.round(-low / scale) - (1 << (bits - 1)) if zero else np.zeros_like(scale)
    return scale, at


def _squared(flat: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    codes = np.clip(np.round(flat / scale[:, None]) + zero[:, None], low, high)
    return np.square((codes - zero[:, None]) * scale[:, None] - flat).sum(1)
