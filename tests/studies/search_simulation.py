"""How often a whole search ends in a false *holds*, and how many episodes its proofs take.

    python tests/studies/search_simulation.py [--searches 1000]

A search makes twelve students whose true scores are known, screens each on 20 episodes, and proves those whose
screening is above the wanted score, on episodes of their own, as `compress` does. In most searches no student is good
enough; the wrong ones are chosen for their luck (the winner's curse), also for falls that the screening did not show.
`apart` is what would happen if each proof had the error of a verdict of its own.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from kdcli.benchmarks.score import Risk
from kdcli.benchmarks.sequential import Plan, Shares, Trial

WANTED, STUDENTS, SCREENED, MOST = 0.95, 12, 20, 500
NOISE = 0.05  # standard deviation of an episode's score, of teacher and student


class Kind(NamedTuple):
    """A search: the scores of its students without falls, the share of episodes in which they fall, and to what."""

    name: str
    scores: tuple[float, ...]
    falls: float = 0.0
    depth: float = 0.0


KINDS = (
    Kind("all just too bad", (0.95,)),
    Kind("all a little too bad", (0.94,)),
    Kind("worse and worse", (0.95, 0.94, 0.93, 0.92)),
    Kind("good but for a fall in 100", (0.96,), 0.01, -0.1),
    Kind("good but for a fall in 50", (0.97,), 0.02, -0.1),
    Kind("half of them good", (1.0, 0.94)),
)


class Found(NamedTuple):
    """Of one search: whether a student that is not good enough was called *holds*, a good one was, and the episodes."""

    is_false: bool
    is_proven: bool
    episodes: int


def search(kind: Kind, rng: np.random.Generator, apart: bool = False) -> Found:
    """One search, to its end or to its first false *holds*."""
    shares, episodes, proven = Shares(), 0, False
    for i in range(STUDENTS):
        score = kind.scores[i % len(kind.scores)]
        true = score - kind.falls * (score - kind.depth)
        if _returns(score, kind, SCREENED, rng).mean() < WANTED:
            continue
        share = 1.0 if apart else shares.next()
        trial = Trial(Plan(WANTED, most=MOST, risk=Risk(0.95, share)))
        while trial.wanted > trial.n:
            n = trial.wanted - trial.n
            trial.add(_returns(score, kind, n, rng), 1 + NOISE * rng.standard_normal(n), _chance(n, rng))
        shares.settle(share, trial.verdict)
        episodes += trial.n
        if trial.verdict == "holds":
            proven = True
            if true <= WANTED:
                return Found(True, proven, episodes)
    return Found(False, proven, episodes)


def _returns(score: float, kind: Kind, n: int, rng: np.random.Generator) -> np.ndarray:
    found = score + NOISE * rng.standard_normal(n)
    found[rng.random(n) < kind.falls] = kind.depth
    return found


def _chance(n: int, rng: np.random.Generator) -> np.ndarray:
    return 0.1 * rng.standard_normal(n)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--searches", type=int, default=1000)
    n = parser.parse_args().searches
    print("| students of the search | false holds % | apart % | a good one proven % | episodes |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        found = [search(kind, np.random.default_rng(seed)) for seed in range(n)]
        apart = [search(kind, np.random.default_rng(seed), apart=True).is_false for seed in range(n)]
        false, proven, episodes = (float(np.mean(column)) for column in zip(*found, strict=True))
        shares = " | ".join(f"{100 * share:.1f}" for share in (false, float(np.mean(apart)), proven))
        print(f"| {kind.name} | {shares} | {episodes:.0f} |")


if __name__ == "__main__":
    main()
