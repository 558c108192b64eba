"""A PettingZoo game whose agents share one policy, seen as an environment of one agent that takes turns."""

from __future__ import annotations

from typing import Any

import gymnasium

from kdcli.errors import UsageError
from kdcli.modules import import_named


class Turns(gymnasium.Env):
    """The agents of a parallel env act one after the other; the game moves when all of them have.

    Each step takes the action of one agent and shows what the next one observes; those of a round all observe the same
    moment of the game, so that a policy without memory plays just as it would side by side. A policy with memory would
    mix up what the agents remember. The reward comes with the last action of a round: the sum over all agents.
    `module` has a function `parallel_env`, as PettingZoo's games do.

    Raises:
        UsageError: there is no such function, or the agents see or act differently.
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        found = getattr(import_named(module), "parallel_env", None)
        if found is None:
            raise UsageError(f"{module} is no PettingZoo game", "it has no parallel_env", "check --env pettingzoo:...")
        self._game = found(**kwargs)
        self.observation_space, self.action_space = self._shared(module)
        self._waiting: list[Any] = []
        self._seen: dict[Any, Any] = {}
        self._chosen: dict[Any, Any] = {}

    def _shared(self, module: str) -> tuple[gymnasium.Space[Any], gymnasium.Space[Any]]:
        """The spaces all agents have."""
        agents = self._game.possible_agents
        pairs = [(self._game.observation_space(agent), self._game.action_space(agent)) for agent in agents]
        other = next((agent for agent, pair in zip(agents, pairs, strict=True) if pair != pairs[0]), None)
        if other is not None:
            why = f"{agents[0]} and {other} do not observe and act in the same spaces"
            raise UsageError(f"the agents of {module} cannot share a policy", why, "name a game of equal agents")
        return pairs[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self._seen, _ = self._game.reset(seed=seed, options=options)
        self._waiting, self._chosen = list(self._game.agents), {}
        return self._seen[self._waiting[0]], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action; see `gymnasium.Env.step`."""
        agent = self._waiting.pop(0)
        self._chosen[agent] = action
        if self._waiting:
            return self._seen[self._waiting[0]], 0.0, False, False, {}
        self._seen, rewards, _, truncated, _ = self._game.step(self._chosen)
        self._waiting, self._chosen = list(self._game.agents), {}
        over, cut = not self._waiting, any(truncated.values())
        shown = self._seen[agent if over else self._waiting[0]]
        return shown, float(sum(rewards.values())), over and not cut, over and cut, {}

    def close(self) -> None:
        """Close the env."""
        self._game.close()
