"""How the terms of an objective share the gradient, beside the weights they were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.choice import Choice
from kdcli.distillation import BALANCES

_MEMORY = 0.99  # of the running mean of a gradient's length: some hundred batches


class Balance(Protocol):
    """Means of the terms (scalars), their weights, the student's heads they came from -> the scalar to minimise."""

    def __call__(self, terms: Sequence[Tensor], weights: Sequence[float], student: Heads) -> Tensor:
        """Join the terms."""
        ...


class Fixed(nn.Module):
    """The sum: the weights alone decide."""

    def __init__(self, n: int) -> None:
        super().__init__()

    def forward(self, terms: Sequence[Tensor], weights: Sequence[float], student: Heads) -> Tensor:
        """Scalars -> their weighed sum."""
        return _summed(terms, weights)


class Uncertainty(nn.Module):
    """Each term over a learned variance: exp(-s) L + s, so that a term that cannot be met weighs less.

    Kendall, Gal and Cipolla 2018, eq. 7, with s the log variance.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(n))

    def forward(self, terms: Sequence[Tensor], weights: Sequence[float], student: Heads) -> Tensor:
        """Scalars -> a scalar."""
        s, weighed = self.log_variance, torch.stack([_times(w, term) for w, term in zip(weights, terms, strict=True)])
        return (weighed * (-s).exp() + s).sum()


class GradientNorm(nn.Module):
    """At weight 1 every term pulls the student's last hidden layer as hard as the first one does, in a running mean.

    After Chen et al. 2018 (GradNorm), with all rates equal: factors follow from the lengths, they are not learned.
    """

    lengths: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("lengths", torch.zeros(n))

    def forward(self, terms: Sequence[Tensor], weights: Sequence[float], student: Heads) -> Tensor:
        """Scalars -> a scalar."""
        now = torch.stack([_pull(term, student.features) for term in terms])
        begun = bool(self.lengths.any())
        self.lengths.copy_(_MEMORY * self.lengths + (1.0 - _MEMORY) * now if begun else now)
        factors = torch.where(self.lengths > 0, self.lengths[0] / self.lengths.clamp(min=1e-12), 1.0)
        alike = list((torch.stack(list(terms)) * (factors if float(self.lengths[0]) else 1.0)).unbind())
        return _summed(alike, weights)


def _summed(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    weighed = [_times(weight, term) for weight, term in zip(weights, terms, strict=True)]
    return sum(weighed[1:], weighed[0])


def _times(weight: float, term: Tensor) -> Tensor:
    return term if weight == 1.0 else term * weight


def _pull(term: Tensor, features: Tensor | None) -> Tensor:
    """The length of a term's gradient at the features (B, H); 0 where it does not depend on them."""
    if features is None or not features.requires_grad or not term.requires_grad:
        return torch.zeros(())
    (gradient,) = torch.autograd.grad(term, features, retain_graph=True, allow_unused=True)
    return torch.zeros(()) if gradient is None else gradient.norm()


def parse_balance(text: str, n: int) -> nn.Module:
    """A balance of `n` terms by its name.

    Raises:
        UsageError: unknown name.
    """
    made: nn.Module = BALANCES.load(Choice.parse(text).only().name)(n)
    return made
