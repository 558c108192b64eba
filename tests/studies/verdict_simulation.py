"""How often a verdict is wrong, how often it is reached, and after how many episodes.

    python tests/studies/verdict_simulation.py [--simulations 1000] [--most 500] [--rule bets|spending|spanned ...]
    KDCLI_ZOO=<folder of agents> python ...    the same over the last evaluations of real agents

Students are made from a teacher's own returns (drawn with replacement), so that the true score is known: equal, lower
every day, or falling in a share of the episodes. Student and teacher are paired by a Gaussian copula with correlation
`rho` of the ranks. Random play has the mean of the family and a standard deviation of a tenth of the gain.

Three rules: `bets` is the product's, looked at every 10 episodes from 50 on, which is more often than it does itself;
`spending` is a paired t test with O'Brien-Fleming bounds at fifths of the most episodes (Lan and DeMets 1983);
`spanned` is one look at 100 episodes at what bootstrap (BCa), Student's t and the bound of zero failures span, an
unseen fall being as deep as the mean of random play. `agrees` checks `bets` against the product, in every cell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import ndtr, ndtri

from kdcli.benchmarks.betting import BETS, STAKES
from kdcli.benchmarks.score import Risk
from kdcli.benchmarks.statistics import bca
from kdcli.benchmarks.verdict import compare

MIN_SCORE, CONFIDENCE = 0.95, 0.95
RHOS = (0.0, 0.9)
FIRST, EVERY, FIFTHS = 50, 10, 5
# One-sided 2.5 % over five equally spaced looks: z = 2.040 sqrt(5 / k) (Jennison and Turnbull 2000, table 2.3).
_OBRIEN_FLEMING = 2.040


class Family(NamedTuple):
    """The returns of a real or made-up agent (k,), and the mean return of random play."""

    name: str
    returns: np.ndarray
    random: float


class Case(NamedTuple):
    """What a student does: its score is `true`.

    A share `falls` of its episodes (with `both`, of the teacher's, too) end at the score `depth`, the others are lower
    than the teacher's by what is missing. `floor` is the score that the user knows no episode is below; None: not told.
    """

    name: str
    true: float
    falls: float = 0.0
    depth: float = 0.0
    both: bool = False
    floor: float | None = None


class Cell(NamedTuple):
    """Shares of the simulations of one case on one family, and the mean number of episodes."""

    case: str
    family: str
    rho: float
    true: float
    holds: float
    fails: float
    undecided: float
    episodes: float


RATES = (0.002, 0.005, 0.01, 0.02)
_DEEP = {rate: 1 - 0.07 / rate for rate in RATES}  # a student that is worth 0.93 by its falls alone
EVERYDAY = [Case(f"{true:g} every day", true) for true in (1.0, 0.97, 0.95, 0.93, 0.9)]
FALLS = [
    *(
        Case(f"{true:g}, falls to random in {rate:.1%}", true, rate, -0.2)
        for true, rate in product((0.95, 0.93), RATES)
    ),
    Case("1, both fall in 2 %", 1.0, 0.02, both=True),
    Case("1, both fall in 5 %", 1.0, 0.05, both=True),
    Case("0.95, falls to random in 5 %", 0.95, 0.05),
]
KNOWN = [Case(f"0.93, deep falls in {rate:.1%}, --floor", 0.93, rate, _DEEP[rate], floor=_DEEP[rate]) for rate in RATES]
CASES = [*EVERYDAY, *FALLS, *KNOWN]
# Nobody can promise anything of falls that are deeper than what anyone knows of.
BEYOND = [Case(f"0.93, deep falls in {rate:.1%}", 0.93, rate, _DEEP[rate]) for rate in RATES]


def synthetic() -> list[Family]:
    """Everyday errors of three sizes, heavy tails, two modes; of real agents: saturated, left tail, steps."""
    u = (np.arange(400) + 0.5) / 400
    z = ndtri(u)
    return [
        *(Family(f"Gaussian {sigma:g}", 1 + sigma * z, 0.0) for sigma in (0.03, 0.1, 0.2)),
        Family("heavy tails (t, 3)", 1 + 0.1 * stats.t.ppf(u, 3), 0.0),
        Family("two modes", np.where(u < 0.3, 0.7, 1.13 + 0.05 * z), 0.0),
        Family("saturated", np.full(50, 500.0), 20.0),
        Family("left tail", 5800 - 100 * stats.expon.ppf(u) - 4000 * (u < 0.02), -270.0),
        Family("steps", -np.round(75 + 10 * stats.expon.ppf(u)), -500.0),
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


class Drawn(NamedTuple):
    """Returns (simulations, episodes) of one cell, and the floor that the user knows."""

    student: np.ndarray
    teacher: np.ndarray
    random: np.ndarray
    floor: float | None


def draw(case: Case, family: Family, rho: float, shape: tuple[int, int]) -> Drawn:
    """Returns of student, teacher and random play."""
    rng = np.random.default_rng([2026, zlib.crc32(f"{case.name}/{family.name}".encode()), int(100 * rho)])
    gains = np.sort(family.returns) - family.random
    mean = float(gains.mean())
    z = rng.normal(size=shape)
    pair = z, rho * z + np.sqrt(1 - rho**2) * rng.normal(size=shape)
    teacher, student = (gains[np.minimum((ndtr(x) * len(gains)).astype(int), len(gains) - 1)] for x in pair)
    everyday = 1.0 if case.both else (case.true - case.falls * case.depth) / (1 - case.falls)
    student = np.where(rng.random(shape) < case.falls, case.depth * mean, student - (1 - everyday) * mean)
    if case.both:
        teacher = np.where(rng.random(shape) < case.falls, case.depth * mean, teacher)
    random = rng.normal(family.random, 0.1 * mean, shape)
    floor = None if case.floor is None else case.floor * mean + family.random
    return Drawn(student + family.random, teacher + family.random, random, floor)


Ended = tuple[np.ndarray, np.ndarray]  # of each simulation: 1 holds, -1 fails, 0 undecided; after how many episodes


def _fortune(x: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """The logarithm of what all bets have made of each row of x (S, n), the worst unseen episode being (S,)."""
    depth = -np.minimum(x.min(1), unseen)
    with np.errstate(divide="ignore"):
        made = [
            np.log1p(bet * x / depth[:, None]).sum(1) + math.log(stake) for bet, stake in zip(BETS, STAKES, strict=True)
        ]
    return np.asarray(np.logaddexp.reduce(made))


def bets(drawn: Drawn, most: int) -> Ended:
    """The product's rule, at every look of all simulations at once."""
    verdict, episodes, m = np.zeros(len(drawn.student), int), np.full(len(drawn.student), most), MIN_SCORE
    goal = math.log(1 / Risk(CONFIDENCE).error)
    for n in range(FIRST, most + 1, EVERY):
        open_ = np.flatnonzero(verdict == 0)
        if not len(open_):
            break
        s, t, r = (arm[open_, :n] for arm in drawn[:3])
        known = r.min(1) if drawn.floor is None else drawn.floor
        floor, low = np.minimum(known, np.minimum(s.min(1), t.min(1))), np.minimum(r.mean(1), t.min(1))
        x = s - m * t - (1 - m) * r
        up = _fortune(x, floor - m * t.max(1) - (1 - m) * r.max(1)) >= goal
        down = _fortune(-x, m * low + (1 - m) * r.min(1) - np.maximum(s.max(1), t.max(1))) >= goal
        verdict[open_] = np.where(up, 1, np.where(down, -1, 0))
        episodes[open_[up | down]] = n
    return verdict, episodes


def spending(drawn: Drawn, most: int) -> Ended:
    """A paired t statistic against O'Brien-Fleming bounds at five looks."""
    verdict, episodes = np.zeros(len(drawn.student), int), np.full(len(drawn.student), most)
    for k in range(1, FIFTHS + 1):
        n = most * k // FIFTHS
        s, t, r = (arm[:, :n] for arm in drawn[:3])
        x = s - MIN_SCORE * t - (1 - MIN_SCORE) * r
        spread = np.maximum(x.std(1, ddof=1), 1e-12)
        bound = stats.t.isf(stats.norm.sf(_OBRIEN_FLEMING * math.sqrt(FIFTHS / k)), n - 1)
        z = x.mean(1) / spread * math.sqrt(n)
        new = (verdict == 0) & (np.abs(z) >= bound)
        verdict[new], episodes[new] = np.sign(z[new]), n
    return verdict, episodes


def spanned(drawn: Drawn, most: int) -> Ended:
    """One look at `most` episodes, 100 at most: what BCa, t and the bound of zero failures span."""
    n = min(100, most)
    ends = np.array([_spanned(*(arm[:n] for arm in rows)) for rows in zip(*drawn[:3], strict=True)])
    return np.where(ends[:, 0] > MIN_SCORE, 1, np.where(ends[:, 1] < MIN_SCORE, -1, 0)), np.full(len(ends), n)


def _spanned(student: np.ndarray, teacher: np.ndarray, random: np.ndarray) -> tuple[float, float]:
    a, b, n, level = student - random, teacher - random, len(student), float(random.mean())
    gain = float(b.mean())
    value = float(a.mean()) / gain
    rest = (a - value * b) / gain
    half = float(stats.t.isf((1 - CONFIDENCE) / 2, n - 1)) * rest.std(ddof=1) / n**0.5
    share = 1 - ((1 - CONFIDENCE) / 2) ** (1 / n)
    floor = (min(level, float(student.min()), float(teacher.min())) - level) / gain
    low = min(value - half, (1 - share) * value + share * floor)
    high = max(value + half, value + share / (1 - share) * max(value, 1))
    if low <= MIN_SCORE <= high or np.ptp(rest) < 1e-9:  # the bootstrap can only widen it
        return low, high
    found = bca(
        lambda x, y, axis=-1: np.round(x.mean(axis) / np.maximum(y.mean(axis), 1e-3 * gain), 12), (a, b), CONFIDENCE
    )
    return min(low, found.low), max(high, found.high)


RULES: dict[str, Callable[[Drawn, int], Ended]] = {"bets": bets, "spending": spending, "spanned": spanned}


def agrees(drawn: Drawn) -> bool:
    """Whether the product says the same of the first rows at the first look."""
    student, teacher, random = (arm[:3, :FIRST] for arm in drawn[:3])
    few = Drawn(student, teacher, random, drawn.floor)
    made = [compare(*rows, min_score=MIN_SCORE, floor=few.floor).verdict for rows in zip(*few[:3], strict=True)]
    return [("undecided", "holds", "fails")[end] for end in bets(few, FIRST)[0]] == made


class Setting(NamedTuple):
    """How large the study is, and by what rule it judges."""

    simulations: int = 1000
    most: int = 500
    rule: str = "bets"


def simulate(case: Case, family: Family, rho: float, setting: Setting) -> Cell:
    """One cell: the shares of verdicts, and the mean number of episodes."""
    drawn = draw(case, family, rho, (setting.simulations, setting.most))
    if not agrees(drawn):
        raise AssertionError(f"the study and the product differ: {case.name}, {family.name}")
    verdict, episodes = RULES[setting.rule](drawn, setting.most)
    holds, fails = float((verdict == 1).mean()), float((verdict == -1).mean())
    return Cell(case.name, family.name, rho, case.true, holds, fails, 1 - holds - fails, float(episodes.mean()))


def study(families: Sequence[Family], cases: Sequence[Case], setting: Setting) -> Iterator[Cell]:
    """Every case on every family at every correlation."""
    for case, family, rho in product(cases, families, RHOS):
        yield simulate(case, family, rho, setting)


def line(name: str, cells: Sequence[Cell]) -> str:
    """A row of the table: the mean over the cells of a case, and the highest share of wrong verdicts among them."""
    holds, fails, undecided, episodes = (float(np.mean([cell[i] for cell in cells])) for i in (4, 5, 6, 7))
    wrong = max(cell.holds if cell.true <= MIN_SCORE else cell.fails for cell in cells)
    shares = " | ".join(f"{100 * share:.1f}" for share in (holds, fails, undecided, wrong))
    return f"| {name} | {shares} | {episodes:.0f} |"


def main() -> None:
    """Print a table for every rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=500)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--rule", nargs="*", default=["bets"], choices=list(RULES))
    options = parser.parse_args()
    families = zoo(Path(os.environ["KDCLI_ZOO"])) if "KDCLI_ZOO" in os.environ else synthetic()
    for rule in options.rule:
        setting = Setting(options.simulations, options.most, rule)
        size = f"{options.simulations} simulations of {options.most} episodes or fewer a cell, {len(families)} agents"
        print(f"\n{rule}: {size}, correlations {RHOS}\n")
        print(
            "| student | holds % | fails % | undecided % | worst wrong % | episodes |\n|---|---:|---:|---:|---:|---:|"
        )
        for case in [*CASES, *BEYOND]:
            print(line(case.name, list(study(families, [case], setting))), flush=True)


if __name__ == "__main__":
    main()
