"""From a network's outputs to an action the env takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.networks.cached import cached_tensor
from kdcli.spec import Box, Discrete, MultiBinary, MultiDiscrete, Part, box, n_outputs

Squash = Literal["clip", "tanh", "linear"]
_FORBIDDEN = -1e8


@dataclass(frozen=True, eq=False)
class ActionRule:
    """How outputs (B, P) become actions (B, *shape) of `space`.

    Discrete: argmax; MultiDiscrete: argmax in each group; MultiBinary: probability above a half; Box: `squash` either
    clips to the bounds, or applies tanh and scales to the bounds, or scales alone ("linear": -1 and 1 become the
    bounds, and nothing is clipped). `limit` > 0 clamps the mean to +-limit first (gSDE).
    `masked`: the last `n_mask` features say which choices are allowed (Huang and Ontanon 2020).
    """

    space: Part
    squash: Squash = "clip"
    limit: float = 0.0
    masked: bool = False

    def __post_init__(self) -> None:
        if self.squash not in get_args(Squash):
            raise ValueError(f"actions are {self.squash!r}, not one of {', '.join(get_args(Squash))}")

    @property
    def n_outputs(self) -> int:
        """The number of outputs P of a network that acts so."""
        return n_outputs(self.space)

    @property
    def n_mask(self) -> int:
        """Numbers in a mask: one a choice, two a bit (may it be 0, may it be 1); none where nothing is masked."""
        return self.n_outputs * (2 if self.bits else 1) if self.masked else 0

    def allow(self, outputs: Tensor, mask: Tensor) -> Tensor:
        """Outputs (B, P) with what the mask (B, M) of zeros and ones forbids pushed 1e8 down, as sb3-contrib does."""
        if self.bits:
            return outputs + _FORBIDDEN * (mask[:, 0::2] - mask[:, 1::2])
        return torch.where(mask > 0, outputs, _FORBIDDEN)

    @property
    def continuous(self) -> bool:
        """Whether actions are real numbers."""
        return isinstance(self.space, Box)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """Sizes of the independent categorical choices."""
        match self.space:
            case Discrete(n=n):
                return (n,)
            case MultiDiscrete(nvec=nvec):
                return nvec
        return ()

    @cached_property
    def bits(self) -> bool:
        """Whether each output is the logit of a bit."""
        return isinstance(self.space, MultiBinary)

    @cached_property
    def bounded(self) -> bool:
        """Whether every action dimension has finite bounds, so that actions have natural units."""
        return isinstance(self.space, Box) and bool(np.isfinite(self.space.high - self.space.low).all())

    @property
    def unit_space(self) -> Box:
        """The space of `Heads.action`: bounds at -1 and 1, or none."""
        bound = 1.0 if self.bounded else np.inf
        return box((self.n_outputs,), -bound, bound)

    def decode(self, outputs: Tensor) -> Tensor:
        """Outputs (B, P) -> env-ready actions (B, *shape)."""
        match self.space:
            case Discrete(start=start):
                return outputs.argmax(1) + start if start else outputs.argmax(1)
            case MultiDiscrete(nvec=nvec):
                return torch.stack([group.argmax(1) for group in outputs.split(list(nvec), dim=1)], dim=1)
            case MultiBinary():
                return outputs.sigmoid().round()
            case Box() as space:
                return self._decode_box(outputs, space).reshape(-1, *space.shape)

    def _decode_box(self, outputs: Tensor, space: Box) -> Tensor:
        low, high = self._limits
        if self.squash == "clip":
            return torch.minimum(torch.maximum(outputs, low), high)
        # The order of operations is Stable-Baselines3's, so results are equal bit for bit.
        inside = outputs if self.squash == "linear" else self._limited(outputs).tanh()
        return low + (0.5 * (inside + 1.0) * (high - low))

    def unit(self, mean: Tensor) -> Tensor:
        """The mean (B, A) as `Heads.action`: bounds at -1 and 1; not clipped where the rule is to clip."""
        if self.squash == "tanh":
            return self._limited(mean).tanh()
        return mean if self.squash == "linear" else self._to_unit(mean)

    def taught(self, greedy: Tensor) -> Heads:
        """What env-ready actions (B, *shape) teach: `choice`, or `action` in units of the bounds."""
        if isinstance(self.space, Box):
            return self._taught_box(self._to_unit(greedy.flatten(1).float()))
        return Heads(choice=greedy.long() - getattr(self.space, "start", 0), groups=self.groups, bits=self.bits)

    def _taught_box(self, action: Tensor) -> Heads:
        if not self.bounded or self.squash != "clip":
            return Heads(action=action)
        action = action.clamp(-1.0, 1.0)
        return Heads(action=action, side=action * (action.abs() == 1.0))

    def _to_unit(self, action: Tensor) -> Tensor:
        """Actions (B, A) in units where the bounds are -1 and 1."""
        if self._unit_is_identity:
            return action
        middle, half = self._unit
        return (action - middle) / half

    @cached_tensor
    def _unit(self) -> tuple[Tensor, Tensor]:
        low, high = self._bounds
        return (high + low) / 2, (high - low) / 2

    @cached_property
    def _unit_is_identity(self) -> bool:
        if not self.bounded:
            return True
        middle, half = self._unit
        return bool((middle == 0).all() and (half == 1).all())

    def _limited(self, mean: Tensor) -> Tensor:
        return mean.clamp(-self.limit, self.limit) if self.limit else mean

    @cached_tensor
    def _limits(self) -> tuple[Tensor, Tensor]:
        """The bounds in the precision of the actions, in which they are kept."""
        assert isinstance(self.space, Box)
        low, high = (torch.from_numpy(bound.reshape(-1)) for bound in (self.space.low, self.space.high))
        return low, high

    @cached_tensor
    def _bounds(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.space, Box)
        low, high = (torch.from_numpy(bound.reshape(-1)).float() for bound in (self.space.low, self.space.high))
        return low, high
