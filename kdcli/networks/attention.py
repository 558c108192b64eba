"""Attention: of rows to each other, and of one step to those before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_HISTORY = 1 << 10
MAX_STATE = 1 << 22
FORBIDDEN = -1e8


def attend(
    heads: int, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, valid: Tensor | None = None
) -> Tensor:
    """q (B, M, D), k and v (B, N, D) -> (B, M, D), each of the heads on its neighbours among D.

    softmax(q k' / sqrt(D / heads) + bias) v, with bias (B, heads, M, N); rows of k whose `valid` (B, N) is 0 count for
    nothing. Vaswani et al. 2017, eq. 1.
    """
    size = q.shape[2] // heads
    queries, keys, values = (x.unflatten(2, (heads, size)).transpose(1, 2) for x in (q, k, v))
    scores = queries @ keys.transpose(2, 3) * size**-0.5
    if bias is not None:
        scores = scores + bias
    if valid is not None:
        scores = torch.where(valid[:, None, None] != 0, scores, FORBIDDEN)
    return (scores.softmax(3) @ values).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Every row of (B, N, D) attends to all by keys and values of `size` numbers, then a linear layer."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        _check(size, heads)
        self.size, self.heads = size, heads
        self.query, self.key, self.value = (nn.Linear(width, size) for _ in range(3))
        self.out = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.out(attend(self.heads, self.query(x), self.key(x), self.value(x)))


class AttentionCell(nn.Module):
    """One step (B, D) attends to itself and the `history` - 1 steps before it, then a linear layer.

    `project` gives the step's query, key and value, of `size` numbers each, and for each head how much it looks to each
    place of the history whatever is there (heads * history), after Shaw et al. 2018. The state holds the keys of the
    past, oldest first, then its values, and 1 for each place that is filled; zeros are an empty past.
    """

    def __init__(self, width: int, heads: int, size: int, history: int) -> None:
        super().__init__()
        _check(size, heads)
        if not 1 < history <= MAX_HISTORY or history * size > MAX_STATE:
            raise ValueError(f"a history of {history} steps of {size} numbers")
        self.size, self.heads, self.history = size, heads, history
        self.project, self.out = nn.Linear(width, 3 * size + heads * history), nn.Linear(size, width)

    @property
    def state_size(self) -> int:
        """Numbers it carries from one step to the next."""
        return (self.history - 1) * (2 * self.size + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D), at the beginning of an episode."""
        return self.step(x, x.new_zeros((len(x), self.state_size)))[0]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D) and state (B, S) -> (B, D) and the next state."""
        size, past = self.size, self.history - 1
        q, *now, bias = self.project(x).split([size, size, size, self.heads * self.history], 1)
        before = state.split([past * size, past * size, past], 1)
        keys, values, valid = (
            torch.cat(pair, 1) for pair in zip(before, (*now, torch.ones_like(q[:, :1])), strict=True)
        )
        k, v = (rows.unflatten(1, (self.history, size)) for rows in (keys, values))
        y = attend(self.heads, q[:, None], k, v, bias.unflatten(1, (self.heads, 1, self.history)), valid)
        return self.out(y[:, 0]), torch.cat([keys[:, size:], values[:, size:], valid[:, 1:]], 1)


def _check(size: int, heads: int) -> None:
    if not 1 <= heads <= size <= MAX_STATE or size % heads:
        raise ValueError(f"{size} numbers in {heads} heads")
