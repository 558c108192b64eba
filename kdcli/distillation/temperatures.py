"""Temperatures: how soft the teacher's labels are, by schedule, by state, or following what student and teacher say.

Each is chosen as text: a schedule (`4`, `cosine:4->1`, `steps:4->1` for two stages), or a row of the table with its
range, as `entropy:0.5` or `divergence:1->4`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.choice import Choice
from kdcli.distillation import SCHEDULES, TEMPERATURES
from kdcli.distillation.losses.reading import Tau, groups, scores
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.errors import UsageError

LOWEST, HIGHEST = 0.01, 100.0
_BISECTIONS = 20
_MEMORY = 0.99  # of the running mean of a divergence: some hundred batches


class Temperature(Protocol):
    """Progress in [0, 1] and both sets of heads -> one temperature, or one a sample (B, 1)."""

    def __call__(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """Give the temperature of a batch."""
        ...


class Scheduled(nn.Module):
    """What a schedule says."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """The number of the schedule."""
        return self._schedule(progress)


class EntropyTarget(nn.Module):
    """The temperature at which the soft labels of a batch have a wanted mean entropy, as a share of the largest."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.target = _number(choice, 0.0, 1.0)

    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """Bisection: entropy grows with temperature."""
        theirs = scores(teacher, "teacher").detach()
        low, high = math.log(LOWEST), math.log(HIGHEST)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            unsure = float(entropy_share(theirs / math.exp(middle), teacher).mean())
            low, high = (middle, high) if unsure < self.target else (low, middle)
        return math.exp((low + high) / 2)


class PerState(nn.Module):
    """From the first number where the teacher is unsure to the last where it is sure, each state its own (B, 1)."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.low, self.high = _range(choice)

    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """By the entropy of the teacher's labels at temperature 1."""
        sure = 1.0 - entropy_share(scores(teacher, "teacher").detach(), teacher)
        return (self.low + (self.high - self.low) * sure)[:, None]


class DivergenceMatch(nn.Module):
    """From the first number where student and teacher agree to the last where they are far apart.

    The share of the way is 1 - exp(-d), d being the running mean of KL(teacher || student) at temperature 1, in nats.
    """

    divergence: Tensor

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.low, self.high = _range(choice)
        self.register_buffer("divergence", torch.tensor(-1.0, dtype=torch.float64))

    @torch.no_grad()
    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """Follow the divergence of this batch and those before."""
        from kdcli.distillation.losses.choices import kl

        now = kl(student, teacher, 1.0).mean().double()
        known = float(self.divergence) >= 0.0
        self.divergence.copy_(_MEMORY * self.divergence + (1.0 - _MEMORY) * now if known else now)
        return self.low + (self.high - self.low) * (1.0 - math.exp(-float(self.divergence)))


class SharpnessMatch(nn.Module):
    """The ratio of the teacher's sharpness to the student's, in the range given: labels as soft as the student is.

    Sharpness is the mean standard deviation of centred logits, which a temperature divides.
    """

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.low, self.high = _range(choice)

    @torch.no_grad()
    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """By this batch alone."""
        said = scores(student, "student"), scores(teacher, "teacher")
        ours, theirs = (float(_sharpness(logits, teacher)) for logits in said)
        return min(max(theirs / max(ours, 1e-6), self.low), self.high)


class _Reversed(torch.autograd.Function):
    """The same number; its gradient with the other sign, times a strength (Ganin and Lempitsky 2015, eq. 11)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


class Adversarial(nn.Module):
    """A learned temperature that makes the loss as large as it can, while the student makes it small.

    Li et al. 2023 (Curriculum Temperature for Knowledge Distillation), section 3.1. With a curriculum its strength
    grows from 0 to 1 over the first half of the training by half a cosine (section 3.2).
    """

    def __init__(self, choice: Choice, curriculum: bool = False) -> None:
        super().__init__()
        self.low, self.high = _range(choice)
        self.theta, self.curriculum = nn.Parameter(torch.zeros(())), curriculum

    def forward(self, progress: float, student: Heads, teacher: Heads) -> Tau:
        """A tensor (1, 1), so that the loss has a gradient for it."""
        strength = 0.5 * (1.0 - math.cos(math.pi * min(1.0, 2.0 * progress))) if self.curriculum else 1.0
        share = torch.sigmoid(_Reversed.apply(self.theta, strength))
        return (self.low + (self.high - self.low) * share).reshape(1, 1)


def curriculum(choice: Choice) -> Adversarial:
    """The adversarial temperature, its strength growing over the first half of the training."""
    return Adversarial(choice, curriculum=True)


def entropy_share(logits: Tensor, heads: Heads) -> Tensor:
    """Entropy of each sample's choices as a share of the largest, (B, A) -> (B,) in [0, 1]."""
    if heads.bits:
        p = logits.sigmoid()
        bits = torch.special.entr(p) + torch.special.entr(1.0 - p)
        return bits.mean(1) / math.log(2.0)
    parts = groups(logits, heads)
    found = [torch.special.entr(part.softmax(1)).sum(1) / math.log(max(2, part.shape[1])) for part in parts]
    return torch.stack(found).mean(0)


def _sharpness(logits: Tensor, heads: Heads) -> Tensor:
    parts = [logits] if heads.bits else [part - part.mean(1, keepdim=True) for part in groups(logits, heads)]
    return torch.cat(parts, 1).square().mean().sqrt()


def _numbers(choice: Choice) -> list[float]:
    try:
        return [float(part) for part in choice.only().value.split("->")]
    except ValueError:
        return []


def _number(choice: Choice, low: float, high: float) -> float:
    numbers = _numbers(choice)
    if len(numbers) != 1 or not low < numbers[0] < high:
        why = f"a number between {low:g} and {high:g} is needed"
        raise UsageError(f"cannot read {str(choice)!r}", why, f"{choice.name}:0.5")
    return numbers[0]


def _range(choice: Choice) -> tuple[float, float]:
    numbers = _numbers(choice)
    if len(numbers) != 2 or not all(LOWEST <= n <= HIGHEST for n in numbers):
        why = f"two temperatures from {LOWEST:g} to {HIGHEST:g} are needed"
        raise UsageError(f"cannot read {str(choice)!r}", why, f"{choice.name}:1->4")
    return numbers[0], numbers[1]


def parse_temperatures(text: str) -> list[nn.Module]:
    """`4`, or `4|cosine:4->1`: one for all of an action, or one for each of its independent choices.

    Raises:
        UsageError: as `parse_temperature`.
    """
    return [parse_temperature(part) for part in text.split("|")]


def parse_temperature(text: str) -> nn.Module:
    """`4`, `cosine:4->1`, `entropy:0.5`, `divergence:1->4` as a module called with progress and heads.

    Raises:
        UsageError: unknown name, or not the numbers it needs.
    """
    name = Choice.parse(text).name
    if name in TEMPERATURES.rows and name not in SCHEDULES.rows:
        make: Callable[[Choice], nn.Module] = TEMPERATURES.load(name)
        return make(Choice.parse(text))
    return Scheduled(parse_schedule(text))
