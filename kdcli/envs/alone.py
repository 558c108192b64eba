"""An env of which one may be open at a time, whoever in a command plays it: a simulator with one port, one robot."""

from __future__ import annotations

from typing import Any

import gymnasium

from kdcli.envs.make import make
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec


class Alone:
    """Closed where another one is made, and opened again when it is played on: it repeats its episode up to there.

    Raises:
        UsageError: it cannot be made, or does not repeat an episode from the same seed and the same actions.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self._spec = spec
        self._seed: int | None = None
        self._actions: list[Any] = []
        self._env: gymnasium.Env | None = None
        self._env = make(spec, self.close)

    @property
    def env(self) -> gymnasium.Env:
        """The env itself, opened and brought to where it was."""
        if self._env is None:
            self._env = make(self._spec, self.close)
            if self._seed is not None:
                self._repeat(self._env, self._seed)
        return self._env

    def _repeat(self, env: gymnasium.Env, seed: int) -> None:
        env.reset(seed=seed)
        for action in self._actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                why = "only one may be open, so that its episode is repeated after another one was played"
                fix = "let reset(seed=...) decide all that follows, or allow more with --envs 2"
                raise UsageError(f"{self._spec} ends elsewhere from the same seed and actions", why, fix)

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """As the env."""
        self._seed = None
        found = self.env.reset(seed=seed)
        self._seed, self._actions = seed, []
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the env."""
        found = self.env.step(action)
        self._actions.append(action)
        return found

    def close(self) -> None:
        """Close the env until it is played again."""
        env, self._env = self._env, None
        if env is not None:
            env.close()
