"""The one place where losses become a number to minimise: weights, tau^2 and the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.distillation import LOSSES
from kdcli.distillation.losses import READS, TEMPERED
from kdcli.distillation.losses.reading import Loss, Tau
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.distillation.temperatures import Scheduled, parse_temperature
from kdcli.distillation.weighing import Weighing, in_the_mean, parse_weighing
from kdcli.errors import UsageError

# Progress in [0, 1] -> what is added to the losses whatever the batch holds, a scalar: what moving the weights costs.
Penalty = Callable[[float], Tensor]


@dataclass(frozen=True)
class Term:
    """One loss with the schedule of its weight."""

    name: str
    loss: Loss
    weight: Schedule


def parse_term(text: str) -> Term:
    """`kl`, or `kl@0.7`, or `value@linear:1->0`.

    Raises:
        UsageError: unknown loss or schedule.
    """
    name, _, weight = text.partition("@")
    return Term(name, LOSSES.load(name), parse_schedule(weight or "1"))


class Objective(nn.Module):
    """sum over terms of weight(p) * mean of tau^2 * importance * loss, and over penalties.

    tau^2 stands at tempered losses only (Hinton et al. 2015, section 2). The importance of a sample is what the
    weighing says of the teacher's heads, 1 in the mean of a batch. What is learned here (an adversarial temperature)
    are the module's parameters; what is remembered is in its state.
    """

    def __init__(self, terms: Sequence[Term], temperature: nn.Module, weighing: Weighing | None = None) -> None:
        super().__init__()
        self.terms, self.temperature, self._weighing = tuple(terms), temperature, weighing
        self.penalties: tuple[Penalty, ...] = ()

    @classmethod
    def parse(cls, losses: Sequence[str], tau: str, weigh: str = "uniform") -> Objective:
        """From the texts of `--loss`, `--tau` and `--weigh`.

        Raises:
            UsageError: no term, or one that cannot be read.
        """
        if not losses:
            raise UsageError("no loss is given", "a student learns from at least one", "e.g. --loss kl")
        terms = [parse_term(text) for text in losses]
        return cls(terms, parse_temperature(tau), None if weigh == "uniform" else parse_weighing(weigh))

    @property
    def reads(self) -> frozenset[str] | None:
        """The teacher's heads that the terms read; None: perhaps all."""
        known = [READS.get(term.name) for term in self.terms]
        if None in known or self._weighing is not None or not isinstance(self.temperature, Scheduled):
            return None
        return frozenset().union(*(names for names in known if names))

    def forward(self, student: Heads, teacher: Heads, progress: float) -> Tensor:
        """Heads of B states and the progress in [0, 1] -> a scalar."""
        tau = self.temperature(progress, student, teacher)
        importance = None if self._weighing is None else in_the_mean(self._weighing(teacher))
        parts = [
            _times(term.weight(progress), _mean(term, term.loss(student, teacher, tau), tau, importance))
            for term in self.terms
        ]
        parts += [penalty(progress) for penalty in self.penalties]
        return sum(parts[1:], parts[0])


def _mean(term: Term, loss: Tensor, tau: Tau, importance: Tensor | None) -> Tensor:
    """The mean over the batch (B,) -> scalar, with tau^2 and the importance of each sample."""
    weighed = loss if importance is None else loss * importance
    if term.name not in TEMPERED:
        return weighed.mean()
    if isinstance(tau, Tensor):
        return (weighed * tau.reshape(-1).square()).mean()
    return _times(tau * tau, weighed.mean())


def _times(factor: float, value: Tensor) -> Tensor:
    return value if factor == 1.0 else value * factor
