"""Where labelled states come from: a teacher watching someone act, or a recorded dataset. One pool may serve many."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

from kdcli.agents.agent import Acts
from kdcli.agents.memory import Turn
from kdcli.agents.observation import Sees
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.student import preprocess_for, rule_of
from kdcli.envs.mixture import Mixture
from kdcli.envs.seeds import first_seed
from kdcli.envs.stream import Steps, stream
from kdcli.envs.vector import Vector

Labelled = tuple[np.ndarray, dict[str, np.ndarray]]


class Collector:
    """An endless source of labelled states; episodes go on across calls, so long ones are seen to their end."""

    def __init__(self, teacher: Acts, vector: Vector, seed: int, noise: float = 0.0) -> None:
        self._mixture = Mixture(teacher, None, 1.0, noise, seed)
        self._labels: dict[str, np.ndarray] = {}
        self._steps: Iterator[Steps] = stream(vector, count(first_seed("train", seed)), self._act)

    def _act(self, turn: Turn) -> np.ndarray:
        decision = self._mixture.decide(turn)
        self._labels = dict(decision.labels)
        return decision.action

    def collect(self, student: Acts | None, beta: float, n: int) -> Labelled:
        """At least `n` states, raw (N, *shape), with the teacher's columns; the teacher acts in a share `beta`."""
        self._mixture.follow(student)
        self._mixture.beta = beta
        rows: list[np.ndarray] = []
        labels: list[dict[str, np.ndarray]] = []
        got = 0
        while got < n:
            steps = next(self._steps)
            rows.append(steps.obs)
            labels.append(self._labels)
            got += len(steps.obs)
        return np.concatenate(rows), {k: np.concatenate([part[k] for part in labels]) for k in labels[0]}


class Pool:
    """Labelled states that grow by watching students act, or stay as they are when there is no `collector`.

    `first` fixes how every student of this pool sees the world: the teacher's normalizer, or these states' statistics;
    unless `preprocess` says how one that is there already sees it.
    """

    def __init__(
        self,
        teacher: Acts,
        first: Labelled,
        capacity: int,
        collector: Collector | None = None,
        preprocess: Sees | None = None,
    ) -> None:
        self.preprocess = preprocess or preprocess_for(teacher, first[0])
        self.buffer = Buffer(self.preprocess, rule_of(teacher), capacity)
        self.buffer.add(*first)
        self._collector = collector

    @property
    def fixed(self) -> bool:
        """Whether no state will be added."""
        return self._collector is None

    def grow(self, student: Acts, beta: float, n: int) -> None:
        """Add at least `n` states where teacher and student act, the teacher in a share `beta` of them."""
        if self._collector is not None and n > 0:
            self.buffer.add(*self._collector.collect(student, beta, n))


def watch(teacher: Acts, vector: Vector, n: int, capacity: int, seed: int, noise: float = 0.0) -> Pool:
    """A pool that begins with `n` states of the teacher's own play."""
    collector = Collector(teacher, vector, seed, noise)
    return Pool(teacher, collector.collect(None, 1.0, n), capacity, collector)
