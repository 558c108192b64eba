"""The verdict's promise, by simulation: a small part always, all of it, over real agents too, with `-m slow`."""

from __future__ import annotations

import needs
import pytest
from scipy.stats import binom
from verdict_simulation import (
    BEYOND,
    CASES,
    EVERYDAY,
    FALLS,
    KNOWN,
    MIN_SCORE,
    Case,
    Cell,
    Setting,
    simulate,
    study,
    synthetic,
    zoo,
)

WRONG = 0.025  # the error at either end, over all looks
FAMILIES = synthetic()
NAMED = {family.name: family for family in FAMILIES}
QUICK = Setting(200, 200)


def breaches(cells: list[Cell], simulations: int) -> list[Cell]:
    """Cells with more wrong verdicts than chance makes of the promise once in ten thousand cells."""
    most = binom.ppf(1 - 1e-4, simulations, WRONG) / simulations
    return [c for c in cells if (c.true <= MIN_SCORE and c.holds > most) or (c.true >= MIN_SCORE and c.fails > most)]


@pytest.mark.parametrize("family", ["Gaussian 0.1", "heavy tails (t, 3)", "saturated", "two modes"])
@pytest.mark.parametrize("case", [EVERYDAY[2], EVERYDAY[3], FALLS[3], KNOWN[0], KNOWN[3]], ids=lambda case: case.name)
def test_the_promise_is_kept(case: Case, family: str) -> None:
    """Law: just bad enough *holds*, and just good enough *fails*, in at most 2.5 %, however often looked at."""
    assert breaches([simulate(case, NAMED[family], 0.9, QUICK)], QUICK.simulations) == []


@pytest.mark.parametrize("case", [EVERYDAY[2], FALLS[1]], ids=lambda case: case.name)
def test_the_simulation_would_notice(case: Case) -> None:
    """Law: t tests with bounds for the same looks break the promise where falls are rare: the test above can fail."""
    rare = "falls" in case.name
    cell = simulate(case, NAMED["saturated"], 0.9, QUICK._replace(rule="spending"))
    assert bool(breaches([cell], QUICK.simulations)) == rare


def test_a_student_that_is_worse_by_two_hundredths_fails() -> None:
    """Law: 0.93 with everyday errors is called *fails* nearly always before 500 episodes, a perfect one *holds*."""
    setting = Setting(60, 500)
    bad, good = (simulate(EVERYDAY[i], NAMED["Gaussian 0.03"], 0.9, setting) for i in (3, 0))
    assert (bad.fails, good.holds) == (1.0, 1.0)
    assert max(bad.episodes, good.episodes) < 260


def test_deeper_falls_than_anyone_knows_are_not_guarded_against() -> None:
    """Law: what docs/verdict.md does not promise is not kept: deep, rare falls pass without --floor, not with it."""
    unknown, known = (simulate(case, NAMED["saturated"], 0.9, QUICK) for case in (BEYOND[0], KNOWN[0]))
    assert unknown.holds > 0.5
    assert known.holds == 0.0


@pytest.mark.slow
def test_the_promise_is_kept_on_every_shape() -> None:
    """Law: the same of every case over every made-up shape, to 500 episodes."""
    cells = list(study(FAMILIES, CASES, Setting(400, 500)))
    assert breaches(cells, 400) == []


@needs.zoo
@pytest.mark.slow
def test_the_promise_is_kept_on_real_agents() -> None:
    """Law: the same over the last evaluations of at least six real agents."""
    families = zoo(needs.ZOO)
    assert len(families) >= 6
    assert breaches(list(study(families, CASES, Setting(400, 500))), 400) == []
