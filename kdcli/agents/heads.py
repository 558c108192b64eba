"""What a policy says about a batch of observations. Shapes are stated here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Heads:
    """The signals of one policy for B observations; absent ones are None.

    Attributes:
        logits: (B, A) unnormalised log-probabilities; for MultiDiscrete the groups side by side, for MultiBinary one
            Bernoulli logit a bit.
        q: (B, A) action values, in units of return.
        mean: (B, A) centre of the continuous action before squashing, clipping and scaling.
        log_std: (B, A) log standard deviation around `mean`.
        action: (B, A) the continuous action in units where the space's bounds are -1 and 1. Not clipped for a policy
            that clips, so that a loss keeps its gradient outside the bounds.
        side: (B, A) 1 or -1 where the teacher's action is on the upper or lower bound, else 0: the env clips, so what
            goes beyond is no error. Absent without bounds.
        choice: (B,) index of the greedy action, (B, groups) for MultiDiscrete, (B, bits) for MultiBinary.
        value: (B,) state value, in units of return.
        state: (B, S) what a recurrent policy carries to the next step. Absent without memory.
        features: (B, H) the last hidden layer, what the head reads.
        attention: (B, h, w) where its last convolution is active; given only where it is asked for.
        members: (B, M, A) what each of several teachers says: logits, Q-values, or `action`. Of one teacher absent.
        shares: (B, M) how much each of them counts in what they say together; 1 in all.
        groups: sizes of the independent choices that the logits stand for, side by side.
        bits: whether each logit is a bit of its own.
    """

    logits: Tensor | None = None
    q: Tensor | None = None
    mean: Tensor | None = None
    log_std: Tensor | None = None
    action: Tensor | None = None
    side: Tensor | None = None
    choice: Tensor | None = None
    value: Tensor | None = None
    state: Tensor | None = None
    features: Tensor | None = None
    attention: Tensor | None = None
    members: Tensor | None = None
    shares: Tensor | None = None
    groups: tuple[int, ...] = ()
    bits: bool = False

    def having(self, tensors: Mapping[str, Tensor]) -> Heads:
        """These heads with `tensors` (name -> tensor) set."""
        found: dict[str, Any] = dict(tensors)
        return replace(self, **found)

    def present(self) -> dict[str, Tensor]:
        """Name -> tensor of the heads that are there."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def each(self) -> list[Heads]:
        """One set of heads for each independent choice of an action: its logits or Q-values, and its choice."""
        if len(self.groups) < 2:
            return [self]
        found = []
        for k, n in enumerate(self.groups):
            own = slice(sum(self.groups[:k]), sum(self.groups[:k]) + n)
            cut = {name: getattr(self, name) for name in ("logits", "q")}
            some = {name: t[:, own] for name, t in cut.items() if t is not None}
            choice = {} if self.choice is None else {"choice": self.choice[:, k]}
            found.append(replace(self.having({**some, **choice}), groups=(n,)))
        return found

    def scores(self) -> Tensor:
        """What an action rule reads: logits, Q-values or the mean, (B, P)."""
        found = next((t for t in (self.logits, self.q, self.mean) if t is not None), None)
        assert found is not None
        return found
