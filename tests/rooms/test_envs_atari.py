"""Atari and MinAtar as the agents trained on them saw them, frame by frame."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import needs
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing
from stable_baselines3.common.atari_wrappers import AtariWrapper

from kdcli.envs.make import make, spaces_of
from kdcli.envs.vector import Vector
from kdcli.envs.wrappers import wrap
from kdcli.errors import UsageError
from kdcli.spec import EnvSpec

FRAMES = {"frameskip": 1, "repeat_action_probability": 0.0}
ALE_LIKE = ("atari:style=ale", "channels-first", "frame-stack:4")


def game(name: str) -> gymnasium.Env:
    """Every frame of a game, with no action sticking."""
    return make(EnvSpec(f"ALE/{name}-v5", FRAMES))


def play_both(ours: gymnasium.Env, theirs: gymnasium.Env, seed: int, steps: int = 60) -> None:
    """The same observations, rewards and ends, of random actions; the last frame of a game is not looked at."""
    rng = np.random.default_rng(seed)
    np.testing.assert_array_equal(ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0])
    for _ in range(steps):
        action = int(rng.integers(ours.action_space.n))  # type: ignore[attr-defined]
        (obs, *outcome, _), (their_obs, *their_outcome, _) = ours.step(action), theirs.step(action)
        assert outcome == their_outcome
        if outcome[1] or outcome[2]:
            break
        np.testing.assert_array_equal(obs, their_obs)


def sb3(**told: Any) -> Callable[[gymnasium.Env], gymnasium.Env]:
    """SB3's wrapper, with whole games and true scores."""
    return lambda env: AtariWrapper(env, terminal_on_life_loss=False, clip_reward=False, **told)


STYLES: dict[str, Callable[[gymnasium.Env], gymnasium.Env]] = {
    "atari": sb3(),
    "atari:64,noop=7,skip=3": sb3(noop_max=7, frame_skip=3, screen_size=64),
    "atari:noop=0,skip=1": sb3(noop_max=0, frame_skip=1),
    "atari:sticky=0.5": sb3(action_repeat_probability=0.5),
    "atari:style=gymnasium": lambda env: AtariPreprocessing(env, grayscale_newaxis=True),
    "atari:42,style=gymnasium,noop=0": lambda env: AtariPreprocessing(
        env, noop_max=0, screen_size=42, grayscale_newaxis=True
    ),
}


@pytest.mark.parametrize(("text", "name"), [*((text, "Seaquest") for text in STYLES), ("atari", "MsPacman")])
def test_frames_equal_those_of_the_wrapper_it_is_named_after(text: str, name: str) -> None:
    """Law: observations, rewards, ends and the starts drawn from a seed are SB3's and gymnasium's to the bit.

    Seaquest flickers, so that the order of maximum and gray shows; MsPacman has no FIRE.
    """
    ours, theirs = wrap(game(name), text), STYLES[text](game(name))
    assert ours.observation_space == theirs.observation_space
    play_both(ours, theirs, seed=7)


def test_a_game_that_skips_frames_under_the_wrapper() -> None:
    """Law: `inner` repeats a training in which the game skipped frames as well, as SB3's wrapper has it."""
    twice = EnvSpec("ALE/Pong-v5", {"frameskip": 4, "repeat_action_probability": 0.0})
    play_both(wrap(make(twice), "atari:inner=4"), sb3()(make(twice)), seed=2, steps=30)


def test_a_whole_game_equals_sb3() -> None:
    """Law: the same holds to the end of a game, and past lost lives."""
    play_both(wrap(game("Breakout"), "atari"), sb3()(game("Breakout")), seed=3, steps=2000)


def frames_of(env: gymnasium.Env) -> int:
    """How many frames of the game have been."""
    return env.unwrapped.ale.getEpisodeFrameNumber()  # type: ignore[attr-defined]


def begin_after(env: gymnasium.Env, frames: int) -> np.ndarray:
    """The first observation of an episode that happens to begin after so many frames."""
    while True:
        obs, _ = env.reset()
        if frames_of(env) == frames:
            return obs


@pytest.mark.parametrize("name", ["pong", "breakout", "ms_pacman"])
def test_frames_equal_those_of_the_vector_env(name: str) -> None:
    """Law: after as many frames before the first decision, the episode is that of ale_py's AtariVectorEnv."""
    from ale_py.vector_env import AtariVectorEnv

    theirs = AtariVectorEnv(name, 1, reward_clipping=False, num_threads=1)
    ours = make(EnvSpec(f"ALE/{name.title().replace('_', '')}-v5", FRAMES, ALE_LIKE))
    assert ours.observation_space == theirs.single_observation_space
    assert ours.action_space == theirs.single_action_space
    ours.reset(seed=0)
    for seed in (1, 9):
        first, told = theirs.reset(seed=np.array([seed]))
        obs, rng = begin_after(ours, int(told["frame_number"][0])), np.random.default_rng(seed)
        np.testing.assert_array_equal(obs, first[0])
        for _ in range(150):
            action = rng.integers(ours.action_space.n, size=1)  # type: ignore[attr-defined]
            seen, reward, over, _, _ = theirs.step(action)
            obs, *outcome, _ = ours.step(int(action[0]))
            assert outcome[:2] == [reward[0], over[0]]
            if over[0]:
                break
            np.testing.assert_array_equal(obs, seen[0])


def test_starts_are_those_of_the_vector_env() -> None:
    """Law: with FIRE a game begins 1 to 29 frames before the first decision, without it 0 to 29, as likely each."""
    for name, least in (("Pong", 1), ("MsPacman", 0)):
        env = make(EnvSpec(f"ALE/{name}-v5", FRAMES, ("atari:style=ale",)))
        env.reset(seed=0)
        begun = [frames_of(env) for _ in range(90) if env.reset()]
        assert (min(begun), max(begun)) == (least, 29)
        assert np.mean(begun) == pytest.approx(14.5, abs=3)


@pytest.mark.parametrize(
    "spec",
    [
        EnvSpec("ALE/Breakout-v5", {"frameskip": 1, "repeat_action_probability": 0.25}, ALE_LIKE),
        EnvSpec(
            "ALE/Pong-v5", {"frameskip": [2, 5], "repeat_action_probability": 0.0}, ("grayscale:mean", "bytescale")
        ),
        pytest.param(EnvSpec("MinAtar/Breakout-v1", {}, ("bytes", "channels-first")), marks=needs.minatar),
    ],
    ids=str,
)
def test_a_seed_gives_the_episode(spec: EnvSpec) -> None:
    """Law: an episode is a function of its seed and actions, whatever was played in the slot before."""
    fresh, used = Vector(spec, 1), Vector(spec, 2)
    for seed in (4, 9):
        used.reset(1, seed)
        for t in range(7):
            used.step([1], np.array([(t + seed) % 3]))
    for vector, slot in ((fresh, 0), (used, 1)):
        vector.reset(slot, 11)
    for t in range(40):
        np.testing.assert_array_equal(fresh.obs[0], used.obs[1])
        one, other = (v.step([slot], np.array([t % 3])) for v, slot in ((fresh, 0), (used, 1)))
        assert one == other
        if one[1][0]:
            break


@needs.minatar
def test_what_sticks_in_minatar_is_of_the_same_episode() -> None:
    """Law: the action that may stick at the beginning of an episode is not the last one of the episode before."""
    fresh, used = (Vector(EnvSpec("MinAtar/Breakout-v1"), 1) for _ in range(2))
    for seed in range(40):
        for vector in (fresh, used):
            vector.reset(0, seed)
            vector.step([0], np.array([2]))
        np.testing.assert_array_equal(fresh.obs, used.obs)
        for vector, last in ((fresh, 0), (used, 1)):
            for _ in range(3):
                vector.step([0], np.array([last]))


def test_max_steps_counts_decisions() -> None:
    """Law: the cap on an episode is one on the agent's steps, not on frames, which may never end a game."""
    env = make(EnvSpec("ALE/Pong-v5", FRAMES, ("atari",), max_steps=5))
    env.reset(seed=0)
    assert [env.step(0)[3] for _ in range(5)] == [False] * 4 + [True]
    assert env.spec is not None
    assert env.spec.max_episode_steps == 5
    assert make(EnvSpec("ALE/Pong-v5", FRAMES, ("atari",))).spec.max_episode_steps == 10_000  # type: ignore[union-attr]


def test_atari_needs_every_frame() -> None:
    """Law: a game that skips frames itself is refused under the wrapper atari, which would skip them again."""
    with pytest.raises(UsageError) as error:
        make(EnvSpec("ALE/Pong-v5", wrappers=("atari",)))
    assert error.value.fix == "--env-kwargs frameskip=1"


@pytest.mark.parametrize("env_id", ["PongNoFrameskip-v4", "Pong-v4", "ALE/Pong-v5"])
def test_ids_of_ale(env_id: str) -> None:
    """Law: the ids that ale-py registers are known, today's and those before."""
    assert str(spaces_of(EnvSpec(env_id))[0]) == "Box(210, 160, 3) uint8"


@pytest.mark.parametrize(
    ("missing", "spec", "fix"),
    [
        ("ale_py", EnvSpec("ALE/Pong-v5"), "pip install 'kdcli[atari]'"),
        ("cv2", EnvSpec("ALE/Pong-v5", FRAMES, ("atari",)), "pip install 'kdcli[atari]'"),
        ("minatar.gym", EnvSpec("MinAtar/Breakout-v1"), "pip install 'kdcli[minatar]'"),
    ],
)
def test_a_missing_package_is_named(missing: str, spec: EnvSpec, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: without the package the error is the line that installs it."""
    if missing != "cv2":
        for env_id in [key for key in gymnasium.registry if key.startswith(("ALE/", "MinAtar/"))]:
            monkeypatch.delitem(gymnasium.registry, env_id)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError) as error:
        make(spec)
    assert error.value.fix.startswith(fix)


@needs.minatar
def test_minatar() -> None:
    """Law: MinAtar's channels come first, as bytes 0 and 255; the game's own actions; nothing is logged or printed."""
    spec = EnvSpec("MinAtar/Breakout-v1", {}, ("bytes", "channels-first"), 5000)
    seen, does = spaces_of(spec)
    assert (str(seen), str(does)) == ("Box(4, 10, 10) uint8", "Discrete(3)")
    env, plain = make(spec), make(EnvSpec("MinAtar/Breakout-v1"))
    obs, state = env.reset(seed=1)[0], plain.reset(seed=1)[0]
    for t in range(30):
        np.testing.assert_array_equal(obs, state.transpose(2, 0, 1) * np.uint8(255))
        obs, state = env.step(t % 3)[0], plain.step(t % 3)[0]
    assert env.unwrapped.game.sticky_action_prob == 0.1  # type: ignore[attr-defined]


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", pytest.param("MinAtar/Breakout-v1", marks=needs.minatar)])
def test_making_them_says_nothing(env_id: str) -> None:
    """Law: making Atari and MinAtar envs prints nothing and leaves logging as it was."""
    code = f"""if True:
        import logging
        from kdcli.envs.make import make
        from kdcli.spec import EnvSpec
        make(EnvSpec("{env_id}")).reset(seed=0)
        assert logging.getLogger().handlers == []
        assert logging.getLogger().manager.disable == logging.NOTSET
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert logging.getLogger().manager.disable == logging.NOTSET
