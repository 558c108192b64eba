"""Labelled states in memory: features and the teacher's heads, bounded, the oldest overwritten first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.agents.labels import teaching_heads
from kdcli.agents.observation import Preprocessor

MAX_BYTES = 2**31
_CHUNK = 65_536  # observations made features at a time
_AT_ONCE = 64  # batches gathered at a time: quicker than one by one, and little memory for images
_SEEN = "seen"  # the column of features, beside the heads
BEGINS = "begins"  # the column of labels that says where an episode begins


@dataclass(frozen=True, eq=False)
class Batch:
    """States to learn from: features (N, F) and the teacher's heads.

    Of windows for a student with memory, the N rows are `length` steps of as many windows side by side, step by step;
    `begins` (N,) says where an episode begins, and the heads are of all steps.
    """

    features: Tensor
    teacher: Heads
    length: int = 1
    begins: Tensor | None = None


class Buffer:
    """Up to `capacity` states, and 2 GB of features; grows as needed, then overwrites the oldest.

    States come as turns of `slots` episodes side by side, so that a row's successor is `slots` rows further on. One
    that `keeps` remembers what was added, until it is taken.
    """

    keeps = False

    def __init__(self, preprocess: Preprocessor, rule: ActionRule, capacity: int, slots: int = 1) -> None:
        self._preprocess, self._rule, self.slots = preprocess, rule, slots
        rows = max(1, min(capacity, MAX_BYTES // preprocess.feature_bytes))
        self.capacity = max(1, rows // slots) * slots
        self._columns: dict[str, Tensor] = {}
        self._next = 0
        self._saturated = False
        self._fresh: list[dict[str, Tensor]] = []
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, obs: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
        """Append raw observations (N, *shape) and the columns of `teaching.label`, and perhaps where episodes begin."""
        features = torch.cat([self._preprocess.pack(obs[i : i + _CHUNK]) for i in range(0, len(obs), _CHUNK)])
        columns = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in labels.items()}
        heads = teaching_heads(columns, self._rule)
        rows = {_SEEN: features, **heads.present()}
        if BEGINS in columns:
            rows[BEGINS] = columns[BEGINS]
        if self.keeps:
            self._fresh.append(rows)
        self._put(rows)

    def put_back(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows that `take_fresh` gave."""
        self._put({name: torch.from_numpy(np.array(array)) for name, array in rows.items()})

    def take_fresh(self) -> dict[str, np.ndarray]:
        """The rows added since this was called last, where the buffer `keeps` them: column -> (N, ...)."""
        fresh, self._fresh = self._fresh, []
        names = list(fresh[0]) if fresh else []
        return {name: torch.cat([rows[name] for rows in fresh]).numpy() for name in names}

    def _put(self, rows: Mapping[str, Tensor]) -> None:
        features = rows[_SEEN]
        if "action" in rows:
            self._saturated |= bool((rows["action"].abs() >= 1.0).any())
        for start in range(0, len(features), self.capacity):
            self._append({k: v[start : start + self.capacity] for k, v in rows.items()})

    def _append(self, rows: Mapping[str, Tensor]) -> None:
        n = len(rows[_SEEN])
        self._reserve(rows, min(self._next + n, self.capacity))
        where = torch.arange(self._next, self._next + n) % self.capacity
        for name, tensor in rows.items():
            self._columns[name][where] = tensor
        self._next = (self._next + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def _reserve(self, rows: Mapping[str, Tensor], n: int) -> None:
        """Room for `n` rows in every column, doubling."""
        for name, tensor in rows.items():
            old = self._columns.get(name, tensor[:0])
            if len(old) < n:
                grown = tensor.new_empty((min(self.capacity, max(n, 2 * len(old))), *tensor.shape[1:]))
                grown[: len(old)] = old
                self._columns[name] = grown

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of the independent choices of an action."""
        return self._rule.groups

    def column(self, name: str) -> Tensor | None:
        """The head called `name` of all states (N, ...), where it is there."""
        return self._columns[name][: self.size] if name in self._columns else None

    def batches(
        self,
        size: int,
        n: int,
        generator: torch.Generator,
        reads: Collection[str] | None = None,
        chances: Tensor | None = None,
    ) -> Iterator[Batch]:
        """`n` batches of `size` rows, drawn without replacement until every row was seen, then again.

        `reads` names the heads that are wanted; all without it. With `chances` (rows,) they are drawn by those, again
        and again.
        """
        names = self._names(reads)
        whole = max(1, self.size // size)
        while n > 0:
            wanted = min(n, whole) * size
            if chances is None:
                order = torch.randperm(self.size, generator=generator)[:wanted]
            else:
                order = torch.multinomial(chances, wanted, replacement=True, generator=generator)
            for some in order.split(_AT_ONCE * size):
                parts = [self._columns[name].index_select(0, some).split(size) for name in names]
                for features, *rows in zip(*parts, strict=True):
                    yield Batch(self._preprocess.unpack(features), self._heads(names[1:], rows))
            n -= whole

    def windows(
        self, size: int, length: int, n: int, generator: torch.Generator, reads: Collection[str] | None = None
    ) -> Iterator[Batch]:
        """`n` batches of `size` windows of `length` steps, drawn at random; fewer steps where there are fewer.

        No window goes over the place where the newest rows overwrite the oldest.
        """
        names, turns = [*self._names(reads), BEGINS], self.size // self.slots
        length = min(length, turns)
        oldest = self._next if self.size == self.capacity else 0
        for _ in range(n):
            first = torch.randint(turns - length + 1, (size,), generator=generator)
            slot = torch.randint(self.slots, (size,), generator=generator)
            steps = (first + torch.arange(length)[:, None]) * self.slots + slot
            where = (oldest + steps.reshape(-1)) % self.capacity
            features, *rows, begins = (self._columns[name].index_select(0, where) for name in names)
            yield Batch(self._preprocess.unpack(features), self._heads(names[1:-1], rows), length, begins)

    def newest(self, n: int) -> Batch:
        """The last `n` rows added."""
        where = torch.arange(self._next - min(n, self.size), self._next) % max(1, self.size)
        names = self._names(None)
        features, *rows = (self._columns[name][where] for name in names)
        return Batch(self._preprocess.unpack(features), self._heads(names[1:], rows))

    def whole(self, size: int) -> Iterator[Batch]:
        """Every row once, in the order they lie, `size` at a time."""
        names = self._names(None)
        for where in torch.arange(self.size).split(size):
            features, *rows = (self._columns[name].index_select(0, where) for name in names)
            yield Batch(self._preprocess.unpack(features), self._heads(names[1:], rows))

    def _names(self, reads: Collection[str] | None) -> list[str]:
        """Columns to gather: features first, then the heads that are wanted."""
        idle = (_SEEN, BEGINS) if self._saturated else (_SEEN, BEGINS, "side")  # no mask for what touches no bound
        return [_SEEN, *(k for k in self._columns if (reads is None or k in reads) and k not in idle)]

    def _heads(self, names: Collection[str], rows: Collection[Tensor]) -> Heads:
        found: dict[str, Any] = dict(zip(names, rows, strict=True))
        return Heads(groups=self._rule.groups, bits=self._rule.bits, **found)
