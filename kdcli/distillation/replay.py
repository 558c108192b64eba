"""Which labelled states are learned from more often: the chance of each in a draw, made anew every round."""

from __future__ import annotations

import torch
from torch import Tensor

from kdcli.agents.policy import Policy
from kdcli.choice import Choice
from kdcli.distillation import REPLAYS
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.objective import Objective
from kdcli.distillation.unroll import both
from kdcli.errors import UsageError

_AT_ONCE = 4096
_LEAST = 0.01  # of the mean loss, added to every state's: none is forgotten


def uniform(losses: Tensor, power: float) -> Tensor | None:
    """Every state as often: drawn in passes."""
    return None


def prioritized(losses: Tensor, power: float) -> Tensor:
    """By (loss + a little)^power -> (N,), summing to 1. Schaul et al. 2016, eq. 1, with losses for TD errors."""
    weights = (losses + _LEAST * losses.mean().clamp(min=1e-12)) ** power
    return weights / weights.sum()


@torch.inference_mode()
def chances(text: str, buffer: Buffer, policy: Policy, objective: Objective) -> Tensor | None:
    """The chance of each row of the buffer by `replay`, None where all are alike.

    Raises:
        UsageError: unknown name, or a power that is not one.
    """
    choice = Choice.parse(text).only()
    rule = REPLAYS.load(choice.name)
    if rule is uniform:
        return None
    try:
        power = float(choice.value or "0.6")
    except ValueError:
        raise UsageError(f"cannot read {text!r}", "a power is a number", f"{choice.name}:0.6") from None
    each = [objective.each(*both(policy, batch), 1.0) for batch in buffer.whole(_AT_ONCE)]
    found = [sum(losses[1:], losses[0]) for losses in each]
    odds: Tensor | None = rule(torch.cat(found).float().clamp(min=0.0).clone(), power)
    return odds
