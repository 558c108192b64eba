"""Tables of levels for a matrix of weights."""

from __future__ import annotations

import numpy as np

_ROUNDS = 100
_SAMPLE = 1 << 16


def kmeans(weight: np.ndarray, n: int) -> np.ndarray:
    """`n` levels with a small squared error, in rising order, float32: Lloyd's algorithm in one dimension.

    Levels begin at even shares of the weights and of their range, whichever ends better. Fewer distinct weights than
    levels: the rest are the largest.
    """
    flat = np.sort(weight.astype(np.float64).reshape(-1))
    if len(flat) > _SAMPLE:  # every so many of the sorted: the same distribution
        flat = flat[np.linspace(0, len(flat) - 1, _SAMPLE).round().astype(np.int64)]
    shares = np.quantile(flat, (np.arange(n) + 0.5) / n)
    even = np.linspace(flat[0], flat[-1], n)
    found = [_lloyd(flat, start) for start in (shares, even)]
    return min(found, key=lambda levels: _error(flat, levels)).astype(np.float32)


def _lloyd(flat: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Sorted numbers, first levels -> levels that each are the mean of those nearest to them."""
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    for _ in range(_ROUNDS):
        edges = np.searchsorted(flat, (levels[1:] + levels[:-1]) / 2)
        first, last = np.concatenate([[0], edges]), np.concatenate([edges, [len(flat)]])
        sizes = last - first
        means = (sums[last] - sums[first]) / np.maximum(sizes, 1)
        moved = np.sort(np.where(sizes > 0, means, levels))
        if np.allclose(moved, levels, rtol=0, atol=1e-9):
            break
        levels = moved
    return levels


def _error(flat: np.ndarray, levels: np.ndarray) -> float:
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, flat)]
    return float(np.square(nearest - flat).sum())


def powers_of_two(weight: np.ndarray, bits: int) -> np.ndarray:
    """0 and +-2**k for 2**(bits - 1) - 1 neighbouring k, the largest the nearest to the largest weight; float32."""
    most = float(np.abs(weight).max())
    top = int(np.round(np.log2(most))) if most > 0 else 0
    sizes = np.exp2(top - np.arange((1 << (bits - 1)) - 1, dtype=np.float64))
    return np.sort(np.concatenate([-sizes, [0.0], sizes])).astype(np.float32)
