"""What an agent of Stable-Baselines3 is given: images as its env has them, statistics of some parts or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_agents import (
    FIRST,
    NATURE,
    SMALL,
    THINGS,
    assert_alike,
    made,
)
from sb3_oracle import (
    ACTIONS,
    BOX,
    CNN,
    RGB,
    FakeEnv,
    fresh,
)

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import parts

torch.set_num_threads(1)


class Watching(FakeEnv):
    """An env that gives images with their channels last."""

    def __init__(self, observation: spaces.Space = RGB) -> None:
        super().__init__(observation, ACTIONS["discrete"])


gymnasium.register("Watching-v0", Watching)
CAMERA = spaces.Dict({"camera": RGB, "joints": BOX})


def test_images_arrive_as_the_env_gives_them(tmp_path: Path) -> None:
    """Law: where the env is known, the agent takes its images as they are; else as saved, or as the user says."""
    teacher = fresh(tmp_path, "PPO", RGB, ACTIONS["discrete"], policy="CnnPolicy", policy_kwargs=CNN)
    heard: list[Any] = []
    known = read(teacher.path, LoadConfig(env="Watching-v0"), heard.append)
    assert any("channels last" in note.text for note in heard)
    told, saved = read(teacher.path, LoadConfig(channels_last=True)), read(teacher.path, listen=heard.append)
    assert any("--channels-last" in note.text for note in heard)
    assert (known.observation.shape, told.observation.shape, saved.observation.shape) == (
        RGB.shape,
        RGB.shape,
        FIRST.shape,
    )
    first = read(teacher.path, LoadConfig(env="Watching-v0", channels_last=False))
    assert first.observation.shape == FIRST.shape
    for agent in (known, told):
        assert_alike(teacher, agent)
    images = teacher.observations(20)
    for agent in (saved, first):
        np.testing.assert_array_equal(agent.act(np.moveaxis(images, -1, 1)), teacher.actions(images))


def test_images_in_a_dict_arrive_as_the_env_gives_them(tmp_path: Path) -> None:
    """Law: the same for each image in a Dict, and for nothing else."""
    teacher = fresh(tmp_path, "PPO", CAMERA, ACTIONS["discrete"], policy_kwargs={"features_extractor_kwargs": SMALL})
    agent = read(teacher.path, LoadConfig(channels_last=True))
    shapes = {name: part.shape for name, part in parts(agent.observation).items()}
    assert shapes == {"camera": RGB.shape, "joints": (3,)}
    assert_alike(teacher, agent)


def test_a_normalised_image_has_the_dtype_of_the_env(tmp_path: Path) -> None:
    """Law: SB3 saves the space after VecNormalize, real numbers; the agent observes the bytes that the env gives."""
    kwargs = {"features_extractor_kwargs": {**NATURE, "normalized_image": True}, "normalize_images": False}
    teacher = fresh(
        tmp_path, "PPO", FIRST, ACTIONS["discrete"], policy="CnnPolicy", policy_kwargs=kwargs, normalized=True
    )
    config = LoadConfig(env="Watching-v0", env_kwargs=())
    gymnasium.register("First-v0", lambda: Watching(FIRST))
    agent = read(teacher.path, config.model_copy(update={"env": "First-v0"}))
    assert agent.observation.dtype == "uint8"
    assert read(teacher.path).observation.dtype == "uint8"  # VecNormalize changes the space of images alone
    assert_alike(teacher, agent)


def test_statistics_of_an_image_follow_its_axes(tmp_path: Path) -> None:
    """Law: statistics are those of channels first; of an image that arrives channels last each number has its own."""
    kwargs = {"features_extractor_kwargs": {**NATURE, "normalized_image": True}, "normalize_images": False}
    teacher = made(tmp_path, "PPO", FIRST, policy="CnnPolicy", policy_kwargs=kwargs, normalized=True)
    agent, obs = read(teacher.path, LoadConfig(channels_last=True)), teacher.observations(50)
    assert agent.observation.shape == RGB.shape
    np.testing.assert_allclose(agent.act(np.moveaxis(obs, 1, -1)), teacher.actions(obs), rtol=0, atol=2e-5)


def test_an_env_that_cannot_be_asked_is_no_obstacle(tmp_path: Path) -> None:
    """Law: an image is taken as saved, and it is said, where the env cannot be made."""
    teacher = made(tmp_path, "PPO", RGB, policy="CnnPolicy", policy_kwargs=dict(CNN))
    heard: list[Any] = []
    agent = read(teacher.path, LoadConfig(env="Nowhere-v0"), heard.append)
    assert agent.observation.shape == FIRST.shape
    assert any("cannot be asked" in note.text for note in heard)


def test_the_order_of_axes_is_about_images(tmp_path: Path) -> None:
    """Law: an option that says nothing about this agent is an error, not silence."""
    teacher = made(tmp_path, "PPO", BOX)
    with pytest.raises(UsageError, match="--channels-last is about images"):
        read(teacher.path, LoadConfig(channels_last=True))


def test_statistics_of_other_parts_are_refused(tmp_path: Path) -> None:
    """Law: the statistics of a Dict do not belong to one observation, nor those of one to a Dict."""
    (tmp_path / "flat").mkdir()
    flat = made(tmp_path / "flat", "PPO", BOX, normalized=True)
    several = made(tmp_path, "PPO", THINGS, normalized=["map"])
    for teacher, other in ((flat, several), (several, flat)):
        with pytest.raises(RefusedError, match="does not belong to"):
            read(teacher.path, LoadConfig(vecnormalize=str(other.path.with_name("vecnormalize.pkl"))))


def test_observations_that_were_not_normalised(tmp_path: Path) -> None:
    """Law: VecNormalize of rewards alone, or of no part, leaves observations as they are."""
    teacher = made(tmp_path, "PPO", THINGS, normalized=["map"])
    assert teacher.normalize is not None
    for change in ({"norm_obs": False}, {"norm_obs": True, "norm_obs_keys": []}):
        for key, value in change.items():
            setattr(teacher.normalize, key, value)
        teacher.normalize.save(str(tmp_path / "vecnormalize.pkl"))
        agent = read(teacher.path)
        assert all(part.normalizer is None for part in agent.preprocess.parts.values())
        assert_alike(teacher, agent)
