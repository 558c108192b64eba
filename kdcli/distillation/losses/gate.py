"""Which of several teachers a student follows in each state: attention over them, learned together with the student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdcli.agents.heads import Heads
from kdcli.distillation.losses.actions import action
from kdcli.distillation.losses.choices import kl
from kdcli.distillation.losses.facts import loss
from kdcli.distillation.losses.reading import Tau, need

_ALIKE = 0.1  # of each prior is shared by all: a teacher that was ruled out a priori may still be listened to


@loss(reads=("members", "shares"))
class Gated(nn.Module):
    """sum_k w_k distance_k + KL(w || prior), in nats -> (B,): weights w over teachers k, their labels kept apart.

    w is the softmax of log prior_k + query . key_k; the query is the student's last hidden layer, the keys are learned
    (teachers weighted by instance: Liu et al. 2020, Adaptive multi-teacher multi-level knowledge distillation). By the
    distances alone all weight would go to whoever is easiest to imitate, however bad. The prior holds it: what the
    combination of the teachers gives each in this state (alike, by weights, by value, by confidence). The sum is an
    upper bound of -log sum_k prior_k exp(-distance_k), reached by the best weights: teachers that are as far from the
    student as each other keep their prior. distance: KL(teacher || student) of choices, half the squared distance of
    actions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys: nn.Linear | None = None

    def begin(self, student: Heads, teacher: Heads) -> None:
        """Learn of the sizes; at first the weights are the prior."""
        width, n = need(student, "features", "student").shape[1], need(teacher, "members", "teacher").shape[1]
        self.keys = nn.Linear(width, n)
        nn.init.zeros_(self.keys.weight)
        nn.init.zeros_(self.keys.bias)

    def weights(self, student: Heads, teacher: Heads) -> tuple[Tensor, Tensor]:
        """log w and the log of the prior, (B, M) each."""
        if self.keys is None:
            self.begin(student, teacher)
        assert self.keys is not None
        shares = need(teacher, "shares", "teacher")
        prior = torch.lerp(shares, torch.full_like(shares, 1.0 / shares.shape[1]), _ALIKE).log()
        # The student's layers learn to do what the teachers do, not to make the gate's work easy.
        return F.log_softmax(prior + self.keys(need(student, "features", "student").detach()), 1), prior

    def forward(self, student: Heads, teacher: Heads, tau: Tau) -> Tensor:
        """Heads of B states -> (B,)."""
        log_w, prior = self.weights(student, teacher)
        each = need(teacher, "members", "teacher").unbind(1)
        far = torch.stack([_distance(student, teacher, said) for said in each], 1)
        return (log_w.exp() * (far + log_w - prior)).sum(1)


def _distance(student: Heads, teacher: Heads, said: Tensor) -> Tensor:
    """How far the student is from one of them, who says (B, A), in nats -> (B,)."""
    if student.action is None:
        return kl(student, Heads(logits=said, groups=teacher.groups, bits=teacher.bits), 1.0)
    return action(student, Heads(action=said, side=said * (said.abs() == 1.0)), 1.0) / 2
