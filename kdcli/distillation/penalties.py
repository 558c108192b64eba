"""What moving weights costs, so that a student does not forget what it learned before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.distillation import PENALTIES
from kdcli.distillation.schedules import Schedule, parse_schedule

# A student that has learned, features (N, F) of its task, and the weights that will move -> how much each matters.
Importance = Callable[[Agent, Tensor, Sequence[nn.Parameter]], list[Tensor]]


@dataclass(frozen=True, eq=False)
class Anchor:
    """Weights that may move, where they were, and how much each mattered there; (n,) in all."""

    parameters: tuple[nn.Parameter, ...]
    start: Tensor
    importance: Tensor

    def distance(self) -> Tensor:
        """The sum of importance times squared distance, a scalar."""
        return (self.importance * (_flat(self.parameters) - self.start).square()).sum()


class Penalty:
    """weight(p) / 2 * sum of importance * (theta - theta*)^2, theta* being the weights when a task had been learned.

    `lasting`: the anchors of all earlier tasks hold, else only that of the last one.
    """

    def __init__(self, importance: Importance, weight: Schedule, lasting: bool) -> None:
        self._importance, self._weight, self._lasting = importance, weight, lasting
        self.anchors: list[Anchor] = []

    def learned(self, student: Agent, features: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Drop anchor: `student` has learned a task with states like `features` (N, F); `parameters` will move."""
        importance = _flat(self._importance(student, features, parameters))
        anchor = Anchor(tuple(parameters), _flat(parameters).detach().clone(), importance)
        self.anchors = [*(self.anchors if self._lasting else ()), anchor]

    def __call__(self, progress: float) -> Tensor:
        """The penalty at progress in [0, 1], a scalar with a gradient to the weights."""
        distances = [anchor.distance() for anchor in self.anchors]
        return torch.stack(distances).sum() * (self._weight(progress) / 2) if distances else torch.zeros(())


def ewc(weight: Schedule) -> Penalty:
    """Elastic weight consolidation: each weight by its Fisher information. Kirkpatrick et al. 2017, eq. 3."""
    return Penalty(fisher, weight, lasting=True)


def l2(weight: Schedule) -> Penalty:
    """Every weight as much, to where it was when the task began. Li et al. 2018 (L2-SP), eq. 3, its first part."""
    return Penalty(
        lambda student, features, parameters: [torch.ones_like(p) for p in parameters], weight, lasting=False
    )


def parse_penalty(text: str) -> Penalty:
    """`ewc@1`, or `l2@linear:1->0.1`: a penalty with the schedule of its weight.

    Raises:
        UsageError: unknown name or schedule.
    """
    name, _, weight = text.partition("@")
    make: Callable[[Schedule], Penalty] = PENALTIES.load(name)
    return make(parse_schedule(weight or "1"))


def fisher(student: Agent, features: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The diagonal of the Fisher information of what the student does in the states of `features` (N, F), in nats.

    E over states, and over actions as the student itself draws them, of (d log p(action | state) / d theta)^2, exact
    and not sampled; one tensor a parameter. Continuous actions without a spread, and Q-values, have unit variance. A
    weight of 1 then costs, to second order and without cross terms, KL(before || after) on these states.
    """
    found = [torch.zeros_like(p) for p in parameters]
    for row in features.split(1):
        said, roots = _roots(student.policy.forward(row))
        for root in roots:
            gradients = torch.autograd.grad(said, parameters, root[None], retain_graph=True)
            for total, gradient in zip(found, gradients, strict=True):
                total.addcmul_(gradient, gradient)
    return [total / len(features) for total in found]


def _roots(heads: Heads) -> tuple[Tensor, Tensor]:
    """What is said of one state (1, P), and R (K, P) whose R^T R is the Fisher information of the action in it."""
    if heads.mean is not None and heads.log_std is not None:
        return heads.mean, torch.diag((-heads.log_std[0]).exp())
    said = heads.scores() if heads.action is None else heads.action
    if heads.logits is None:
        return said, torch.eye(said.shape[1])
    if heads.bits:
        p = said[0].detach().sigmoid()
        return said, torch.diag((p * (1 - p)).sqrt())
    return said, torch.block_diag(*(_categorical(part) for part in said[0].detach().split(list(heads.groups))))


def _categorical(logits: Tensor) -> Tensor:
    """Rows sqrt(p_k) (e_k - p) for logits (A,): d log p_k / d logits, times how likely k is."""
    p = logits.softmax(0)
    return p.sqrt()[:, None] * (torch.eye(len(p)) - p)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
