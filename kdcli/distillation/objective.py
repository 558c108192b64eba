"""The one place where losses become a number to minimise: weights, tau^2 and the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.agents.labels import INSIDE
from kdcli.distillation import LOSSES
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.loss_balancing import parse_balance
from kdcli.distillation.losses.facts import LossFacts, facts_of
from kdcli.distillation.losses.reading import Loss, Tau
from kdcli.distillation.sample_weights import Weighing, in_the_mean, parse_weighing
from kdcli.distillation.temperatures import Scheduled, parse_temperatures
from kdcli.distillation.term_weights import Weight, parse_weight
from kdcli.distillation.units import Units
from kdcli.errors import UsageError, option

# Progress in [0, 1] -> what is added to the losses whatever the batch holds, a scalar: what moving the weights costs.
Penalty = Callable[[float], Tensor]


@dataclass(frozen=True)
class Term:
    """One loss with its weight; `loss` is a module where it learns something beside the student."""

    name: str
    loss: Loss
    weight: Weight

    @property
    def facts(self) -> LossFacts:
        """What the loss declares of itself."""
        return facts_of(self.loss)


def parse_term(text: str) -> Term:
    """`kl`, or `kl@0.7`, or `value@linear:1->0`, or `kl@agreement:1->0.1`.

    Raises:
        UsageError: unknown loss or schedule.
    """
    name, _, weight = text.partition("@")
    found = LOSSES.load(name)
    return Term(name, found() if isinstance(found, type) else found, parse_weight(weight or "1"))


def units_read(losses: Sequence[str]) -> set[str]:
    """The heads that these terms compare in units of the teacher's own variation; see `distillation.units`."""
    return {unit for text in losses if (unit := facts_of_term(text).unit)}


def wanted(losses: Sequence[str]) -> tuple[str, ...]:
    """Heads inside the teacher that these terms look at, so that labels must hold them."""
    names = {name for text in losses for name in facts_of_term(text).reads or ()}
    return tuple(name for name in INSIDE if name in names)


def facts_of_term(text: str) -> LossFacts:
    """What the loss of a term such as `kl@0.7` declares.

    Raises:
        UsageError: unknown loss.
    """
    return facts_of(LOSSES.load(text.partition("@")[0]))


class Objective(nn.Module):
    """sum over terms of weight(p) * mean of tau^2 * importance * loss.

    tau^2 stands at losses whose gradient shrinks with it (Hinton et al. 2015, section 2). The importance of a sample is
    what the weighing says of the teacher's heads, 1 in the mean of a batch. Penalties are added. What is learned here
    (an adversarial temperature, a hint's projection) are the module's parameters; what is remembered is in its state.
    `measured` is what weights follow: set after each round. `units` are those of regressed heads, set before each.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        temperatures: Sequence[nn.Module],
        weighing: Weighing | None = None,
        balance: str = "fixed",
    ) -> None:
        super().__init__()
        self.terms, self._weighing = tuple(terms), weighing
        self.temperatures = nn.ModuleList(temperatures)
        self.learned = nn.ModuleList(term.loss for term in terms if isinstance(term.loss, nn.Module))
        self.balance = parse_balance(balance, len(terms))
        self.measured: dict[str, float] = {}
        self.penalties: tuple[Penalty, ...] = ()
        self.units: Units | None = None

    @classmethod
    def parse(cls, losses: Sequence[str], tau: str = "1", weigh: str = "uniform", balance: str = "fixed") -> Objective:
        """From the texts of the options `loss`, `tau`, `weigh` and `balance`.

        Raises:
            UsageError: no term, or one that cannot be read.
        """
        if not losses:
            raise UsageError("no loss is given", "a student learns from at least one", f"e.g. {option('loss', 'kl')}")
        terms = [parse_term(text) for text in losses]
        return cls(terms, parse_temperatures(tau), None if weigh == "uniform" else parse_weighing(weigh), balance)

    @classmethod
    def of(cls, config: DistillConfig, losses: Sequence[str]) -> Objective:
        """That of a distillation by these losses."""
        return cls.parse(losses, config.tau, config.weigh, config.balance)

    def begin(self, student: Heads, teacher: Heads, seed: int) -> None:
        """Make what is learned here fit the two; before an optimizer is told of the parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in self.learned:
                if hasattr(module, "begin"):
                    module.begin(student, teacher)  # type: ignore[operator]

    @property
    def reads(self) -> frozenset[str] | None:
        """The teacher's heads that the terms read; None: perhaps all."""
        known = [term.facts.reads for term in self.terms]
        adaptive = not all(isinstance(temperature, Scheduled) for temperature in self.temperatures)
        if None in known or self._weighing is not None or adaptive:
            return None
        return frozenset().union(*(names for names in known if names))

    @property
    def units_read(self) -> set[str]:
        """The heads that its terms compare in units of the teacher's own variation."""
        return {term.facts.unit for term in self.terms if term.facts.unit}

    def each(self, student: Heads, teacher: Heads, progress: float) -> list[Tensor]:
        """What every term comes to for B samples, with tau^2 but without weight, importance or mean: (B,) each."""
        plain: list[tuple[Heads, Heads, Tau]] = [(student, teacher, 1.0)]
        # What is regressed is compared in units of the teacher's own variation.
        regressed = plain if self.units is None else [(*self.units.standard(student, teacher), 1.0)]
        hot = self._heads(student, teacher, progress) if any(term.facts.tempered for term in self.terms) else plain
        found = []
        for term in self.terms:
            total: Tensor | None = None
            # The independent choices of an action may each have a temperature; their losses are summed.
            for ours, theirs, tau in hot if term.facts.tempered else regressed if term.facts.unit else plain:
                loss = term.loss(ours, theirs, tau)
                # A gradient that shrinks with tau^2 is given its size back.
                loss = _times(_squared(tau), loss) if term.facts.rescaled else loss
                total = loss if total is None else total + loss
            assert total is not None
            found.append(total)
        return found

    def forward(self, student: Heads, teacher: Heads, progress: float) -> Tensor:
        """Heads of B states and the progress in [0, 1] -> a scalar."""
        importance = None if self._weighing is None else in_the_mean(self._weighing(teacher))
        found = self.each(student, teacher, progress)
        means = [(loss if importance is None else loss * importance).mean() for loss in found]
        weights = [term.weight(progress, self.measured) for term in self.terms]
        total = self.balance(means, weights, student)
        return sum((penalty(progress) for penalty in self.penalties), total)

    def _heads(self, student: Heads, teacher: Heads, progress: float) -> list[tuple[Heads, Heads, Tau]]:
        """Both sets of heads with their temperature; several temperatures are those of the independent choices."""
        pairs = [(student, teacher)]
        if len(self.temperatures) > 1:
            pairs = list(zip(student.each(), _split(teacher, len(self.temperatures)), strict=True))
        return [
            (ours, theirs, temperature(progress, ours, theirs))
            for temperature, (ours, theirs) in zip(self.temperatures, pairs, strict=True)
        ]


def _split(heads: Heads, n: int) -> list[Heads]:
    found = heads.each()
    if len(found) != n:
        why = f"an action of this teacher is {len(found)} independent choices"
        raise UsageError(
            f"{n} temperatures are given", why, f"give one, or one for each choice: {option('tau', '4|1')}"
        )
    return found


def _squared(tau: Tau) -> Tau:
    return tau.reshape(-1).square() if isinstance(tau, Tensor) else tau * tau


def _times(factor: Tau, value: Tensor) -> Tensor:
    return value if isinstance(factor, float | int) and factor == 1.0 else value * factor
