"""What every agent promises: a teacher, a student, an exported file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np

from kdcli.errors import UsageError, option
from kdcli.spec import EnvSpec, Part, Space

if TYPE_CHECKING:
    from kdcli.agents.action import ActionRule
    from kdcli.agents.heads import Heads
    from kdcli.agents.observation import Preprocessor
    from kdcli.agents.policy import Signal


class Actor(Protocol):
    """Whatever can be rolled out and benchmarked: a teacher, a student, an exported file."""

    @property
    def name(self) -> str:
        """What it is called in tables and records."""
        ...

    @property
    def env(self) -> EnvSpec | None:
        """The env it was trained in, where that is known."""
        ...

    @property
    def observation(self) -> Space:
        """The space of one raw observation."""
        ...

    @property
    def action(self) -> Part:
        """The space of one action."""
        ...

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
    def rule(self) -> ActionRule:
        """How outputs become actions."""
        ...

    @property
    def signal(self) -> Signal:
        """What the network's outputs mean."""
        ...

    @property
    def preprocess(self) -> Preprocessor:
        """How observations become features."""
        ...

    def heads(self, obs: np.ndarray, state: np.ndarray | None = None) -> Heads:
        """Every signal for raw observations (B, *shape) and states (B, S), at first none."""
        ...

    def decode(self, heads: Heads) -> np.ndarray:
        """The env-ready deterministic actions (B, *shape) of what was said."""
        ...


def teaches(agent: Actor) -> TypeGuard[LabelingActor]:
    """Whether the agent says more than what to do."""
    return hasattr(agent, "heads")


def env_of(agent: Actor) -> EnvSpec:
    """The env that the agent was trained in.

    Raises:
        UsageError: it does not say.
    """
    if agent.env is None:
        why = f"{agent.name} does not say where it was trained"
        raise UsageError("the env is not known", why, f"name it with {option('env')} when it is loaded")
    return agent.env


def no_memory(agent: Actor) -> None:
    """Raise UsageError for an agent that cannot act without its state."""
    if agent.state_size:
        why = f"it carries {agent.state_size} numbers from one step to the next"
        raise UsageError(f"{agent.name} has memory", why, "call step(obs, state), with zeros where an episode begins")
