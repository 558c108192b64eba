"""An agent run by torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdcli import artifact
from kdcli.agents.action import ActionRule
from kdcli.agents.actor import no_memory
from kdcli.agents.description import describe, tensors_of
from kdcli.agents.distributions import sample
from kdcli.agents.heads import Heads
from kdcli.agents.observation import Preprocessor
from kdcli.agents.packed_weights import held, unpack_into
from kdcli.agents.policy import Policy, Signal
from kdcli.agents.predict import Observation, predict
from kdcli.networks.packed_weights import Packed
from kdcli.spec import EnvSpec, Part, Space, zeros


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
        """The space of one raw observation."""
        return self.preprocess.space

    @property
    def action(self) -> Part:
        """The space of one action."""
        return self.policy.rule.space

    @property
    def rule(self) -> ActionRule:
        """How outputs become actions."""
        return self.policy.rule

    @property
    def signal(self) -> Signal:
        """What the network's outputs mean."""
        return self.policy.signal

    @property
    def state_size(self) -> int:
        """Numbers it carries from step to step; 0 without memory."""
        return self.policy.state_size

    @property
    def n_params(self) -> int:
        """Weights and biases of the deployed actor."""
        return self.policy.n_params

    def predict(
        self,
        observation: Observation,
        state: np.ndarray | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions and the next state, in Stable-Baselines3's form; see `kdcli.agents.predict`."""
        return predict(self, observation, state, episode_start, deterministic)

    def save(self, path: Path | str, record: Mapping[str, Any] | None = None, force: bool = False) -> Path:
        """Write the agent to one safetensors file, with the `record` of how it was made.

        Raises:
            UsageError: the file exists (without `force`) or cannot be written.
        """
        made = {**describe(self), "made": dict(record or {})}
        return artifact.write_tensors(Path(path), made, tensors_of(self), force)

    def packed(self, packing: Mapping[str, Packed]) -> Agent:
        """A new agent whose parameters of these names (`network.head.weight`, ...) are the decoded ones.

        Raises:
            ValueError: a name that is no parameter, or another shape.
        """
        policy = copy.deepcopy(self.policy).eval().requires_grad_(False)
        policy.packing = {}
        return replace(self, policy=unpack_into(policy, {**held(self.policy), **packing}))

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
