"""What zeros are worth in a file: the bytes of the forms that leave them out, indices and all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdcli.agents.agent import Agent

_VALUE = 4  # bytes of a float32


@dataclass(frozen=True)
class Storage:
    """Bytes of the network's parameters: as they are; with one bit a number for where the others are; with rows of
    column numbers and values (compressed sparse rows).
    """

    dense: int
    bitmap: int
    rows: int

    @property
    def smallest(self) -> int:
        """The bytes of the smallest form."""
        return min(self.dense, self.bitmap, self.rows)


def storage(agent: Agent) -> Storage:
    """What the network's parameters take in each form; each matrix may take the form that suits it."""
    found = [_storage(p.detach().numpy()) for p in agent.policy.network.parameters()]
    return Storage(*(sum(sizes) for sizes in zip(*found, strict=True)))


def _storage(array: np.ndarray) -> tuple[int, int, int]:
    dense, n = _VALUE * array.size, int(np.count_nonzero(array))
    if array.ndim < 2:
        return dense, dense, dense
    bitmap = _VALUE * n + -(-array.size // 8)
    width = array[0].size
    rows = (_VALUE + _index(width)) * n + _index(n + 1) * (len(array) + 1)
    return dense, min(dense, bitmap), min(dense, rows)


def _index(n: int) -> int:
    """Bytes of a number below n."""
    return 1 if n <= 1 << 8 else 2 if n <= 1 << 16 else 4
