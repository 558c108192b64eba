"""How a size goes from where it is to where it shall be: progress 0 -> 1 to a size."""

from __future__ import annotations


def geometric(start: float, goal: float, progress: float) -> float:
    """start (goal / start)^p."""
    return start * (goal / start) ** progress


def linear(start: float, goal: float, progress: float) -> float:
    """start + (goal - start) p."""
    return start + (goal - start) * progress


def cubic(start: float, goal: float, progress: float) -> float:
    """goal + (start - goal) (1 - p)^3: Zhu and Gupta 2017, eq. 1."""
    return goal + (start - goal) * (1 - progress) ** 3
