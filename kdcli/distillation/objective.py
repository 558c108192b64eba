"""The one place where losses become a number to minimise: weights, tau^2 and the mean over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kdcli.agents.heads import Heads
from kdcli.distillation import LOSSES
from kdcli.distillation.losses import READS, TEMPERED
from kdcli.distillation.losses.reading import Loss
from kdcli.distillation.schedules import Schedule, parse_schedule
from kdcli.errors import UsageError


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


@dataclass(frozen=True)
class Objective:
    """sum over terms of weight(p) * tau(p)^2 * mean(loss), tau^2 for tempered losses only (Hinton et al. 2015)."""

    terms: tuple[Term, ...]
    tau: Schedule

    @classmethod
    def parse(cls, losses: Sequence[str], tau: str) -> Objective:
        """From the texts of `--loss` and `--tau`.

        Raises:
            UsageError: no term, or one that cannot be read.
        """
        if not losses:
            raise UsageError("no loss is given", "a student learns from at least one", "e.g. --loss kl")
        return cls(tuple(parse_term(text) for text in losses), parse_schedule(tau))

    @property
    def reads(self) -> frozenset[str] | None:
        """The teacher's heads that the terms read; None: perhaps all."""
        known = [READS.get(term.name) for term in self.terms]
        return None if None in known else frozenset().union(*(names for names in known if names))

    def __call__(self, student: Heads, teacher: Heads, progress: float) -> Tensor:
        """Heads of B states and the progress in [0, 1] -> a scalar."""
        tau = self.tau(progress)
        parts = [_weighted(term, term.loss(student, teacher, tau).mean(), tau, progress) for term in self.terms]
        return sum(parts[1:], parts[0])


def _weighted(term: Term, mean: Tensor, tau: float, progress: float) -> Tensor:
    factor = term.weight(progress) * (tau * tau if term.name in TEMPERED else 1.0)
    return mean if factor == 1.0 else mean * factor
