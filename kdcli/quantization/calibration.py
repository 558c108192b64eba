"""From numbers that were seen to the range that a grid should cover."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kdcli.choice import Choice
from kdcli.errors import UsageError
from kdcli.quantization import CALIBRATIONS

# Numbers (N,) or (N, F), and the bits of the grid -> lowest and highest, () or (F,).
Ranges = tuple[np.ndarray, np.ndarray]
Calibration = Callable[[np.ndarray, int], Ranges]
_BINS = 2048


def parse_calibration(text: str) -> Calibration | None:
    """`minmax`, `percentile:99.9`, `entropy`; None for `dynamic`.

    Raises:
        UsageError: unknown, or a share that is none.
    """
    choice = Choice.parse(text)
    return CALIBRATIONS.load(choice.name)(choice)


def dynamic(choice: Choice) -> None:
    """No range: each sample brings its own."""
    choice.only()


def minmax(choice: Choice) -> Calibration:
    """The least and the greatest number."""
    choice.only()
    return lambda seen, _: (seen.min(0), seen.max(0))


def percentile(choice: Choice) -> Calibration:
    """Between the two percentiles that leave out equal shares on both sides."""
    choice.only()
    try:
        share = float(choice.value or 99.9)
    except ValueError:
        share = 0.0
    if not 50.0 < share <= 100.0:
        raise UsageError(f"cannot read {str(choice)!r}", "a share above 50 and up to 100", "e.g. percentile:99.9")
    outside = (100.0 - share) / 2
    return lambda seen, _: (np.percentile(seen, outside, axis=0), np.percentile(seen, 100 - outside, axis=0))


def entropy(choice: Choice) -> Calibration:
    """The range whose grid keeps most of the distribution: the least KL divergence of histograms (Migacz 2017)."""
    choice.only()

    def found(seen: np.ndarray, bits: int) -> Ranges:
        if seen.ndim == 1:
            low, high = _least_divergence(seen, bits)
            return np.asarray(low), np.asarray(high)
        pairs = [_least_divergence(column, bits) for column in seen.T]
        return np.array([low for low, _ in pairs]), np.array([high for _, high in pairs])

    return found


def _least_divergence(seen: np.ndarray, bits: int) -> tuple[float, float]:
    """Numbers (N,) -> the range, as far to each side of 0 as it goes there.

    Zeros, which every grid holds exactly, do not count: behind a ReLU they are most, and all else would be cut.
    """
    seen = seen[seen != 0] if (seen != 0).any() else seen
    low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    counts, edges = np.histogram(np.abs(seen), _BINS, (0.0, max(high, -low, 1e-12)))
    levels = max(2, 1 << min(bits - (low < 0), 10))
    tries = np.unique(np.linspace(min(levels, _BINS), _BINS, 64).astype(int))
    best = min(tries, key=lambda n: (_divergence(counts, n, levels), n))
    return max(low, -edges[best]), min(high, edges[best])


def _divergence(counts: np.ndarray, n: int, levels: int) -> float:
    """KL of the histogram cut off after n bins, the rest in the last, from the same on so many levels."""
    kept = counts[:n].astype(np.float64)
    p = kept.copy()
    p[-1] += counts[n:].sum()
    group = np.minimum(np.arange(n) * levels // n, levels - 1)
    there = kept > 0
    mass, members = np.bincount(group, kept, levels), np.bincount(group, there, levels)
    q = np.where(there, mass[group] / np.maximum(members[group], 1), 0.0)
    seen = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q == 0)].sum() / p.sum()
    p, q = p / p.sum(), q / max(q.sum(), 1e-12)
    return float((p[seen] * np.log(p[seen] / q[seen])).sum() + lost * np.log(1e12))
