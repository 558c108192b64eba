"""The training loop: a student follows an objective over batches of labelled states."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kdcli.agents.agent import Agent
from kdcli.agents.agreement import agreement
from kdcli.agents.heads import Heads
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.objective import Objective
from kdcli.distillation.schedules import Schedule
from kdcli.errors import RefusedError


class Learner:
    """A student with its optimizer. `train` moves it; `snapshot` is an agent that later training does not change."""

    def __init__(self, student: Agent, objective: Objective, lr: Schedule, batch: int, seed: int) -> None:
        self.student, self._objective, self._lr, self._batch = student, objective, lr, batch
        self.parameters = [p for p in (*student.policy.parameters(), *objective.parameters()) if p.requires_grad]
        self._adam = torch.optim.Adam(self.parameters, lr=lr(0.0), fused=True)
        self._generator = torch.Generator().manual_seed(seed)

    def train(self, buffer: Buffer, n: int, span: tuple[float, float] = (0.0, 1.0)) -> float:
        """`n` gradient steps over the progress `span` -> the mean loss of their last tenth.

        Raises:
            RefusedError: the loss is not a finite number.
        """
        policy, group = self.student.policy.train(), self._adam.param_groups[0]
        start, width = span[0], (span[1] - span[0]) / n
        tail: list[Tensor] = []
        for step, loss in enumerate(self.losses(buffer, n, span)):
            group["lr"] = self._lr(start + width * step)
            self._adam.zero_grad(set_to_none=True)
            loss.backward()
            self._adam.step()
            if step >= 0.9 * (n - 1):
                tail.append(loss.detach())
        policy.eval()
        return finite(float(torch.stack(tail).mean()))

    def losses(self, buffer: Buffer, n: int, span: tuple[float, float]) -> Iterator[Tensor]:
        """The loss on each of `n` batches, scalars with a gradient; the student may be moved in between."""
        start, width = span[0], (span[1] - span[0]) / n
        batches = buffer.batches(self._batch, n, self._generator, self._objective.reads)
        for step, (features, teacher) in enumerate(batches):
            yield self._objective(self.student.policy.forward(features), teacher, start + width * step)

    def snapshot(self) -> Agent:
        """The student as it is now, with weights of its own."""
        return copy_agent(self.student)


def finite(loss: float) -> float:
    """The same number.

    Raises:
        RefusedError: it is none.
    """
    if math.isfinite(loss):
        return loss
    raise RefusedError("the loss is not a finite number", "training diverged", "lower --lr, or check the teacher")


def copy_agent(agent: Agent) -> Agent:
    """The same agent with weights of its own."""
    import copy

    return replace(agent, policy=copy.deepcopy(agent.policy).eval().requires_grad_(False))


@torch.inference_mode()
def agreement_with(teacher: Heads, student: Agent, features: Tensor) -> float:
    """How much the student does what the teacher's heads say, on their features (B, F); 1 is always."""
    rule = student.policy.rule
    ours = rule.taught(rule.decode(student.policy.outputs(features)))
    if ours.choice is not None and teacher.choice is not None:
        return agreement(ours.choice.numpy(), teacher.choice.numpy(), rule.space)
    assert ours.action is not None
    assert teacher.action is not None
    return agreement(ours.action.numpy(), teacher.action.numpy(), rule.unit_space)
