"""The agent run by torch, and what every agent promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.distributions import sample
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Preprocessor
from kdcli.agents.policy import Policy, Signal
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec, Part, Space, zeros


class Actor(Protocol):
    """Whatever can be rolled out and benchmarked: a teacher, a student, an exported file."""

    @property
    def name(self) -> str: ...

    @property
    def env(self) -> EnvSpec | None: ...

    @property
    def observation(self) -> Space: ...

    @property
    def action(self) -> Part: ...

    @property
    def state_size(self) -> int:
        """Numbers it carries from one step of an episode to the next; 0 without memory."""
        ...

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions (B, *shape); deterministic without `rng`, else sampled.

        Raises:
            UsageError: the agent has memory: use `step`.
        """
        ...

    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `act`, with the states before (B, S); returns those after, too. Zeros begin an episode."""
        ...


class LabelingActor(Actor, Protocol):
    """Who can say more than what to do: an agent run by torch, or several seen as one."""

    @property
    def rule(self) -> ActionRule: ...

    @property
    def signal(self) -> Signal: ...

    @property
    def preprocess(self) -> Preprocessor: ...

    def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
        """Every signal for raw observations (B, *shape) and states (B, S), at first none."""
        ...

    def decode(self, heads: Heads) -> np.ndarray:
        """The env-ready deterministic actions (B, *shape) of what was said."""
        ...


def teaches(agent: Actor) -> TypeGuard[LabelingActor]:
    """Whether the agent says more than what to do."""
    return hasattr(agent, "heads")


def no_memory(agent: Actor) -> None:
    """Raise UsageError for an agent that cannot act without its state."""
    if agent.state_size:
        why = f"it carries {agent.state_size} numbers from one step to the next"
        raise UsageError(f"{agent.name} has memory", why, "call step(obs, state), with zeros where an episode begins")


@dataclass(frozen=True, eq=False)
class Agent:
    """A policy with all it needs to act. `facts` say where it came from (format, algorithm, total parameters, ...)."""

    preprocess: Preprocessor
    policy: Policy
    name: str = "agent"
    env: EnvSpec | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def observation(self) -> Space:
        return self.preprocess.space

    @property
    def action(self) -> Part:
        return self.policy.rule.space

    @property
    def rule(self) -> ActionRule:
        return self.policy.rule

    @property
    def signal(self) -> Signal:
        return self.policy.signal

    @property
    def state_size(self) -> int:
        return self.policy.state_size

    @property
    def n_params(self) -> int:
        """Weights and biases of the deployed actor."""
        return self.policy.n_params

    @torch.inference_mode()
    def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
        """Every signal for raw observations (B, *shape) and states (B, S), at first none."""
        return self.policy.forward(self.preprocess(obs), None if state is None else torch.from_numpy(state))

    @torch.inference_mode()
    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions (B, *shape); deterministic without `rng`, else sampled.

        Raises:
            UsageError: the agent has memory: use `step`.
        """
        no_memory(self)
        features = self.preprocess(obs)
        if rng is None:
            return self.ready(self.policy.rule.decode(self.policy.outputs(features)))
        return self.ready(sample(self.policy.forward(features), self.policy.rule, rng))

    @torch.inference_mode()
    def step(
        self, obs: np.ndarray, state: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `act`, with the states before (B, S); returns those after, too. Zeros begin an episode."""
        heads = self.heads(obs, state)
        actions = self.decode(heads) if rng is None else self.ready(sample(heads, self.policy.rule, rng))
        return actions, state if heads.state is None else heads.state.numpy()

    @torch.inference_mode()
    def attention(self, obs: np.ndarray) -> Tensor:
        """Where the last convolution is active for raw observations (B, *shape), (B, h, w); see `Policy.attention`."""
        return self.policy.attention(self.preprocess(obs))

    def decode(self, heads: Heads) -> np.ndarray:
        """The env-ready deterministic actions (B, *shape) of what the policy said."""
        return self.ready(self.policy.rule.decode(heads.scores()))

    def ready(self, actions: Tensor) -> np.ndarray:
        """Actions (B, *shape) in the dtype of the space."""
        return actions.numpy().astype(self.action.dtype, copy=False)

    def signals(self) -> list[str]:
        """Names of the heads this agent can teach with."""
        return list(self.heads(zeros(self.observation)).present())
