"""An agent in the place of another one: what it is, is the other's; what it does, its subclasses say."""

from __future__ import annotations

from kdcli.agents.actor import Actor
from kdcli.spec import EnvSpec, Part, Space


class ActorWrapper:
    """Passes for `agent` in everything but how it acts."""

    def __init__(self, agent: Actor) -> None:
        self.agent = agent

    @property
    def name(self) -> str:
        """What it is called in tables and records."""
        return self.agent.name

    @property
    def env(self) -> EnvSpec | None:
        """The env it was trained in, where that is known."""
        return self.agent.env

    @property
    def observation(self) -> Space:
        """The space of one raw observation."""
        return self.agent.observation

    @property
    def action(self) -> Part:
        """The space of one action."""
        return self.agent.action

    @property
    def state_size(self) -> int:
        """Numbers it carries from step to step; 0 without memory."""
        return self.agent.state_size
