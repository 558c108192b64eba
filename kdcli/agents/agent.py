"""The agent run by torch, and what every agent promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from kdcli.agents.distributions import sample
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Preprocess
from kdcli.agents.policy import Policy
from kdcli.spec import EnvSpec, Space


class Acts(Protocol):
    """Whatever can be rolled out and benchmarked: a teacher, a student, an exported file."""

    @property
    def name(self) -> str: ...

    @property
    def env(self) -> EnvSpec | None: ...

    @property
    def observation(self) -> Space: ...

    @property
    def action(self) -> Space: ...

    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions (B, *shape); deterministic without `rng`, else sampled."""
        ...


@dataclass(frozen=True, eq=False)
class Agent:
    """A policy with all it needs to act. `facts` say where it came from (format, algorithm, total parameters, ...)."""

    preprocess: Preprocess
    policy: Policy
    name: str = "agent"
    env: EnvSpec | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def observation(self) -> Space:
        return self.preprocess.space

    @property
    def action(self) -> Space:
        return self.policy.rule.space

    @property
    def n_params(self) -> int:
        """Weights and biases of the deployed actor."""
        return self.policy.n_params

    @torch.inference_mode()
    def heads(self, obs: np.ndarray) -> Heads:
        """Every signal for raw observations (B, *shape)."""
        return self.policy.forward(self.preprocess(obs))

    @torch.inference_mode()
    def act(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Raw observations (B, *shape) -> env-ready actions (B, *shape); deterministic without `rng`, else sampled."""
        features = self.preprocess(obs)
        if rng is None:
            actions = self.policy.rule.decode(self.policy.outputs(features))
        else:
            actions = sample(self.policy.forward(features), self.policy.rule, rng)
        return actions.numpy().astype(self.action.dtype, copy=False)

    def signals(self) -> list[str]:
        """Names of the heads this agent can teach with."""
        probe = np.zeros((1, *self.observation.shape), self.observation.dtype)
        return list(self.heads(probe + getattr(self.observation, "start", 0)).present())
