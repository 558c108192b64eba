"""Success rates and motion beside returns."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from scipy import stats
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.benchmarks.conduct import motion_of, success_of
from kdcli.envs.make import make
from kdcli.envs.toys import Reach
from kdcli.envs.vector import Vector
from kdcli.rollouts.evaluate import Episodes, play
from kdcli.spec import EnvSpec


class ResolvedRecipe(Reach):
    """Reach that says at every step whether the origin is near."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        obs, reward, over, cut, _ = super().step(action)
        return obs, reward, over, cut, {"is_success": bool(abs(self._state[0]) < 0.5)}


gymnasium.register("test/Told-v0", ResolvedRecipe, max_episode_steps=30)
TOLD = EnvSpec("test/Told-v0")


def test_play_reports_what_env_and_actions_did() -> None:
    """Law: success is what the last info of an episode says; motion is of the very actions, episode by episode."""
    agent, found = reach_teacher(), play(reach_teacher(), Vector(TOLD, 3), range(7))
    for i, seed in enumerate(found.seeds):
        env = make(TOLD)
        obs, _ = env.reset(seed=seed)
        actions, over = [], False
        while not over:
            actions.append(agent.act(obs[None])[0])
            obs, _, terminated, truncated, info = env.step(actions[-1])
            over = terminated or truncated
        assert found.success[i] == float(info["is_success"])
        assert found.smoothness[i] == pytest.approx(np.abs(np.diff(actions, axis=0)).mean(), rel=1e-5)
        assert found.energy[i] == pytest.approx(np.square(actions).mean(), rel=1e-5)
    motion = motion_of(found)
    assert motion is not None
    assert motion.energy == pytest.approx(found.energy.mean())


def test_nothing_is_made_up() -> None:
    """Law: an env that tells no success has no rate, actions that are choices have no motion."""
    assert success_of(play(reach_teacher(), Vector(REACH, 3), range(4))) is None
    assert motion_of(play(choose_teacher(), Vector(CHOOSE, 3), range(4))) is None


@pytest.mark.parametrize("successes", [0, 3, 50, 100])
def test_the_interval_is_wilsons(successes: int) -> None:
    """Law: the interval of a success rate is scipy's Wilson interval, and lies between 0 and 1."""
    told = np.repeat([1.0, 0.0], [successes, 100 - successes])
    none = np.full(100, np.nan)
    found = success_of(Episodes(tuple(range(100)), told, told.astype(int), told, none, none), 0.9)
    wanted = stats.binomtest(successes, 100).proportion_ci(0.9, "wilson")
    assert found is not None
    assert (found.n, found.rate) == (100, successes / 100)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
