"""Which env a checkpoint of RL Zoo was trained on: the wrappers in its config.yml, and ids of the past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.env_ids import Inputs, today
from kdcli.checkpoints.sb3.zoo import find_env, read_surroundings
from kdcli.choice import Choice
from kdcli.envs import WRAPPERS
from kdcli.envs.make import make
from kdcli.progress import Note
from kdcli.spec import EnvSpec

SB3_ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"


def found_beside(path: Path) -> tuple[EnvSpec | None, list[str]]:
    """The env that the files around a checkpoint at `path` tell of, and what is said about it."""
    heard: list[str] = []

    def listen(note: Any) -> None:
        assert isinstance(note, Note)
        heard.append(note.text)

    return find_env(path, LoadConfig(), read_surroundings(path), Inputs(4), listen), heard


@pytest.mark.parametrize(
    ("told", "wrappers"),
    [
        ({"env_wrapper": "sb3_contrib.common.wrappers.TimeFeatureWrapper"}, ["time-feature"]),
        ({"env_wrapper": ["utils.TimeFeatureWrapper"]}, ["time-feature"]),
        ({"env_wrapper": [{"a.TimeFeatureWrapper": {"test_mode": True}}]}, ["time-feature:test=true"]),
        ({"env_wrapper": {"a.TimeFeatureWrapper": {"max_steps": 9}}}, ["time-feature:fallback=9"]),
        (
            {"env_wrapper": [{SB3_ATARI: {"terminal_on_life_loss": False}}], "frame_stack": 4},
            ["atari", "frame-stack:4"],
        ),
        ({"env_wrapper": {SB3_ATARI: {"noop_max": 3, "screen_size": 64}}}, ["atari:64,noop=3"]),
        ({"env_wrapper": {"gymnasium.wrappers.AtariPreprocessing": None}}, ["atari:style=gymnasium,flat=true"]),
        (
            {
                "env_wrapper": [
                    {"rl_zoo3.wrappers.FrameSkip": {"skip": 2}},
                    {"rl_zoo3.wrappers.YAMLCompatResizeObservation": {"shape": [64, 48]}},
                    {"gymnasium.wrappers.transform_observation.GrayscaleObservation": {"keep_dim": True}},
                ],
                "frame_stack": 2,
            },
            ["frame-skip:2", "resize:64x48", "grayscale", "frame-stack:2"],
        ),
        (
            {
                "env_wrapper": [
                    {"gym.wrappers.resize_observation.ResizeObservation": {"shape": 64}},
                    {"gym.wrappers.gray_scale_observation.GrayScaleObservation": {"keep_dim": True}},
                    "gym.wrappers.gray_scale_observation.GrayScaleObservation",
                ]
            },
            ["resize:64x64", "grayscale:cv2", "grayscale:cv2,flat=true"],
        ),
        ({"env_wrapper": ["rl_zoo3.wrappers.HistoryWrapper", "a.MaskVelocityWrapper"]}, ["history", "mask-velocity"]),
        (
            {"env_wrapper": {"g.RescaleAction": {"min_action": -1, "max_action": 1.0}}},
            ["rescale-action:low=-1,high=1.0"],
        ),
        ({"env_wrapper": {"g.FrameStackObservation": {"stack_size": 3}}}, ["frame-stack:3,axis=new,pad=first"]),
        ({"vec_env_wrapper": {"s.VecFrameStack": {"n_stack": 3}}}, ["frame-stack:3"]),
        ({"env_wrapper": ["s.monitor.Monitor", "g.FlattenObservation"]}, ["flatten"]),
        ({"env_wrapper": None, "frame_stack": None}, []),
    ],
    ids=str,
)
def test_wrappers_of_the_zoo(told: dict[str, Any], wrappers: list[str], tmp_path: Path) -> None:
    """Law: wrappers that config.yml names become ours with their arguments, inner first, and each is told."""
    (tmp_path / "config.yml").write_text(json.dumps(told))
    env, heard = found_beside(tmp_path / "CartPole-v1.zip")
    assert env == EnvSpec("CartPole-v1", {}, tuple(wrappers))
    assert all(any(f"gets the wrapper {text}" in said for said in heard) for text in wrappers)
    for text in wrappers:
        WRAPPERS.load(Choice.parse(text).name)


@pytest.mark.parametrize(
    "wrapper",
    [
        "a.Strange",
        {"b.Strange": {"x": 1}},
        {"a.FrameSkip": {"skip": [2]}},
        {"a.FrameSkip": {"skip": "2,pad=3"}},
        {"a.FrameSkip": {"jump": 2}},
        {"a.FrameSkip": 2},
        {"a.ResizeObservation": {}},
        {"a.ResizeObservation": {"shape": [1, 2, 3]}},
        {"a.AtariPreprocessing": {"scale_obs": True}},
        {"a.FrameStack": {"num_stack": 2, "padding_type": "own"}},
        {"a.GrayscaleObservation": {"x": 1}},
        7,
    ],
    ids=str,
)
def test_wrappers_that_nobody_knows(wrapper: Any, tmp_path: Path) -> None:
    """Law: a wrapper or an argument without an equal here is told and left out; nothing that is named is imported."""
    (tmp_path / "config.yml").write_text(json.dumps({"env_wrapper": [wrapper]}))
    env, heard = found_beside(tmp_path / "CartPole-v1.zip")
    assert env == EnvSpec("CartPole-v1")
    assert any("which kdcli does not have" in text and "--wrapper" in text for text in heard)


@pytest.mark.parametrize(
    ("old", "wrappers", "new"),
    [
        ("BreakoutNoFrameskip-v4", (), EnvSpec("ALE/Breakout-v5", {"frameskip": 1, "repeat_action_probability": 0.0})),
        (
            "MsPacmanNoFrameskip-v0",
            ("atari",),
            EnvSpec("ALE/MsPacman-v5", {"frameskip": 1, "repeat_action_probability": 0.25}, ("atari",)),
        ),
        (
            "SpaceInvadersDeterministic-v4",
            (),
            EnvSpec("ALE/SpaceInvaders-v5", {"frameskip": 3, "repeat_action_probability": 0.0}),
        ),
        (
            "Pong-ramNoFrameskip-v4",
            (),
            EnvSpec("ALE/Pong-v5", {"frameskip": 1, "repeat_action_probability": 0.0, "obs_type": "ram"}),
        ),
        ("ALE-Pong-v5", ("atari", "flatten"), EnvSpec("ALE/Pong-v5", {}, ("atari:inner=4", "flatten"))),
        ("ALE/Pong-v5", ("atari:64",), EnvSpec("ALE/Pong-v5", {}, ("atari:64,inner=4",))),
        pytest.param("MinAtar-Breakout-v1", (), EnvSpec("MinAtar/Breakout-v1"), marks=needs.minatar),
        ("CartPoleNoVel-v1", ("flatten",), EnvSpec("CartPole-v1", {}, ("mask-velocity", "flatten"))),
        ("LunarLanderNoVel-v2", (), EnvSpec("LunarLander-v3", {}, ("mask-velocity",))),
    ],
)
def test_games_of_the_past(old: str, wrappers: tuple[str, ...], new: EnvSpec) -> None:
    """Law: Atari's older ids and RL Zoo's own become today's id with what makes it the same game; it can be made."""
    found, _ = today(EnvSpec(old, {}, wrappers), Inputs(84 * 84))
    assert found == new
    make(found).close()


def test_a_game_of_the_past_is_todays() -> None:
    """Law: frames and rewards under ale-py's own old id and under the one that it is mapped to are equal."""
    ours, theirs = make(today(EnvSpec("PongNoFrameskip-v4"), Inputs(1))[0]), make(EnvSpec("PongNoFrameskip-v4"))
    np.testing.assert_array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    for t in range(40):
        (obs, *rest), (seen, *outcome) = ours.step(t % 6), theirs.step(t % 6)
        np.testing.assert_array_equal(obs, seen)
        assert rest[:3] == outcome[:3]


def test_packages_of_the_zoo_are_not_imported(tmp_path: Path) -> None:
    """Law: a package that args.yml wants imported is named to the user, who may name it; it is not imported."""
    (tmp_path / "args.yml").write_text("env: Panda-v1\ngym_packages: [panda_gym]")
    env, heard = found_beside(tmp_path / "x.zip")
    assert env == EnvSpec("Panda-v1")
    assert any("--env package:Panda-v1" in text for text in heard)
