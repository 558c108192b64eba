"""How far apart two policies act: the proof of a lossless step, and what a unit's absence does."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.errors import RefusedError
from kdcli.pruning.activation_stats import run
from kdcli.spec import Box

TOLERANCE = 1e-5
TIE = 1e-6


@dataclass(frozen=True)
class Equivalence:
    """How two agents compare on `n_states`: the largest difference of continuous actions, states with another choice.

    Differences are in units of max(1, half the action's range). `ties` are other choices where the first agent's best
    two were equal up to 1e-6; they are not among `other`.
    """

    n_states: int
    worst: float
    other: int
    ties: int

    @property
    def holds(self) -> bool:
        """Whether both agents act alike, up to rounding."""
        return self.worst <= TOLERANCE and self.other == 0


@torch.inference_mode()
def compare(agent: Agent, found: Agent, states: States) -> Equivalence:
    """Greedy actions of both on the same states; memory goes through the episodes."""
    worst, other, ties, n = 0.0, 0, 0, 0
    for ours, theirs in zip(run(agent, states), run(found, states), strict=True):
        a, b = ours.scores(), theirs.scores()
        n += len(a)
        if isinstance(agent.action, Box):
            worst = max(worst, float(_gap(agent.rule, a, b).max()))
            continue
        differs = (agent.rule.decode(a) != found.rule.decode(b)).reshape(len(a), -1)
        near = margins(a, agent.rule) <= TIE * a.abs().amax(1, keepdim=True).clamp(min=1.0)
        other += int((differs & ~near).any(1).sum())
        ties += int((differs & near).any(1).sum())
    return Equivalence(n, worst, other, ties)


def check_equivalence(agent: Agent, found: Agent, states: States, what: str) -> Equivalence:
    """`compare`, which must hold.

    Raises:
        RefusedError: `what` was to change no action, and does.
    """
    alike = compare(agent, found, states)
    if not alike.holds:
        gap = f"{alike.other} other choices" if alike.other else f"a difference of {alike.worst:.3g}"
        raise RefusedError(f"{what} changes actions", f"{gap} on {alike.n_states} states", "nothing was written")
    return alike


def _gap(rule: ActionRule, a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of each continuous action (B,), in units of max(1, half the range)."""
    ours, theirs = (rule.decode(scores).reshape(len(scores), -1) for scores in (a, b))
    assert isinstance(rule.space, Box)
    half = torch.from_numpy((rule.space.high - rule.space.low).reshape(-1)).float() / 2
    unit = half.clamp(min=1.0) if bool(half.isfinite().all()) else ours.abs().amax(1, keepdim=True).clamp(min=1.0)
    return ((ours - theirs).abs() / unit).amax(1)


def margins(scores: Tensor, rule: ActionRule) -> Tensor:
    """How much better the chosen is than the next best, (B, P) -> (B, choices)."""
    if rule.bits:
        return scores.abs()
    return torch.stack([_lead(part) for part in scores.split(list(rule.groups), 1)], 1)


def _lead(scores: Tensor) -> Tensor:
    if scores.shape[1] == 1:
        return torch.full((len(scores),), torch.inf)
    first, second = scores.topk(2, 1).values.T
    return first - second


def moved(rule: ActionRule, before: Tensor, after: Tensor) -> Tensor:
    """How far actions move when a policy's outputs (B, P) become others, (B,) from 0 to 1.

    Continuous: the root mean square difference in half-ranges, of clipped actions. Choices: how far the scores come on
    the way to another choice; at 1, the margin between the best two is used up.
    """
    if rule.continuous:
        a, b = (rule.unit(scores) for scores in (before, after))
        if rule.bounded and rule.squash != "linear":
            a, b = a.clamp(-1.0, 1.0), b.clamp(-1.0, 1.0)
        return (a - b).square().mean(1).sqrt()
    shift = after - before
    if rule.bits:
        return (shift.abs() / before.abs().clamp(min=TIE)).amax(1).clamp(max=1.0)
    parts = zip(before.split(list(rule.groups), 1), shift.split(list(rule.groups), 1), strict=True)
    return torch.stack([_way(part, change) for part, change in parts], 1).amax(1)


def _way(scores: Tensor, shift: Tensor) -> Tensor:
    """How much another choice gains on the chosen one, as a share of its distance; the largest, (B, A) -> (B,)."""
    best = scores.argmax(1, keepdim=True)
    distance, gain = scores.gather(1, best) - scores, shift - shift.gather(1, best)
    share = (gain / distance.clamp(min=TIE)).scatter(1, best, 0.0)
    return share.amax(1).clamp(0.0, 1.0)
