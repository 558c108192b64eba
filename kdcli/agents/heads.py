"""What a policy says about a batch of observations. Shapes are stated here, once."""

from __future__ import annotations

from dataclasses import dataclass, fields

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
        value: (B,) state value, in units of return.
    """

    logits: Tensor | None = None
    q: Tensor | None = None
    mean: Tensor | None = None
    log_std: Tensor | None = None
    action: Tensor | None = None
    value: Tensor | None = None

    def present(self) -> dict[str, Tensor]:
        """Name -> tensor of the heads that are there."""
        return {f.name: t for f in fields(self) if (t := getattr(self, f.name)) is not None}
