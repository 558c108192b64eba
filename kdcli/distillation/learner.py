"""The training loop: a student follows an objective over batches of labelled states."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kdcli.agents.agent import Agent
from kdcli.agents.heads import Heads
from kdcli.distillation.buffer import Buffer
from kdcli.distillation.objective import Objective
from kdcli.distillation.schedules import Schedule
from kdcli.errors import RefusedError


class Learner:
    """A student with its optimizer. `train` moves it; `snapshot` is an agent that later training does not change."""

    def __init__(self, student: Agent, objective: Objective, lr: Schedule, batch: int, seed: int) -> None:
        self.student, self._objective, self._lr, self._batch = student, objective, lr, batch
        self._parameters = [p for p in student.policy.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._parameters, lr=lr(0.0), fused=True)
        self._generator = torch.Generator().manual_seed(seed)

    def train(self, buffer: Buffer, n: int, span: tuple[float, float] = (0.0, 1.0)) -> float:
        """`n` gradient steps over the progress `span` -> the mean loss of their last tenth.

        Raises:
            RefusedError: the loss is not a finite number.
        """
        policy, group = self.student.policy.train(), self._adam.param_groups[0]
        start, width = span[0], (span[1] - span[0]) / n
        tail: list[Tensor] = []
        for step, (features, teacher) in enumerate(buffer.batches(self._batch, n, self._generator)):
            progress = start + width * step
            group["lr"] = self._lr(progress)
            loss = self._objective(policy(features), teacher, progress)
            self._adam.zero_grad(set_to_none=True)
            loss.backward()
            self._adam.step()
            if step >= 0.9 * (n - 1):
                tail.append(loss.detach())
        policy.eval()
        mean = float(torch.stack(tail).mean())
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise RefusedError(
                "the loss is not a finite number", "training diverged", "lower --lr, or check the teacher"
            )
        return mean

    def snapshot(self) -> Agent:
        """The student as it is now, with weights of its own."""
        return copy_agent(self.student)


def copy_agent(agent: Agent) -> Agent:
    """The same agent with weights of its own."""
    import copy

    return replace(agent, policy=copy.deepcopy(agent.policy).eval().requires_grad_(False))


@torch.inference_mode()
def agreement(student: Agent, features: Tensor, teacher: Heads) -> float:
    """How much the student does what the teacher does, 1 is always.

    Discrete: the share of states with the same greedy action. Continuous: 1 - RMS difference of the actions, in half
    ranges, both clipped to the bounds.
    """
    policy = student.policy
    if teacher.choice is not None:
        ours = policy.rule.decode(policy.outputs(features)) - getattr(policy.rule.space, "start", 0)
        same = ours.long() == teacher.choice
        return float(same.reshape(len(features), -1).all(1).float().mean())
    assert teacher.action is not None
    ours = policy.rule.unit(policy.outputs(features))
    limit = 1.0 if policy.rule.bounded else torch.inf
    gap = ours.clamp(-limit, limit) - teacher.action.clamp(-limit, limit)
    return 1.0 - float(gap.square().mean().sqrt())
