"""Easier envs first: the states to learn from come from one after another, as soon as the student plays it well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.choice import Choice
from kdcli.distillation.checkpointing import SavedState, below, under
from kdcli.distillation.replay_pool import Labelled, LabelSource
from kdcli.errors import UsageError
from kdcli.rollouts.behavior_policy import Noise
from kdcli.spec import EnvSpec

# The mean return of an agent in the env of one stage, random play for None.
Judge = Callable[[Actor | None], float]
# The score in a stage at which the next begins.
GOOD = 0.9


class Curriculum:
    """Collectors of several envs, each with its judge, the last one's the real env; one collects at a time.

    The next takes over when the student's score there, 0 of random play and 1 of the teacher, is at least `GOOD`.
    """

    def __init__(self, teacher: Actor, stages: Sequence[tuple[LabelSource, Judge]]) -> None:
        self._teacher, self._stages = teacher, list(stages)
        self.stage = 0
        self.slots = stages[0][0].slots

    def collect(self, student: Actor | None, beta: float, n: int, noise: Noise | None = None) -> Labelled:
        """Up to `n` states of the stage that the student has come to."""
        if student is not None and self.stage + 1 < len(self._stages) and self._is_good(student):
            self.stage += 1
        return self._stages[self.stage][0].collect(student, beta, n, noise)

    def state(self) -> SavedState:
        """The stage, and where each is in its episodes."""
        stages = [under(str(k), collector.state()) for k, (collector, _) in enumerate(self._stages)]
        return {"stage": np.array(self.stage), **{name: array for kept in stages for name, array in kept.items()}}

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken."""
        self.stage = kept["stage"].item()
        for k, (collector, _) in enumerate(self._stages):
            collector.restore(below(str(k), kept))

    def _is_good(self, student: Actor) -> bool:
        judge = self._stages[self.stage][1]
        chance, best = judge(None), judge(self._teacher)
        return judge(student) - chance >= GOOD * (best - chance)


def stages_of(text: str, env: EnvSpec) -> list[EnvSpec]:
    """`gravity:-4->-10` as envs that differ in one argument, or `env:A-v0->B-v0` in their ids; one for an empty text.

    Raises:
        UsageError: no values.
    """
    if not text:
        return [env]
    choice = Choice.parse(text).only()
    values = [value.strip() for value in choice.value.split("->")]
    if len(values) < 2:
        raise UsageError(f"cannot read the curriculum {text!r}", "it needs two values or more", "e.g. gravity:-4->-10")
    if choice.name == "env":
        return [replace(env, id=value) for value in values]
    return [replace(env, kwargs={**env.kwargs, choice.name: _number(value)}) for value in values]


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
