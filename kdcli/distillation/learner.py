"""The training loop: a student follows an objective over batches of labelled states."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.agreement import agreement
from kdcli.agents.heads import Heads
from kdcli.distillation.batch_norm import BatchNorm
from kdcli.distillation.buffer import Batch, Buffer
from kdcli.distillation.checkpointing import (
    SavedState,
    adam_state,
    below,
    generator_state,
    module_state,
    restore_adam,
    restore_generator,
    restore_module,
    under,
)
from kdcli.distillation.config import ResolvedConfig
from kdcli.distillation.data_modes import errors
from kdcli.distillation.losses.entropy import entropies
from kdcli.distillation.objective import Objective, wanted
from kdcli.distillation.reinforcement import Reinforcement
from kdcli.distillation.replay import chances
from kdcli.distillation.schedules import parse_schedule
from kdcli.distillation.units import Units
from kdcli.distillation.unroll import both
from kdcli.errors import RefusedError, option
from kdcli.rollouts.behavior_policy import Noise

_JUDGED = 2048  # states on which student and teacher are compared after a round
_NORMED = 1024  # states whose statistics stay when batches are no longer normalized


class Learner:
    """A student with its optimizer. `train` moves it; `snapshot` is an agent that later training does not change."""

    def __init__(
        self,
        student: Agent,
        objective: Objective,
        config: ResolvedConfig,
        reinforcements: Sequence[Reinforcement] = (),
        normalized: bool = True,
    ) -> None:
        self.student, self.objective, self._config = student, objective, config
        self._reinforcements = tuple(reinforcements)
        self._lr = parse_schedule(config.lr)
        self._batch_norm = BatchNorm(student.policy if normalized else None)
        self.parameters = [p for p in (*student.policy.parameters(), *objective.parameters()) if p.requires_grad]
        self._adam = torch.optim.Adam(self.parameters, lr=self._lr(0.0), fused=True)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._inside = wanted([term.name for term in objective.terms])

    def begin_round(self) -> None:
        """Let the student play for its rewards, where it is to learn from them."""
        for reinforcement in self._reinforcements:
            reinforcement.watch(self.student, self.objective.measured)

    def train(self, buffer: Buffer, n: int, span: tuple[float, float] = (0.0, 1.0)) -> float:
        """`n` gradient steps over the progress `span` -> the mean loss of their last tenth.

        Raises:
            RefusedError: the loss is not a finite number.
        """
        start, width, group = span[0], (span[1] - span[0]) / n, self._adam.param_groups[0]
        tail: list[Tensor] = []
        with self.training_on(buffer):
            for step, loss in enumerate(self.losses(buffer, n, span)):
                # The learning rate follows its schedule over the whole training, not over this round.
                group["lr"] = self._lr(start + width * step)
                # One step of Adam down the loss of one batch.
                self._adam.zero_grad(set_to_none=True)
                loss.backward()
                self._adam.step()
                # What is reported is the loss of the last tenth: that of the student as it is in the end.
                if step >= 0.9 * (n - 1):
                    tail.append(loss.detach())
        return finite(float(torch.stack(tail).mean()))

    @contextmanager
    def training_on(self, buffer: Buffer) -> Iterator[None]:
        """Within, the student is written as it is trained on these states; behind, it is an ordinary network."""
        policy, objective = self.student.policy, self.objective
        objective.units = Units(objective.units_read, buffer)
        # What moving weights costs is known of them as they are written otherwise.
        written = nullcontext() if objective.penalties else objective.units.written(policy)
        policy.train()
        with written, self._batch_norm.training_on(lambda: some_features(buffer)):
            yield
        policy.eval()

    def losses(self, buffer: Buffer, n: int, span: tuple[float, float]) -> Iterator[Tensor]:
        """The loss on each of `n` batches, scalars with a gradient; the student may be moved in between."""
        start, width = span[0], (span[1] - span[0]) / n
        for step, batch in enumerate(self._batches(buffer, n)):
            progress = start + width * step
            # Distillation: the objective compares what student and teacher say of the same states ...
            loss = self.objective(*both(self.student.policy, batch, self._inside), progress)
            # ... and reinforcement adds what the student's own play was worth.
            yield sum((reinforcement(progress) for reinforcement in self._reinforcements), loss)

    def _batches(self, buffer: Buffer, n: int) -> Iterator[Batch]:
        size, reads, policy = self._config.batch, self.objective.reads, self.student.policy
        if policy.state_size:
            windows = max(1, size // self._config.window)
            return buffer.windows(windows, self._config.window, n, self._generator, reads)
        odds = chances(self._config.replay, buffer, policy, self.objective)
        return buffer.batches(size, n, self._generator, reads, odds)

    def agreement(self, buffer: Buffer) -> float:
        """How often, or how nearly, the student does what the teacher does in the newest states; 1 is always."""
        return agreement_of(self.student.rule, *self._said(buffer))

    def errors(self, buffer: Buffer) -> Noise:
        """How far the student is from the teacher in the newest states, see `data.errors`."""
        return errors(*self._said(buffer), self.student.rule)

    def entropies(self, buffer: Buffer) -> dict[str, float]:
        """Those of the student's choices in the newest states; none of continuous actions."""
        return {} if self.student.signal == "mean" else entropies(self._said(buffer)[0])

    @torch.inference_mode()
    def _said(self, buffer: Buffer) -> tuple[Heads, Heads]:
        """The student's heads and the teacher's of the newest states, of one with memory of windows drawn anywhere."""
        if not self.student.state_size:
            return both(self.student.policy, buffer.newest(_JUDGED))
        window = self._config.window
        drawn = buffer.windows(max(1, _JUDGED // window), window, 1, torch.Generator().manual_seed(0))
        return both(self.student.policy, next(drawn))

    def state(self) -> SavedState:
        """The student's weights and all that moves them."""
        rewarded = {
            name: array
            for k, reinforcement in enumerate(self._reinforcements)
            for name, array in under(f"reward{k}", reinforcement.state()).items()
        }
        return {
            **under("student", module_state(self.student.policy)),
            **under("batch_norm", module_state(self._batch_norm)),
            **under("objective", module_state(self.objective)),
            **under("adam", adam_state(self._adam)),
            **rewarded,
            "generator": generator_state(self._generator),
        }

    def restore(self, kept: SavedState) -> None:
        """Go to where `kept` was taken."""
        restore_module(self.student.policy, below("student", kept))
        restore_module(self._batch_norm, below("batch_norm", kept))
        restore_module(self.objective, below("objective", kept))
        restore_adam(self._adam, below("adam", kept))
        restore_generator(self._generator, kept["generator"])
        for k, reinforcement in enumerate(self._reinforcements):
            reinforcement.restore(below(f"reward{k}", kept))

    def snapshot(self) -> Agent:
        """The student as it is now, with weights of its own."""
        return copy_agent(self.student)


def some_features(buffer: Buffer) -> Tensor:
    """Features (N, F) of up to 1,024 states drawn from all of them."""
    return next(buffer.batches(_NORMED, 1, torch.Generator().manual_seed(0), reads=())).features


def finite(loss: float) -> float:
    """The same number.

    Raises:
        RefusedError: it is none.
    """
    if math.isfinite(loss):
        return loss
    raise RefusedError(
        "the loss is not a finite number", "training diverged", f"lower {option('lr')}, or check the teacher"
    )


def copy_agent(agent: Agent) -> Agent:
    """The same agent with weights of its own."""
    import copy

    return replace(agent, policy=copy.deepcopy(agent.policy).eval().requires_grad_(False))


def agreement_of(rule: ActionRule, student: Heads, teacher: Heads) -> float:
    """How much what the student says comes to what the teacher's heads say of the same states; 1 is always."""
    ours = rule.taught(rule.decode(student.scores()))
    if ours.choice is not None and teacher.choice is not None:
        return agreement(ours.choice.numpy(), teacher.choice.numpy(), rule.space)
    assert ours.action is not None
    assert teacher.action is not None
    return agreement(ours.action.numpy(), teacher.action.numpy(), rule.unit_space)
