"""The room that knows gymnasium."""

from __future__ import annotations

import importlib
import sys
from itertools import count, islice
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from toy_teachers import CHOOSE, REACH, choose_teacher, reach_teacher

from kdcli.agents.memory import Memory, Turn
from kdcli.envs.make import check_fits, make, to_action
from kdcli.envs.vector import Vector
from kdcli.errors import UsageError
from kdcli.rollouts.behavior_policy import RANDOM, STUDENT, TEACHER, Mixture, perturb
from kdcli.rollouts.evaluate import collect_observations, open_vector, play, seeds_from
from kdcli.rollouts.random_policy import random_actions
from kdcli.rollouts.seeds import first_seed
from kdcli.rollouts.step_loop import stream
from kdcli.spec import EnvSpec, MultiBinary, MultiDiscrete, box


def test_returns_do_not_depend_on_the_number_of_slots() -> None:
    """Law: an episode is a function of its seed, however many are played side by side."""
    alone, together = (play(reach_teacher(), Vector(REACH, n), range(7)) for n in (1, 4))
    np.testing.assert_allclose(alone.returns, together.returns, rtol=1e-6)
    assert (alone.lengths == 50).all()
    assert (together.lengths == 50).all()


def test_returns_are_those_of_gymnasium() -> None:
    """Law: a return is the sum of the rewards of env.step from env.reset(seed)."""
    agent, env = reach_teacher(), gymnasium.make(REACH.id)
    obs, total, over = env.reset(seed=11)[0], 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(agent.act(obs[None])[0])
        total, over = total + float(reward), terminated or truncated
    assert play(agent, Vector(REACH, 3), [11]).returns[0] == pytest.approx(total, rel=1e-6)


def turn(obs: np.ndarray) -> Turn:
    """The first turn of as many slots."""
    return Turn(obs, np.arange(len(obs)), np.ones(len(obs), bool))


def test_stream_counts_every_step_of_every_episode() -> None:
    """Law: each episode comes whole, its times from 0 up, its last step done, and no slot is stepped after the end."""
    vector = Vector(CHOOSE, 3)
    seen: dict[int, list[tuple[int, bool]]] = {}
    for steps in stream(vector, range(5), Memory(choose_teacher()).act):
        for episode, t, done in zip(steps.episode, steps.t, steps.done, strict=True):
            seen.setdefault(int(episode), []).append((int(t), bool(done)))
    assert sorted(seen) == list(range(5))
    for rows in seen.values():
        assert rows == [(t, t == 19) for t in range(20)]


def test_the_teacher_beats_random_play() -> None:
    """Law: the toy envs tell a good policy from chance."""
    for teacher, spec in ((reach_teacher(), REACH), (choose_teacher(), CHOOSE)):
        vector = Vector(spec, 8)
        assert play(teacher, vector, range(16)).returns.min() > play(None, vector, range(16)).returns.max()


def test_random_play_repeats() -> None:
    """Law: random play comes from its seeds alone."""
    first, again = (play(None, Vector(REACH, 4), range(8), np.random.default_rng(3)).returns for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_random_actions_are_in_the_space() -> None:
    """Law: random actions fill their space and nothing else."""
    rng = np.random.default_rng(0)
    halves = random_actions(box((2,), [-1, 0], [1, np.inf]), np.zeros((1000, 1)), rng)
    assert halves.dtype == np.float32
    assert (np.abs(halves[:, 0]) <= 1).all()
    assert np.abs(halves[:, 1]).max() > 2
    assert {tuple(a) for a in random_actions(MultiDiscrete((2, 3)), np.zeros((300, 1)), rng)} == {
        (i, j) for i in (0, 1) for j in range(3)
    }
    assert set(random_actions(MultiBinary(4), np.zeros((50, 1)), rng).ravel()) == {0, 1}


def test_mixture_shares_and_labels() -> None:
    """Law: the teacher acts in a share beta of the states and labels all of them."""
    teacher, obs = reach_teacher(), np.random.default_rng(0).normal(size=(4000, 2))
    decided = Mixture(teacher, None, 0.3, seed=1).decide(turn(obs))
    assert decided.labels["greedy"] == pytest.approx(teacher.act(obs))
    assert (decided.behaviour == TEACHER).mean() == pytest.approx(0.3, abs=0.03)
    by_teacher = decided.behaviour == TEACHER
    assert decided.action[by_teacher] == pytest.approx(teacher.act(obs)[by_teacher])
    assert set(decided.behaviour) == {TEACHER, RANDOM}
    assert (Mixture(teacher, teacher, 0.0).decide(turn(obs)).behaviour == STUDENT).all()


def test_noise_is_done_but_not_labelled() -> None:
    """Law: noise changes what is done, within the bounds, and never the label."""
    teacher, obs = reach_teacher(), np.zeros((2000, 2))
    decided = Mixture(teacher, None, 1.0, noise=0.2).decide(turn(obs))
    assert decided.action.std() == pytest.approx(0.2, abs=0.02)
    assert (decided.labels["greedy"] == 0).all()
    space, states = to_action(gymnasium.spaces.Discrete(3)), np.zeros((3000, 1))
    moved = perturb(np.zeros(3000, np.int64), space, states, 0.3, np.random.default_rng(0))
    assert (moved != 0).mean() == pytest.approx(0.2, abs=0.03)


def test_wrappers_append() -> None:
    """Law: a wrapper named in the spec is applied, inner first, and the space says so."""
    env = make(EnvSpec(REACH.id, wrappers=("pad:3", "time-feature")))
    obs = env.reset(seed=0)[0]
    assert obs.shape == env.observation_space.shape == (6,)
    assert obs[2:].tolist() == [0, 0, 0, 1]
    assert env.step(np.zeros(1))[0][5] == pytest.approx(1 - 1 / 50)
    assert obs.dtype == np.float64


def test_episodes_are_capped() -> None:
    """Law: max_steps caps an episode, and max_episode_steps among the env's arguments is its own limit, also above."""
    for spec, cap in (
        (EnvSpec(REACH.id, max_steps=7), 7),
        (EnvSpec(REACH.id, {"max_episode_steps": 9}), 9),
        (EnvSpec(REACH.id, {"max_episode_steps": 60}, ("pad:1",)), 60),
    ):
        vector = Vector(spec, 2)
        assert (vector.cap, set(play(None, vector, range(3)).lengths)) == (cap, {cap})


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (EnvSpec("CartPol-v1"), "CartPole-v1"),
        (EnvSpec("kdcli/Reach-v0", {"speed": 3}), "--env-kwargs"),
        (EnvSpec("kdcli/Reach-v0", wrappers=("pad:x",)), "pad:84"),
        (EnvSpec("kdcli/Reach-v0", wrappers=("padd:3",)), "'pad'"),
        (EnvSpec("no_such_module:Env-v0"), "--env"),
        (EnvSpec("highway-fast-v0"), "pip install highway-env, and --env highway_env:highway-fast-v0"),
        (EnvSpec("MiniGrid-Empty-5x5-v0"), "--env minigrid:MiniGrid-Empty-5x5-v0"),
    ],
    ids=lambda v: str(v),
)
def test_bad_envs_are_explained(spec: EnvSpec, what: str) -> None:
    """Law: an env that cannot be made is a usage error that says what to do."""
    with pytest.raises(UsageError) as error:
        make(spec)
    assert what in error.value.fix
    assert len(error.value.lines()) == 3


def test_a_missing_package_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: an env whose package is missing says which to install."""
    monkeypatch.setitem(sys.modules, "Box2D", None)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.lunar_lander", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.bipedal_walker", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d.car_racing", raising=False)
    monkeypatch.delitem(sys.modules, "gymnasium.envs.box2d", raising=False)
    with pytest.raises(UsageError) as error:
        make(EnvSpec("LunarLander-v3"))
    assert error.value.fix == "pip install 'gymnasium[box2d]'"


@pytest.mark.parametrize(
    ("env", "inputs", "advice"),
    [
        ("Walker2d-v5", (17, 18), "time-feature"),
        ("Ant-v5", (105, 111), "pad:84"),
        ("Ant-v5", (105, 112), "time-feature"),
    ],
)
def test_a_wrong_observation_size_says_what_is_known(env: str, inputs: tuple[int, int], advice: str) -> None:
    """Law: the known reasons for another observation size come with the option that mends it."""
    theirs, ours = ((box((n,)), box((2,))) for n in inputs)
    with pytest.raises(UsageError) as error:
        check_fits(EnvSpec(env), theirs, ours)
    assert advice in error.value.fix


def test_another_action_space_does_not_fit() -> None:
    """Law: an agent of another env is refused before anything runs."""
    with pytest.raises(UsageError, match="observes"):
        open_vector(CHOOSE, reach_teacher())


def test_mujoco_leaves_no_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Law: making an env writes no file and prints nothing."""
    monkeypatch.chdir(tmp_path)
    make(EnvSpec("HalfCheetah-v5")).close()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_seed_runs_do_not_meet() -> None:
    """Law: the states a student is judged on are none of those it was trained or chosen on."""
    runs = [
        set(islice(count(first_seed(p, seed)), 100_000))
        for p in ("bench", "select", "screen", "train")
        for seed in (0, 1)
    ]
    assert len(set.union(*runs)) == sum(map(len, runs))
    assert max(map(max, runs)) < 2**31
    assert list(seeds_from(5, 3)) == [5, 6, 7]


def test_observations_of_real_play() -> None:
    """Law: collected observations are the agent's own states, as many as asked for."""
    obs = collect_observations(reach_teacher(), Vector(REACH, 3), 70, 0)
    assert obs.shape == (70, 2)
    assert obs.dtype == np.float64


def test_a_file_decides_on_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """An env or wrapper that is code of a module is not imported because a file says so."""
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    for given in (EnvSpec("json:Name-v0"), EnvSpec("CartPole-v1", wrappers=("package.module:Class",))):
        with pytest.raises(UsageError, match="code of a module") as raised:
            make(EnvSpec.from_json(given.to_json()))
        assert f"--env {given.id}" in raised.value.fix
    monkeypatch.undo()
    with pytest.raises(UsageError, match="cannot make"):
        make(EnvSpec("json:Name-v0"))
