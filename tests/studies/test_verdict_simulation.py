"""The verdict's promise, by simulation: a small part always, all of it over real agents with `-m slow`."""

from __future__ import annotations

import needs
import pytest
from scipy.stats import binom
from verdict_simulation import CASES, MIN_SCORE, Case, Cell, Family, Setting, simulate, study, synthetic, zoo

FALSE_HOLDS, COVERAGE = 0.05, 0.93
FAMILIES = synthetic()
FEW = [case for case in CASES if case.name.startswith("at the bound: falls") or case.both]
SOME = [family for family in FAMILIES if family.name in ("saturated", "left tail", "steps")]


def breaches(cells: list[Cell], simulations: int) -> list[Cell]:
    """Cells that break a promise by more than chance does once in ten thousand cells."""
    most = binom.ppf(1 - 1e-4, simulations, FALSE_HOLDS) / simulations
    least = binom.ppf(1e-4, simulations, COVERAGE) / simulations
    return [c for c in cells if (c.true <= MIN_SCORE and c.holds > most) or c.coverage < least]


@pytest.mark.parametrize("family", SOME, ids=lambda family: family.name)
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_the_promise_is_kept(case: Case, family: Family) -> None:
    """Law: at 100 episodes a student just bad enough *holds* in at most 5 %, and intervals cover in 93 % or more."""
    simulations = 250
    assert breaches([simulate(case, family, 0.0, Setting(simulations))], simulations) == []


def test_equal_saturated_agents_hold() -> None:
    """Law: caution has a price, but equal agents that never fall do not pay it at 100 episodes."""
    assert simulate(CASES[0], FAMILIES[0], 0.0, Setting(50)).holds == 1.0


@needs.zoo
@pytest.mark.slow
def test_the_promise_is_kept_on_real_agents() -> None:
    """Law: the same over the last evaluations of at least six real agents, every case, both correlations."""
    families = zoo(needs.ZOO)
    assert len(families) >= 6
    cells = list(study(families, CASES, Setting()))
    assert breaches(cells, 1000) == []


@pytest.mark.slow
def test_the_promise_is_kept_on_every_shape() -> None:
    """Law: the same over made-up shapes of the same families."""
    cells = list(study(FAMILIES, CASES, Setting()))
    assert breaches(cells, 1000) == []
