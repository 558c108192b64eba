"""Which of several teachers teaches: the one that does best in the env, measured and measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.errors import UsageError
from kdcli.progress import Event, Listener, silent

# An agent, and the number of the heat -> returns (n,) of episodes that no other heat has seen.
Measure = Callable[[Actor, int], np.ndarray]
_HEATS = 4


@dataclass(frozen=True)
class SelectedTeacher:
    """`index` of the best teacher, and `returns[i]` of candidate i, heat by heat, those of a loser until it fell out.

    `mean_return` is the winner's in a last heat of its own, which had no part in the choice and so no luck in it.
    """

    index: int
    mean_return: float
    returns: tuple[np.ndarray, ...]


def select_teacher(teachers: Sequence[Actor], measure: Measure, listener: Listener = silent) -> SelectedTeacher:
    """The teacher of the largest mean return after heats in which those fall out that are clearly behind.

    Clearly: two standard errors of the paired difference to the leader, on the episodes both have played. Every heat is
    of fresh episodes, the same for all (successive elimination, Even-Dar et al. 2006).

    Raises:
        UsageError: no teacher.
    """
    if not teachers:
        raise UsageError("no teacher is given", "there is nobody to elect", "name at least one")
    seen: list[list[np.ndarray]] = [[] for _ in teachers]
    running = list(range(len(teachers)))
    for heat in range(_HEATS):
        for i in running:
            seen[i].append(measure(teachers[i], heat))
        running = _in_the_race(running, [np.concatenate(r) for r in seen])
        listener(Event("elect", heat + 1, _HEATS, {"left": len(running)}))
        if len(running) == 1:
            break
    returns = tuple(np.concatenate(r) for r in seen)
    winner = max(running, key=lambda i: float(returns[i].mean()))
    return SelectedTeacher(winner, float(measure(teachers[winner], _HEATS).mean()), returns)


def _in_the_race(running: Sequence[int], returns: Sequence[np.ndarray]) -> list[int]:
    """Those who are not clearly behind the leader."""
    leader = max(running, key=lambda i: float(returns[i].mean()))
    found = []
    for i in running:
        behind = returns[leader] - returns[i]
        error = float(behind.std(ddof=1)) / len(behind) ** 0.5 if len(behind) > 1 else np.inf
        if i == leader or float(behind.mean()) <= 2 * error:
            found.append(i)
    return found
