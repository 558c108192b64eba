"""Which environment an id names."""

from __future__ import annotations

import sys
import types
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from kdcli.envs.make import make, spaces_of
from kdcli.envs.toys import Reach
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec


class Sized(Reach):
    """Reach with an argument."""

    def __init__(self, push: float = 1.0) -> None:
        super().__init__()
        self.action_space = spaces.Box(-push, push, (1,), np.float32)


class Team:
    """A parallel env of PettingZoo's kind: agents name the largest of their numbers, and drop out when wrong twice."""

    def __init__(self, n: int = 3, same: bool = True) -> None:
        self.possible_agents = [f"agent_{i}" for i in range(n)]
        self.agents: list[str] = []
        self._same, self._rng = same, np.random.default_rng(0)

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-1.0, 1.0, (3 + (not self._same and agent == "agent_1"),))

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(3)

    def _show(self) -> dict[str, np.ndarray]:
        self.shown = {a: self._rng.uniform(-1, 1, 3).astype(np.float32) for a in self.agents}
        return self.shown

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._rng = self._rng if seed is None else np.random.default_rng(seed)
        self.agents, self.wrong, self.t = list(self.possible_agents), dict.fromkeys(self.possible_agents, 0), 0
        return self._show(), {}

    def step(self, actions: dict[str, int]) -> tuple[dict[str, Any], ...]:
        assert set(actions) == set(self.agents)
        rewards = {a: float(actions[a] == self.shown[a].argmax()) for a in self.agents}
        self.t += 1
        for agent, reward in rewards.items():
            self.wrong[agent] += reward == 0
        out, cut = {a: self.wrong[a] >= 2 for a in self.agents}, dict.fromkeys(self.agents, self.t == 8)
        seen = self._show()
        self.agents = [] if self.t == 8 else [a for a in self.agents if not out[a]]
        return seen, rewards, out, cut, {}

    def close(self) -> None:
        self.closed = True


def called() -> None:
    """Must not be."""
    raise RuntimeError("called")


class Called:
    """Must not be, either."""

    __init__ = called  # type: ignore[assignment]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with classes of somebody's own."""
    made = types.ModuleType("somebodys_games")
    vars(made).update(Sized=Sized, helper=called, parallel_env=Team, SavedState=Called)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made.__name__


def test_a_registered_env_of_a_module(module: str) -> None:
    """Law: module:Name-v0 imports the module, then makes the registered env, capped by its own limit."""
    env = make(EnvSpec("kdcli.envs.toys:kdcli/Choose-v0"))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 20


def test_a_class_of_a_module(module: str) -> None:
    """Law: module:Class makes an env that nobody registered, with arguments, capped like all."""
    spec = EnvSpec(f"{module}:Sized", {"push": 3.0}, max_steps=4)
    assert float(make(spec).action_space.high[0]) == 3.0  # type: ignore[attr-defined]
    vector = Vector(spec, 2)
    vector.reset(0, 1)
    assert [bool(vector.step([0], np.zeros((1, 1), np.float32))[2][0]) for _ in range(4)] == [False] * 3 + [True]


@pytest.mark.parametrize("name", ["helper", "Kept", "Nowhere", "parallel_env"])
def test_what_is_no_env_is_not_called(name: str, module: str) -> None:
    """Law: nothing but an Env class is called, whatever an EnvSpec names."""
    with pytest.raises(UsageError) as error:
        make(EnvSpec(f"{module}:{name}"))
    assert len(error.value.lines()) == 3


def test_agents_that_share_a_policy_take_turns(module: str) -> None:
    """Law: each agent acts once a round on what all see of one moment; the return is the sum over agents and rounds."""
    env, game = make(EnvSpec(f"pettingzoo:{module}")), Team()
    assert env.observation_space == game.observation_space("agent_0")
    rng = np.random.default_rng(3)
    seen, total, theirs, over = env.reset(seed=5)[0], 0.0, 0.0, False
    shown, _ = game.reset(seed=5)
    while not over:
        chosen: dict[str, int] = {}
        for agent in list(game.agents):
            np.testing.assert_array_equal(seen, shown[agent])
            chosen[agent] = int(shown[agent].argmax()) if rng.random() < 0.8 else int(rng.integers(3))
            assert not over
            seen, reward, terminated, truncated, _ = env.step(chosen[agent])
            total, over = total + reward, terminated or truncated
        shown, rewards, _, cut, _ = game.step(chosen)
        theirs += sum(rewards.values())
        assert over == (not game.agents)
    assert total == theirs > 0
    assert truncated == any(cut.values())


def test_turns_end_as_the_game_does(module: str) -> None:
    """Law: an episode that ends since all agents are out is terminated, one that is cut is truncated."""
    env = make(EnvSpec(f"pettingzoo:{module}", {"n": 2}))
    for wrong, end in ((1, [True, False]), (0, [False, True])):
        seen, ends = env.reset(seed=1)[0], [False, False]
        while not any(ends):
            seen, _, *ends, _ = env.step((int(seen.argmax()) + wrong) % 3)
        assert ends == end


def test_turns_repeat(module: str) -> None:
    """Law: such an episode is a function of its seed, too, and the env is checked by gymnasium's own checker."""
    from gymnasium.utils.env_checker import check_env

    env = make(EnvSpec(f"pettingzoo:{module}", {"n": 2}))
    first, again = (env.reset(seed=2)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
    assert env.unwrapped._game.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("env_id", "kwargs", "what"),
    [
        ("pettingzoo:{}", {"same": False}, "cannot share a policy"),
        ("pettingzoo:kdcli.envs.toys", {}, "no PettingZoo game"),
        ("pettingzoo:no.such.module", {}, "cannot make"),
        ("pettingzoo:{}", {"m": 3}, "does not take these arguments"),
    ],
)
def test_games_that_cannot_be_shared(env_id: str, kwargs: dict[str, Any], what: str, module: str) -> None:
    """Law: a game whose agents differ, or that is none, is a usage error."""
    with pytest.raises(UsageError, match=what):
        make(EnvSpec(env_id.format(module), kwargs))


def test_a_real_game() -> None:
    """Law: a game that comes with PettingZoo, with agents of one kind, plays to its end."""
    rps = "pettingzoo.classic.rps_v2"
    seen, does = spaces_of(EnvSpec(f"pettingzoo:{rps}", {"max_cycles": 3}))
    assert str(does) == "Discrete(3)"
    vector = Vector(EnvSpec(f"pettingzoo:{rps}", {"max_cycles": 3}), 1)
    vector.reset(0, 0)
    assert vector.observation.shape == seen.shape
    ends = [bool(np.any(vector.step([0], np.array([t % 2]))[1:])) for t in range(6)]
    assert ends == [False] * 5 + [True]


def test_no_gymnasium_env_is_lost() -> None:
    """Law: gymnasium's own registry is left as it is but for the envs that are asked for."""
    before = set(gymnasium.registry)
    make(EnvSpec("CartPole-v1")).close()
    assert {key for key in set(gymnasium.registry) - before if not key.startswith("kdcli/")} == set()
