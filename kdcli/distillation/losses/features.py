"""Losses on what goes on inside: the last hidden layer, the state that is carried on, where convolutions are active.

Those of one hidden layer against another have a projection of their own, which is learned beside the student and
thrown away. The relational ones need none: they compare how the samples of a batch lie to each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, need


@loss(reads=("features",), unit="features")
class Hint(nn.Module):
    """Squared distance of the teacher's last hidden layer from the student's after a learned projection -> (B,).

    Averaged over the teacher's units. Romero et al. 2015 (FitNets), eq. 3.
    """

    head = "features"

    def __init__(self) -> None:
        super().__init__()
        self.projection: nn.Linear | None = None

    def begin(self, student: Heads, teacher: Heads) -> None:
        """Learn of the widths; the projection changes nothing where they are equal."""
        ours, theirs = need(student, self.head, "student"), need(teacher, self.head, "teacher")
        self.projection = nn.Linear(ours.shape[1], theirs.shape[1])
        nn.init.zeros_(self.projection.bias)
        if ours.shape[1] == theirs.shape[1]:
            nn.init.eye_(self.projection.weight)
        else:
            nn.init.orthogonal_(self.projection.weight)

    def forward(self, student: Heads, teacher: Heads, tau: Tau) -> Tensor:
        """Heads of B states -> (B,)."""
        if self.projection is None:
            self.begin(student, teacher)
        assert self.projection is not None
        ours, theirs = need(student, self.head, "student"), need(teacher, self.head, "teacher")
        return F.mse_loss(self.projection(ours), theirs, reduction="none").mean(1)


@loss(reads=("state",), unit="state")
class StateHint(Hint):
    """As `Hint`, of what recurrent policies carry to the next step: h of GRU cells, h and c of LSTM cells."""

    head = "state"


@loss(reads=("attention",))
def attention(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Squared distance of normalised attention maps (B, h, w) -> (B,). Zagoruyko and Komodakis 2017, eq. 2.

    A student's map of another size is resampled to the teacher's.
    """
    ours, theirs = need(student, "attention", "student"), need(teacher, "attention", "teacher")
    if ours.shape[1:] != theirs.shape[1:]:
        ours = F.interpolate(ours[:, None], theirs.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return (_unit(ours.flatten(1)) - _unit(theirs.flatten(1))).square().sum(1)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1, eps=1e-8)


@loss(reads=("features",))
def rkd_distance(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of distances between the hidden layers of a batch, each relative to their mean -> (B,).

    A sample's share is the mean over its distances to the others. Park et al. 2019 (RKD), eq. 4 to 6.
    """
    ours, theirs = (_distances(x) for x in _features(student, teacher))
    return F.huber_loss(ours, theirs, reduction="none").sum(1) / max(1, len(ours) - 1)


@loss(reads=("features",))
def rkd_angle(student: Heads, teacher: Heads, tau: Tau) -> Tensor:
    """Huber error of the cosines of angles between the hidden layers of a batch -> (B,); Park et al. 2019, eq. 7 to 9.

    A sample's share is the mean over the angles at it. B^3 of them: keep batches to some dozens.
    """
    ours, theirs = (_angles(x) for x in _features(student, teacher))
    return F.huber_loss(ours, theirs, reduction="none").mean((1, 2))


def _features(student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
    return need(student, "features", "student"), need(teacher, "features", "teacher")


def _distances(x: Tensor) -> Tensor:
    """(B, H) -> (B, B), with mean 1 off the diagonal, which is 1 under the root for the sake of its gradient."""
    norms, same = x.square().sum(1), torch.eye(len(x))
    squares = (norms[:, None] + norms[None, :] - 2.0 * x @ x.T).clamp(min=1e-12) * (1.0 - same) + same
    found = squares.sqrt() - same
    mean = found.sum() / max(1, len(x) * (len(x) - 1))
    return found / mean.clamp(min=1e-12)


def _angles(x: Tensor) -> Tensor:
    """(B, H) -> (B, B, B): the cosine at the first sample of the angle between the other two."""
    away = _unit(x[None, :, :] - x[:, None, :])
    return away @ away.transpose(1, 2)
