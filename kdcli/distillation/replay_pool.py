"""Where labelled states come from: a teacher watching someone act, or a recorded dataset. One pool may serve many."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from kdcli.agents.actor import Actor
from kdcli.agents.labels import INSIDE, label
from kdcli.agents.memory import Turn
from kdcli.agents.observation import Preprocessor
from kdcli.distillation.augmentation import Augmentation
from kdcli.distillation.buffer import BEGINS, Buffer
from kdcli.distillation.checkpointing import SavedState, below, generator_state, restore_generator, under
from kdcli.distillation.student import preprocess_for, rule_of
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError, option
from kdcli.rollouts.behavior_policy import Mixture, Noise
from kdcli.rollouts.resumable import Track
from kdcli.rollouts.seeds import first_seed
from kdcli.spec import zeros

Labelled = tuple[np.ndarray, dict[str, np.ndarray]]
_CHUNK = 4096


class LabelSource(Protocol):
    """A source of labelled states."""

    @property
    def slots(self) -> int:
        """Episodes side by side: a state's successor is so many rows further on."""
        ...

    def collect(self, student: Actor | None, beta: float, n: int, noise: Noise | None = None) -> Labelled:
        """Up to `n` states, raw (N, *shape), with the teacher's columns; the teacher acts in a share `beta`."""
        ...

    def state(self) -> SavedState:
        """Where it is."""
        ...

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken."""
        ...


class RolloutCollector:
    """An endless source of labelled states; episodes go on across calls, so long ones are seen to their end."""

    def __init__(
        self, teacher: Actor, vector: Vector, seed: int, noise: float = 0.0, inside: Collection[str] = ()
    ) -> None:
        self._mixture = Mixture(teacher, None, 1.0, noise, seed, inside=inside)
        self._labels: dict[str, np.ndarray] = {}
        self.slots = len(vector)
        self._track = Track(vector, first_seed("train", seed), self._act)

    def _act(self, turn: Turn) -> np.ndarray:
        decision = self._mixture.decide(turn)
        self._labels = {**decision.labels, BEGINS: turn.begins}
        return decision.action

    def collect(self, student: Actor | None, beta: float, n: int, noise: Noise | None = None) -> Labelled:
        """As many whole turns as `n` states hold, at least one. `noise` is that on actions from now on."""
        self._mixture.follow(student)
        self._mixture.beta = beta
        if noise is not None:
            self._mixture.noise = noise
        rows: list[np.ndarray] = []
        labels: list[dict[str, np.ndarray]] = []
        for _ in range(max(1, n // self.slots)):
            rows.append(next(self._track).obs)
            labels.append(self._labels)
        return np.concatenate(rows), {k: np.concatenate([part[k] for part in labels]) for k in labels[0]}

    def state(self) -> SavedState:
        """Where it is in its episodes."""
        return {**under("track", self._track.state()), **under("mixture", self._mixture.state())}

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken."""
        self._track.restore(below("track", kept))
        self._mixture.restore(below("mixture", kept))


class ReplayPool:
    """Labelled states that grow by watching students act, or stay as they are when there is no `collector`.

    `first` fixes how every student of this pool sees the world: the teacher's normalizer, or these states' statistics;
    unless `preprocess` says how one that is there already sees it.
    `labels` are the states the teacher was asked about for the student that learns here now, which the buffer may have
    forgotten; `count_anew` where what is there was not asked for it.
    """

    def __init__(
        self,
        teacher: Actor,
        first: Labelled,
        capacity: int,
        collector: LabelSource | None = None,
        preprocess: Preprocessor | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.preprocess = preprocess or preprocess_for(teacher, first[0])
        self.buffer = Buffer(self.preprocess, rule_of(teacher), capacity, collector.slots if collector else 1)
        self.teacher, self._collector, self._augmentation = teacher, collector, augmentation
        self._rng = np.random.default_rng(0)
        self.buffer.add(*first)
        self.labels = len(first[0])

    @property
    def fixed(self) -> bool:
        """Whether no state will be added."""
        return self._collector is None

    def count_anew(self) -> None:
        """Let the labels that are there already be no part of what the next student may ask for."""
        self.labels = 0

    def grow(self, student: Actor, beta: float, n: int, noise: Noise | None = None) -> None:
        """Add up to `n` states where teacher and student act, the teacher in a share `beta` of them.

        With an augmentation, its share of them are moved from those. At least one turn is added where `n` is positive.
        """
        if self._collector is None or n <= 0:
            return
        moved = int(n * self._augmentation.share) if self._augmentation else 0
        obs, labels = self._collector.collect(student, beta, n - moved, noise)
        self.buffer.add(obs, labels)
        if self._augmentation and moved:
            near = self._augmentation(self.teacher, obs, moved, self._rng)
            inside = [name for name, column in INSIDE.items() if column in labels]
            self.buffer.add(near, {**label(self.teacher, near, inside), BEGINS: np.ones(len(near), bool)})
        self.labels += len(obs) + moved

    def state(self) -> SavedState:
        """All but the rows of the buffer."""
        collected = {} if self._collector is None else under("collector", self._collector.state())
        return {**collected, "labels": np.array(self.labels), "rng": generator_state(self._rng)}

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken, the rows of the buffer having been put back."""
        if self._collector is not None:
            self._collector.restore(below("collector", kept))
        self.labels = kept["labels"].item()
        restore_generator(self._rng, kept["rng"])


def watch(teacher: Actor, vector: Vector, n: int, capacity: int, seed: int, noise: float = 0.0) -> ReplayPool:
    """A pool that begins with `n` states of the teacher's own play."""
    collector = RolloutCollector(teacher, vector, seed, noise)
    return ReplayPool(teacher, collector.collect(None, 1.0, n), capacity, collector)


def refuse_other_data(teacher: Actor, data: Labelled) -> None:
    """Raise UsageError for recorded states of another env, or labels that `teacher` cannot have given."""
    obs, labels = data
    seen = zeros(teacher.observation)
    if (obs.shape[1:], obs.dtype.names) != (seen.shape[1:], seen.dtype.names):
        raise _other("observations", teacher)
    shapes = {"greedy": teacher.action.shape}
    if not teacher.state_size:
        shapes |= {name: array.shape[1:] for name, array in label(teacher, obs[:1]).items()}
    for name, shape in shapes.items():
        if name in labels and labels[name].shape[1:] != shape:
            raise _other(name, teacher)
    if "greedy" not in labels:
        raise _other("labels", teacher)


def _other(what: str, teacher: Actor) -> UsageError:
    why = f"its {what} are not those of {teacher.name}"
    return UsageError("the dataset is of another teacher", why, "record one: kdcli rollout TEACHER -o DIR")


def looked_into(teacher: Actor, data: Labelled, inside: Collection[str]) -> Labelled:
    """Recorded states (N, *shape) whose labels hold these heads of `teaching.INSIDE`, which are asked for again.

    Raises:
        UsageError: the teacher has memory, or has nothing like it inside.
    """
    obs, labels = data
    missing = [name for name in inside if INSIDE[name] not in labels]
    if not missing:
        return data
    if teacher.state_size:
        raise UsageError(
            "recorded states lack what this loss reads", "the teacher has memory", f"use {option('data', 'dagger')}"
        )
    found = [label(teacher, obs[i : i + _CHUNK], missing) for i in range(0, len(obs), _CHUNK)]
    columns = [INSIDE[name] for name in missing]
    return obs, {**labels, **{name: np.concatenate([part[name] for part in found]) for name in columns}}
