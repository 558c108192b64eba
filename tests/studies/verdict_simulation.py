"""How often the verdict is wrong, over the returns of real agents.

    KDCLI_ZOO=<folder of agents> python tests/studies/verdict_simulation.py [--episodes 100] [--simulations 1000]
        [--without bca|t|zero-failure ...]     what the rule would be without one of its three intervals

Students are made from a teacher's own returns (the last five evaluations in its evaluations.npz, drawn with
replacement), so that the true score is known: equal, moved, scaled, or falling in a share of the episodes. Student and
teacher are paired by a Gaussian copula with correlation `rho` of the ranks. Random play has the mean of the zoo's
manifest and a standard deviation of a tenth of the gain. Without KDCLI_ZOO the synthetic families below are used.

A simulation is the product's rule on many comparisons at once: BCa as matrix products over the same resamples that
scipy draws in the product. `agrees` checks the two against each other, and every cell of the table does so.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import ndtr, ndtri

from kdcli.benchmarks.statistics import N_RESAMPLES, SEED
from kdcli.benchmarks.verdict import compare

MIN_SCORE, CONFIDENCE = 0.95, 0.95
RHOS = (0.0, 0.6)
PARTS = ("bca", "t", "zero-failure")
_AT_ONCE = 100  # simulations: 8 MB of resampled scores


class Family(NamedTuple):
    """The returns of a real or made-up agent (k,), and the mean return of random play."""

    name: str
    returns: np.ndarray
    random: float


class Case(NamedTuple):
    """What a student does: its score is `true`, and `falls` of its (and of the teacher's) episodes end at `depth`."""

    name: str
    true: float
    change: Callable[[np.ndarray, float], np.ndarray] = lambda gain, _: gain
    depth: float = 0.0
    falls: float = 0.0
    both: bool = False


class Cell(NamedTuple):
    """Shares of the simulations of one case on one family."""

    case: str
    family: str
    rho: float
    true: float
    holds: float
    fails: float
    undecided: float
    coverage: float


def _falling(depth: float, true: float, name: str) -> Case:
    """A student that equals the teacher but falls to the score `depth` so often that its score is `true`."""
    return Case(name, true, depth=depth, falls=(1 - true) / (1 - depth))


CASES = [
    Case("equal", 1.0),
    Case("at the bound: all 5 % lower", 0.95, lambda gain, mean: gain - 0.05 * mean),
    Case("at the bound: scaled by 0.95", 0.95, lambda gain, _: 0.95 * gain),
    _falling(0.0, 0.95, "at the bound: falls to random"),
    _falling(0.5, 0.95, "at the bound: falls half way"),
    _falling(-0.5, 0.95, "at the bound: falls below random"),
    _falling(0.0, 0.949, "just under: falls to random"),
    _falling(0.5, 0.949, "just under: falls half way"),
    Case("10 % worse: all lower", 0.9, lambda gain, mean: gain - 0.1 * mean),
    _falling(0.0, 0.9, "10 % worse: falls to random"),
    _falling(0.0, 0.98, "2 % worse: falls to random"),
    Case("equal, both fall in 5 %", 1.0, falls=0.05, both=True),
    Case("equal, both fall in 2 %", 1.0, falls=0.02, both=True),
]
BEYOND = [_falling(-1.0, 0.95, "not guarded: falls a whole gain below random")]


def synthetic() -> list[Family]:
    """Shapes of the zoo's families: saturated, tight, long left tail, two modes, steps, wide."""
    u = (np.arange(200) + 0.5) / 200
    z = ndtri(u)
    return [
        Family("saturated", np.full(50, 500.0), 20.0),
        Family("tight", 3300 + 30 * z, 20.0),
        Family("left tail", 5800 - 100 * stats.expon.ppf(u) - 4000 * (u < 0.02), -270.0),
        Family("two modes", np.where(u < 0.3, 113.0, 265 + 20 * z), -200.0),
        Family("steps", -np.round(75 + 10 * stats.expon.ppf(u)), -500.0),
        Family("wide", -150 + 90 * z, -1250.0),
    ]


def zoo(folder: Path) -> list[Family]:
    """The agents of a folder with `manifest.json` and an `evaluations.npz` of at least 20 last episodes each."""
    found = []
    for agent in json.loads((folder / "manifest.json").read_text())["agents"]:
        file = folder / agent["folder"] / "evaluations.npz"
        if "random_policy_return" in agent and file.exists():
            returns = np.load(file)["results"][-5:].astype(np.float64).ravel()
            if len(returns) >= 20:
                found.append(Family(agent["folder"], returns, agent["random_policy_return"]))
    return found


def draw(case: Case, family: Family, rho: float, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns of student, teacher and random play, each of `shape` (simulations, episodes)."""
    rng = np.random.default_rng([2026, zlib.crc32(f"{case.name}/{family.name}".encode()), int(100 * rho)])
    gains = np.sort(family.returns) - family.random
    mean = float(gains.mean())
    z = rng.normal(size=shape)
    pair = z, rho * z + np.sqrt(1 - rho**2) * rng.normal(size=shape)
    teacher, student = (gains[np.minimum((ndtr(x) * len(gains)).astype(int), len(gains) - 1)] for x in pair)
    student = np.where(rng.random(shape) < case.falls, case.depth * mean, case.change(student, mean))
    if case.both:
        teacher = np.where(rng.random(shape) < case.falls, case.depth * mean, teacher)
    random = rng.normal(family.random, 0.1 * mean, shape)
    return student + family.random, teacher + family.random, random


@cache
def _weights(n: int) -> np.ndarray:
    """How often each of n episodes is in each of the product's resamples, over n: (N_RESAMPLES, n)."""
    drawn = np.random.default_rng(SEED).integers(0, n, (N_RESAMPLES, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn]) / n


def _bca(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """BCa ends of mean(a) / mean(b) for each row of (S, n): (2, S). Efron 1987; jackknife acceleration."""
    n = a.shape[1]
    top, bottom = a.mean(1, keepdims=True), b.mean(1, keepdims=True)
    weights = _weights(n).T
    resampled = np.sort(np.round((a @ weights) / np.maximum(b @ weights, 1e-3 * bottom), 12), axis=1)
    value = np.round(top / bottom, 12)
    z0 = ndtri(((resampled < value).mean(1) + (resampled <= value).mean(1)) / 2)
    without = (n * top - a) / (n * bottom - b)
    pull = without.mean(1, keepdims=True) - without
    skew = (pull**3).sum(1) / (pull**2).sum(1) ** 1.5 / 6
    z = z0 + ndtri((1 - CONFIDENCE) / 2) * np.array([[1], [-1]])
    at = ndtr(z0 + z / (1 - skew * z)) * (N_RESAMPLES - 1)
    lower, rows = np.floor(at).astype(int), np.arange(len(a))
    below, above = resampled[rows, lower], resampled[rows, np.minimum(lower + 1, N_RESAMPLES - 1)]
    return below + (at - lower) * (above - below)


def intervals(
    student: np.ndarray, teacher: np.ndarray, random: np.ndarray, parts: Sequence[str] = PARTS
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the score's interval for each row of (S, n): with all `parts`, what `compare` gives, all at once."""
    level = random.mean(1)
    a, b = student - random, teacher - random
    count, gain, value = a.shape[1], b.mean(1), a.mean(1) / b.mean(1)
    rest = (a - value[:, None] * b) / gain[:, None]
    varies = np.ptp(rest, axis=1) > 1e-9 * np.abs(np.stack([student, teacher, random])).max((0, 2)) / gain
    low, high = value.copy(), value.copy()
    if "t" in parts:
        half = varies * stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * rest.std(1, ddof=1) / count**0.5
        low, high = value - half, value + half
    rows = np.flatnonzero(varies) if "bca" in parts else np.array([], dtype=int)
    for some in np.split(rows, range(_AT_ONCE, len(rows), _AT_ONCE)):
        ends = _bca(a[some], b[some])
        low[some], high[some] = np.minimum(low[some], ends[0]), np.maximum(high[some], ends[1])
    if "zero-failure" in parts:
        p = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
        floor = (np.minimum(level, np.minimum(student.min(1), teacher.min(1))) - level) / gain
        low = np.minimum(low, (1 - p) * value + p * floor)
        high = np.maximum(high, value + p / (1 - p) * np.maximum(value, 1))
    return low, high


def agrees(student: np.ndarray, teacher: np.ndarray, random: np.ndarray) -> bool:
    """Whether the product gives the same intervals for the first rows."""
    low, high = intervals(student[:3], teacher[:3], random[:3])
    made = [compare(*row) for row in zip(student[:3], teacher[:3], random[:3], strict=True)]
    ends = np.array([(c.low, c.high) for c in made], dtype=float)
    return bool(np.allclose(ends, np.stack([low, high], axis=1), rtol=1e-9, atol=1e-9))


class Setting(NamedTuple):
    """How large the study is, and the intervals the rule spans."""

    simulations: int = 1000
    episodes: int = 100
    parts: Sequence[str] = PARTS


def simulate(case: Case, family: Family, rho: float, setting: Setting) -> Cell:
    """One cell: the shares of verdicts and of intervals that contain the true score."""
    returns = draw(case, family, rho, (setting.simulations, setting.episodes))
    if not agrees(*returns):
        raise AssertionError(f"the study and the product differ: {case.name}, {family.name}")
    low, high = intervals(*returns, parts=setting.parts)
    holds, fails = float((low > MIN_SCORE).mean()), float((high < MIN_SCORE).mean())
    covered = float(((low <= case.true + 1e-9) & (high >= case.true - 1e-9)).mean())
    return Cell(case.name, family.name, rho, case.true, holds, fails, 1 - holds - fails, covered)


def study(families: list[Family], cases: list[Case], setting: Setting) -> Iterator[Cell]:
    """Every case on every family at every correlation."""
    for case, family, rho in product(cases, families, RHOS):
        yield simulate(case, family, rho, setting)


def line(cell: Cell) -> str:
    """A row of the table, shares in per cent."""
    shares = " | ".join(f"{100 * share:5.1f}" for share in cell[4:])
    return f"| {cell.case} | {cell.family} | {cell.rho:g} | {shares} |"


def main() -> None:
    """Print the table and the two numbers that matter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--without", nargs="*", default=[], choices=PARTS)
    options = parser.parse_args()
    parts = [part for part in PARTS if part not in options.without]
    families = zoo(Path(os.environ["KDCLI_ZOO"])) if "KDCLI_ZOO" in os.environ else synthetic()
    print("| case | agent | rho | holds % | fails % | undecided % | coverage % |\n|---|---|---|---|---|---|---|")
    cells = []
    for cell in study(families, CASES + BEYOND, Setting(options.simulations, options.episodes, parts)):
        print(line(cell), flush=True)
        cells.append(cell)
    cells = [cell for cell in cells if cell.case not in {case.name for case in BEYOND}]
    worst = max((cell for cell in cells if cell.true <= MIN_SCORE), key=lambda cell: cell.holds)
    narrow = min(cells, key=lambda cell: cell.coverage)
    size = f"{options.simulations} simulations of {options.episodes} episodes a cell, {len(families)} agents"
    print(f"\n{size}; interval: {' + '.join(parts)}")
    print(f"worst false holds: {line(worst)}\nworst coverage:    {line(narrow)}")


if __name__ == "__main__":
    main()
