"""Labelled states in memory: features and the teacher's heads, bounded, the oldest overwritten first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Sees
from kdcli.agents.teaching import teaching_heads

MAX_BYTES = 2**31
_CHUNK = 65_536  # observations made features at a time
_AT_ONCE = 64  # batches gathered at a time: quicker than one by one, and little memory for images


class Buffer:
    """Up to `capacity` states, and 2 GB of features; grows as needed, then overwrites the oldest."""

    def __init__(self, preprocess: Sees, rule: ActionRule, capacity: int) -> None:
        self._preprocess, self._rule = preprocess, rule
        self.capacity = max(1, min(capacity, MAX_BYTES // preprocess.feature_bytes))
        self._columns: dict[str, Tensor] = {}
        self._next = 0
        self._saturated = False
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def add(self, obs: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
        """Append raw observations (N, *shape) and the columns of `teaching.label`."""
        features = torch.cat([self._preprocess.pack(obs[i : i + _CHUNK]) for i in range(0, len(obs), _CHUNK)])
        columns = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in labels.items()}
        heads = teaching_heads(columns, self._rule)
        rows = {"features": features, **heads.present()}
        if heads.action is not None:
            self._saturated |= bool((heads.action.abs() >= 1.0).any())
        for start in range(0, len(features), self.capacity):
            self._append({k: v[start : start + self.capacity] for k, v in rows.items()})

    def _append(self, rows: Mapping[str, Tensor]) -> None:
        n = len(rows["features"])
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

    def batches(
        self, size: int, n: int, generator: torch.Generator, reads: Collection[str] | None = None
    ) -> Iterator[tuple[Tensor, Heads]]:
        """`n` batches of `size` rows, drawn without replacement until every row was seen, then again.

        `reads` names the heads that are wanted; all without it.
        """
        idle = () if self._saturated else ("side",)  # a teacher that touches no bound needs no mask
        names = ["features", *(k for k in list(self._columns)[1:] if (reads is None or k in reads) and k not in idle)]
        whole = max(1, self.size // size)
        while n > 0:
            order = torch.randperm(self.size, generator=generator)[: min(n, whole) * size]
            for some in order.split(_AT_ONCE * size):
                parts = [self._columns[name].index_select(0, some).split(size) for name in names]
                for features, *rows in zip(*parts, strict=True):
                    yield self._preprocess.unpack(features), self._heads(dict(zip(names[1:], rows, strict=True)))
            n -= whole

    def newest(self, n: int) -> tuple[Tensor, Heads]:
        """The last `n` rows added."""
        where = torch.arange(self._next - min(n, self.size), self._next) % max(1, self.size)
        rows = {name: tensor[where] for name, tensor in self._columns.items()}
        return self._preprocess.unpack(rows.pop("features")), self._heads(rows)

    def _heads(self, rows: dict[str, Any]) -> Heads:
        return Heads(groups=self._rule.groups, bits=self._rule.bits, **rows)
