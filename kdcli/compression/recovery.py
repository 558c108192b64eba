"""What a pruned agent does after a cut: distillation by the agent that it was, beginning with itself."""

from __future__ import annotations

from torch import Tensor

from kdcli.agents.actor import Actor
from kdcli.agents.agent import Agent
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.learner import copy_agent
from kdcli.distillation.loop import Judge, distill
from kdcli.distillation.replay_pool import ReplayPool, RolloutCollector
from kdcli.envs.vector import Vector

_CAPACITY = 1_000_000


class Recovery:
    """Distills agents back towards `teacher`, each by a lesson of its own; the states labelled for one serve the next.

    With `keep_zeros`, weights that are zero stay so.
    """

    def __init__(
        self, teacher: Actor, vector: Vector, training_config: DistillConfig, judge: Judge, keep_zeros: bool
    ) -> None:
        self._teacher, self._lesson, self._judge, self._keep_zeros = teacher, training_config, judge, keep_zeros
        self._collector = RolloutCollector(teacher, vector, training_config.seed, training_config.noise)
        self._pool: ReplayPool | None = None

    def __call__(self, agent: Agent) -> Agent:
        """The agent with the weights of the best round by return."""
        pool = self._pool_for(agent)
        pool.count_anew()
        student = copy_agent(agent)
        for parameter in student.policy.parameters():
            parameter.requires_grad_(True)
            if self._keep_zeros:
                _hold(parameter)
        return distill(self._teacher, self._lesson, pool, self._judge, start=student).student

    def _pool_for(self, agent: Agent) -> ReplayPool:
        """All states so far, as this agent reads them."""
        if self._pool is None or self._pool.preprocess is not agent.preprocess:
            first = self._collector.collect(None, 1.0, self._lesson.labels // self._lesson.rounds)
            self._pool = ReplayPool(self._teacher, first, _CAPACITY, self._collector, agent.preprocess)
        return self._pool


def _hold(parameter: Tensor) -> None:
    """No gradient where the parameter is zero."""
    mask = parameter.detach() != 0
    parameter.register_hook(lambda gradient: gradient * mask)


def training_config_of(updates: int, labels: int, lr: str, seed: int) -> DistillConfig:
    """A short distillation in four rounds; the student acts half of the time from the beginning: it can do so."""
    return DistillConfig(rounds=4, labels=labels, updates=updates, lr=lr, seed=seed, beta="linear:0.5->0")
