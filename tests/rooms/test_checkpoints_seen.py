"""Agents of Stable-Baselines3 that see images or several things, remember, or are told what is allowed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from sb3_oracle import (
    ACTIONS,
    BOX,
    CNN,
    RGB,
    ZOO,
    ZOO_DICT_AGENT,
    FakeEnv,
    Teacher,
    episodes,
    fresh,
    needs_zoo,
    rows,
    zoo_teacher,
)
from stable_baselines3.common.torch_layers import CombinedExtractor, NatureCNN
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.states import States, actions
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.progress import Note
from kdcli.spec import MASK, OBS, Box, Dict, parts

torch.set_num_threads(1)

FIRST = spaces.Box(0, 255, (3, 36, 44), np.uint8)
GRAY = spaces.Box(0, 255, (1, 52, 36), np.uint8)
BRIGHT = spaces.Box(0.0, 1.0, (3, 36, 44), np.float32)
THINGS = spaces.Dict(
    {
        "zoom": spaces.Box(0, 255, (4,), np.uint8),  # numbers, not an image
        "map": spaces.Box(-1.0, 2.0, (2, 3), np.float64),
        "mode": spaces.Discrete(3),
        "parts": spaces.MultiDiscrete([3, 2]),
        "touch": spaces.MultiBinary(2),
    }
)
# sb3-contrib cannot make an LSTM over a MultiDiscrete: torch does not take numpy's integers for sizes.
FEW = spaces.Dict({name: part for name, part in THINGS.items() if name != "parts"})
TWO_CAMERAS = spaces.Dict({"front": FIRST, "joints": BOX, "rear": GRAY, "touch": spaces.MultiBinary(2)})
OFFICIAL = CNN["features_extractor_kwargs"]
SMALL = {"cnn_output_dim": 20}
SHARED: dict[str, Any] = {"net_arch": [8], "share_features_extractor": True}


def made(folder: Path, name: str, observation: spaces.Space, **settings: Any) -> Teacher:
    """A fresh model with the action space that `action` names, a Box where the algorithm has one."""
    default = "discrete" if name in ("DQN", "QRDQN", "MaskablePPO") else "box"
    return fresh(folder, name, observation, ACTIONS[settings.pop("action", default)], **settings)


def assert_alike(teacher: Teacher, agent: Agent, tolerance: float = 2e-5) -> None:
    """The agent, and the file made of it, do what SB3 does: in a batch and one by one."""
    columns = teacher.columns(120)
    obs, expected = rows(agent, columns), teacher.on(columns)
    assert (np.ptp(expected, axis=0) > 0).all(), "the oracle always does the same: the comparison says nothing"
    exported = convert(agent, States(obs[:20]), ExportConfig()).agent
    for who in (agent, exported):
        one_by_one = np.concatenate([who.act(obs[i : i + 1]) for i in range(15)])
        for found, wanted in ((who.act(obs), expected), (one_by_one, expected[:15])):
            assert found.dtype == agent.action.dtype
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance if isinstance(agent.action, Box) else 0)


IMAGES: list[tuple[str, spaces.Space, dict[str, Any]]] = [
    ("PPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": CNN}),
    ("PPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": [7], "activation_fn": nn.ELU}}),
    ("A2C", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "share_features_extractor": False}}),
    ("TRPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": {"pi": [], "vf": [5]}}}),
    ("PPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "normalize_images": False}}),
    ("PPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": CNN, "use_sde": True}),
    ("PPO", GRAY, {"policy": "CnnPolicy", "policy_kwargs": CNN}),
    (
        "PPO",
        BRIGHT,
        {
            "policy": "CnnPolicy",
            "policy_kwargs": {
                "features_extractor_kwargs": {**OFFICIAL, "normalized_image": True},
                "normalize_images": False,
            },
        },
    ),
    (
        "PPO",  # bytes said to be normalised are divided by 255 all the same
        FIRST,
        {"policy": "CnnPolicy", "policy_kwargs": {"features_extractor_kwargs": {**OFFICIAL, "normalized_image": True}}},
    ),
    ("PPO", FIRST, {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [6]}}),
    ("PPO", FIRST, {"policy": "MlpPolicy", "policy_kwargs": {"net_arch": [6], "normalize_images": False}}),
    ("ARS", FIRST, {"policy": "LinearPolicy"}),
    ("DQN", FIRST, {"policy": "CnnPolicy", "policy_kwargs": CNN}),
    ("QRDQN", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "n_quantiles": 5}}),
    ("SAC", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, **SHARED}}),
    ("SAC", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": [8]}, "use_sde": True}),
    ("TQC", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": {"pi": [8], "qf": [4]}}}),
    ("TD3", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": []}}),
    ("DDPG", FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, **SHARED}}),
    (
        "CrossQ",
        FIRST,
        {"policy_kwargs": {**CNN, "features_extractor_class": NatureCNN, "net_arch": {"pi": [9], "qf": [4]}}},
    ),
    ("MaskablePPO", FIRST, {"policy": "CnnPolicy", "policy_kwargs": CNN}),
]
DICTS: list[tuple[str, spaces.Space, dict[str, Any]]] = [
    ("PPO", THINGS, {}),
    ("PPO", THINGS, {"policy_kwargs": {"share_features_extractor": False, "net_arch": []}, "normalized": ["map"]}),
    ("PPO", TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL, "net_arch": [8]}}),
    ("A2C", TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL, "net_arch": []}}),
    ("A2C", TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL, "share_features_extractor": False}}),
    ("DQN", TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL}, "normalized": ["joints"]}),
    ("SAC", THINGS, {"policy_kwargs": {"net_arch": [8]}, "normalized": ["map", "zoom"]}),
    ("TD3", TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL, "net_arch": [8]}}),
    (
        "PPO",
        spaces.Dict({"front": BRIGHT, "joints": BOX}),
        {"policy_kwargs": {"features_extractor_kwargs": {**SMALL, "normalized_image": True}}},
    ),
    (
        "PPO",
        spaces.Dict({"front": FIRST, "joints": BOX}),  # every part normalised, images too
        {
            "policy_kwargs": {
                "features_extractor_kwargs": {**SMALL, "normalized_image": True},
                "normalize_images": False,
            },
            "normalized": True,
        },
    ),
    ("PPO", spaces.Dict({"action": BOX, "obs": spaces.Discrete(2), "state_in": BOX, "value": BOX}), {}),
    ("MaskablePPO", THINGS, {"action": "multidiscrete"}),
    (
        "CrossQ",
        TWO_CAMERAS,
        {
            "policy_kwargs": {
                "features_extractor_class": CombinedExtractor,
                "features_extractor_kwargs": SMALL,
                "net_arch": [8],
            }
        },
    ),
]


@pytest.mark.parametrize(("name", "observation", "settings"), IMAGES)
def test_images(name: str, observation: spaces.Space, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: what SB3 makes of images, with any extractor, layers and scaling, kdcli makes of them."""
    teacher = made(tmp_path, name, observation, **_copied(settings))
    agent = read(teacher.path)
    assert_alike(teacher, agent)
    assert isinstance(agent.policy.network, MLP if settings.get("policy") in ("MlpPolicy", "LinearPolicy") else Stack)


@pytest.mark.parametrize(("name", "observation", "settings"), DICTS)
def test_several_observations(name: str, observation: spaces.Dict, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: each part of a Dict is read as by SB3, in the space's order; VecNormalize touches the parts it names."""
    teacher = made(tmp_path, name, observation, **_copied(settings))
    agent = read(teacher.path)
    assert [part for part in parts(agent.observation) if part != MASK] == list(observation.spaces)
    named = settings.get("normalized", [])
    normalized = {name for name, part in agent.preprocess.parts.items() if part.normalizer is not None}
    assert normalized == (set(observation.spaces) if named is True else set(named))
    assert_alike(teacher, agent)


def _copied(settings: dict[str, Any]) -> dict[str, Any]:
    """SB3 changes the arguments it is given."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}


def test_an_order_that_is_not_the_alphabets(tmp_path: Path) -> None:
    """Law: a Dict built in an order of its own keeps it."""
    space = spaces.Dict()
    space.spaces = {"b": spaces.Discrete(2), "a": BOX}
    teacher = made(tmp_path, "PPO", space)
    agent = read(teacher.path)
    assert list(parts(agent.observation)) == ["b", "a"]
    assert_alike(teacher, agent)


@pytest.mark.parametrize(
    ("name", "observation", "action"),
    [
        ("PPO", BOX, spaces.Discrete(4, start=2)),
        ("DQN", BOX, spaces.Discrete(4, start=2)),
        ("SAC", spaces.Discrete(4, start=-1), ACTIONS["box"]),
    ],
)
def test_integers_are_counted_from_0(
    name: str, observation: spaces.Space, action: spaces.Space, tmp_path: Path
) -> None:
    """Law: SB3 counts actions and observations from 0, whatever their space's start, and so does kdcli."""
    teacher = fresh(tmp_path, name, observation, action)
    assert_alike(teacher, read(teacher.path))


VALUES: list[tuple[spaces.Space, dict[str, Any], type]] = [
    (FIRST, {"policy": "CnnPolicy", "policy_kwargs": CNN}, nn.Linear),
    (FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": [7]}}, Stack),
    (FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "share_features_extractor": False}}, Stack),
    (FIRST, {"policy": "CnnPolicy", "policy_kwargs": {**CNN, "net_arch": {"pi": [], "vf": [5]}}}, Stack),
    (TWO_CAMERAS, {"policy_kwargs": {"features_extractor_kwargs": SMALL}}, Stack),
    (THINGS, {"policy_kwargs": {"net_arch": []}}, MLP),
]


@pytest.mark.parametrize(("observation", "settings", "kind"), VALUES)
def test_the_critic_sees_too(observation: spaces.Space, settings: dict[str, Any], kind: type, tmp_path: Path) -> None:
    """Law: the value head is SB3's predict_values; one layer where the critic has no more of its own."""
    teacher = made(tmp_path, "PPO", observation, **_copied(settings))
    agent, columns = read(teacher.path), teacher.columns(200)
    obs, _ = teacher.model.policy.obs_to_tensor(teacher.seen(columns))
    with torch.no_grad():
        expected = teacher.model.policy.predict_values(obs)
    assert isinstance(agent.policy.value, kind)
    found = agent.heads(rows(agent, columns)).value
    torch.testing.assert_close(found, expected.squeeze(1), rtol=1e-5, atol=1e-4)


def test_one_extractor_of_old_versions(tmp_path: Path) -> None:
    """Law: before SB3 1.7 a shared extractor had one name; the agent is the same, and so is its critic."""
    teacher = made(tmp_path, "PPO", FIRST, policy="CnnPolicy", policy_kwargs={**CNN, "net_arch": [7]})
    second = [name for name in teacher.model.policy.state_dict() if name.startswith(("pi_features", "vf_features"))]
    old = read(_edit(teacher.path, **dict.fromkeys(name.replace(".", "__") for name in second)))
    assert len(second) == 16
    obs, agent = teacher.observations(50), read(teacher.path)
    np.testing.assert_array_equal(old.act(obs), agent.act(obs))
    torch.testing.assert_close(old.heads(obs).value, agent.heads(obs).value, rtol=0, atol=0)
    assert old.facts["total_params"] == agent.facts["total_params"]
    assert old.facts["critic_params"] == agent.facts["critic_params"]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", ["PPO", "SAC", "TD3", "RecurrentPPO"])
def test_parameters_are_counted_once(name: str, shared: bool, tmp_path: Path) -> None:
    """Law: an extractor saved under several names counts once, and is the critic's only where the actor has another."""
    kwargs = {**CNN, "net_arch": [8], "share_features_extractor": shared}
    policy = "CnnLstmPolicy" if name == "RecurrentPPO" else "CnnPolicy"
    teacher = made(tmp_path, name, FIRST, policy=policy, policy_kwargs=kwargs)
    facts, model = read(teacher.path).facts, teacher.model.policy
    everything = {id(p): p.numel() for p in model.parameters()}
    assert facts["total_params"] == sum(everything.values())
    if name in ("PPO", "RecurrentPPO"):
        critics = [model.value_net, model.mlp_extractor.value_net]
        critics += [model.lstm_critic] if name == "RecurrentPPO" else []
        critics += [] if shared else [model.vf_features_extractor]
    else:
        critics = [model.critic]
    own = {id(p): p.numel() for critic in critics for p in critic.parameters()}
    actor = getattr(model, "actor", model)
    used = {id(p) for p in actor.features_extractor.parameters()}
    assert facts["critic_params"] == sum(n for key, n in own.items() if key not in used)


RECURRENT: list[tuple[spaces.Space, dict[str, Any]]] = [
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "n_lstm_layers": 2, "net_arch": []}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "lstm_kwargs": {"bias": False}}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "shared_lstm": True, "enable_critic_lstm": False}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "shared_lstm": True, "enable_critic_lstm": False, "net_arch": []}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "enable_critic_lstm": False}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "enable_critic_lstm": False, "net_arch": {"pi": [5], "vf": []}}}),
    (BOX, {"policy_kwargs": {"lstm_hidden_size": 9, "squash_output": True}, "use_sde": True, "normalized": True}),
    (BOX, {"action": "multibinary", "policy_kwargs": {"lstm_hidden_size": 9, "activation_fn": nn.ReLU}}),
    (FIRST, {"policy": "CnnLstmPolicy", "policy_kwargs": {**CNN, "lstm_hidden_size": 9}}),
    (
        FIRST,
        {
            "policy": "CnnLstmPolicy",
            "policy_kwargs": {**CNN, "lstm_hidden_size": 9, "share_features_extractor": False, "n_lstm_layers": 2},
        },
    ),
    (
        TWO_CAMERAS,
        {
            "action": "discrete",
            "policy_kwargs": {
                "features_extractor_kwargs": SMALL,
                "lstm_hidden_size": 9,
                "shared_lstm": True,
                "enable_critic_lstm": False,
            },
        },
    ),
    (FEW, {"policy_kwargs": {"lstm_hidden_size": 9}, "normalized": ["map"]}),
]


@pytest.mark.parametrize(("observation", "settings"), RECURRENT)
def test_memory(observation: spaces.Space, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: through whole episodes side by side, actions and values are those of SB3; and through the exported file."""
    teacher = made(tmp_path, "RecurrentPPO", observation, **_copied(settings))
    agent, (turns, slots) = read(teacher.path), (60, 3)
    assert agent.facts["algorithm"] == "RecurrentPPO"
    flat = teacher.columns(turns * slots)
    columns = {name: column.reshape(turns, slots, *column.shape[1:]) for name, column in flat.items()}
    begins = np.random.default_rng(2).random((turns, slots)) < 0.1
    begins[0] = True
    expected, states = teacher.through(columns, begins), episodes(agent, columns, begins)
    exported = convert(agent, states, ExportConfig()).agent
    for who in (agent, exported):
        found = actions(who, states).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 if isinstance(agent.action, Box) else 0)
    np.testing.assert_allclose(_values(agent, states), _sb3_values(teacher, columns, begins), rtol=1e-4, atol=1e-4)


def _values(agent: Agent, states: States) -> np.ndarray:
    """The agent's values (T, B)."""
    state, found = np.zeros((states.slots, agent.state_size), np.float32), []
    for obs, begins in zip(*states.turns(), strict=True):
        state[begins] = 0.0
        heads = agent.heads(obs, state)
        assert heads.state is not None
        assert heads.value is not None
        state = heads.state.numpy().copy()
        found.append(heads.value.numpy())
    return np.array(found)


def _sb3_values(teacher: Teacher, columns: dict[str, np.ndarray], begins: np.ndarray) -> np.ndarray:
    """SB3's values (T, B), the critic remembering, too."""
    policy: Any = teacher.model.policy
    layers, _, size = policy.lstm_hidden_state_shape
    zeros = torch.zeros(layers, begins.shape[1], size)
    states, found = RNNStates((zeros, zeros), (zeros, zeros)), []
    with torch.no_grad():
        for t, begin in enumerate(begins):
            obs, _ = policy.obs_to_tensor(teacher.seen({name: column[t] for name, column in columns.items()}))
            _, value, _, states = policy.forward(obs, states, torch.as_tensor(begin).float(), deterministic=True)
            found.append(value.squeeze(1).numpy())
    return np.array(found)


@pytest.mark.parametrize("action", ["discrete", "multidiscrete", "multibinary"])
def test_masks_are_part_of_the_observation(action: str, tmp_path: Path) -> None:
    """Law: what a mask forbids is not done, what it allows is chosen among as sb3-contrib does; two logits a bit."""
    teacher = made(tmp_path, "MaskablePPO", BOX, action=action)
    agent = read(teacher.path)
    space, columns = agent.observation, teacher.columns(300)
    assert isinstance(space, Dict)
    assert list(space.spaces) == [OBS, MASK]
    assert_alike(teacher, agent)
    free = {**columns, MASK: np.ones_like(columns[MASK])}
    assert (teacher.on(columns) != teacher.on(free)).any(), "the masks forbid nothing: the comparison says nothing"
    np.testing.assert_array_equal(agent.act(rows(agent, free)), teacher.on(free))


def test_a_mask_needs_an_env_that_tells_it(tmp_path: Path) -> None:
    """Law: the env of a masked agent gets the wrapper that observes the mask, once."""
    teacher = made(tmp_path, "MaskablePPO", BOX)
    for given in ((), ("action-mask",)):
        env = read(teacher.path, LoadConfig(env="CartPole-v1", wrapper=given)).env
        assert env is not None
        assert env.wrappers == ("action-mask",)


def test_a_part_that_is_called_like_the_mask_is_refused(tmp_path: Path) -> None:
    """Law: a policy that is masked and reads a mask, too, is refused by name, not read as something else."""
    teacher = made(tmp_path, "MaskablePPO", spaces.Dict({"one": BOX}))
    teacher.model.observation_space = spaces.Dict({MASK: BOX})
    teacher.model.save(teacher.path)
    with pytest.raises(RefusedError, match="a part of the observation is called action_mask"):
        read(teacher.path)


CROSSQ: list[dict[str, Any]] = [
    {"net_arch": [16, 12]},
    {"net_arch": {"pi": [], "qf": [4]}},
    {"net_arch": [16], "batch_norm": False},
    {"net_arch": [16, 12, 8], "batch_norm_eps": 0.3, "activation_fn": nn.Tanh},
]


@pytest.mark.parametrize("kwargs", CROSSQ)
def test_batch_renormalisation_is_folded(kwargs: dict[str, Any], tmp_path: Path) -> None:
    """Law: CrossQ's layers and statistics are an MLP that acts alike, and varies as much."""
    teacher = made(tmp_path, "CrossQ", BOX, policy_kwargs=dict(kwargs), normalized=True)
    agent, obs = read(teacher.path), teacher.observations(200)
    assert isinstance(agent.policy.network, MLP)
    assert_alike(teacher, agent)
    actor: Any = teacher.model.policy.actor
    with torch.no_grad():
        mean, log_std, _ = actor.get_action_dist_params(torch.as_tensor(teacher.normalize.normalize_obs(obs)))
    heads = agent.heads(obs)
    torch.testing.assert_close(heads.mean, mean, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(heads.log_std, log_std, rtol=1e-5, atol=2e-5)


def test_noise_that_reads_what_is_folded_away_is_left_out(tmp_path: Path) -> None:
    """Law: gSDE on normalised features cannot be kept; it is said, and the mean is kept, clipped as SB3 does."""
    teacher = made(tmp_path, "CrossQ", BOX, use_sde=True, policy_kwargs={"net_arch": [8], "clip_mean": 0.5})
    heard: list[Any] = []
    agent = read(teacher.path, listen=heard.append)
    assert agent.policy.spread is None
    assert any("without noise" in note.text for note in heard)
    assert_alike(teacher, agent)


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
    """Law: SB3 saves the space after VecNormalize; where the env is known, what it gives is what the agent observes."""
    kwargs = {"features_extractor_kwargs": {**OFFICIAL, "normalized_image": True}, "normalize_images": False}
    teacher = fresh(
        tmp_path, "PPO", FIRST, ACTIONS["discrete"], policy="CnnPolicy", policy_kwargs=kwargs, normalized=True
    )
    config = LoadConfig(env="Watching-v0", env_kwargs=())
    gymnasium.register("First-v0", lambda: Watching(FIRST))
    agent = read(teacher.path, config.model_copy(update={"env": "First-v0"}))
    assert agent.observation.dtype == "uint8"
    assert read(teacher.path).observation.dtype == "float32"
    assert_alike(teacher, agent)


def test_statistics_of_an_image_follow_its_axes(tmp_path: Path) -> None:
    """Law: statistics are those of channels first; of an image that arrives channels last each number has its own."""
    kwargs = {"features_extractor_kwargs": {**OFFICIAL, "normalized_image": True}, "normalize_images": False}
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


def _edit(path: Path, **tensors: torch.Tensor | None) -> Path:
    """The zip with tensors (dots written as two underscores) replaced, or left out where they are None."""
    edited = path.with_name("edited.zip")
    with zipfile.ZipFile(path) as source, source.open("policy.pth") as member:
        state = torch.load(member, weights_only=True)
    state |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    torch.save({name: t for name, t in state.items() if t is not None}, path.with_name("policy.pth"))
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(edited, "w") as target:
        for name in source.namelist():
            whole = path.with_name("policy.pth").read_bytes() if name == "policy.pth" else source.read(name)
            target.writestr(name, whole)
    return edited


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"cnn__0__weight": torch.ones(32, 3, 5, 5)}, "is not NatureCNN"),
        ({"cnn__0__weight": torch.ones(32, 2, 8, 8)}, "do not fit"),
        ({"cnn__2__weight": None}, r"has no tensor .*cnn.2.weight"),
        ({"cnn__6__weight": torch.ones(1)}, "cnn.6.weight is part of a network not read yet"),
        ({"linear__0__weight": torch.ones(24, 127)}, "do not fit"),
        ({"linear__0__weight": torch.ones(24)}, "is not a linear layer"),
    ],
)
def test_convolutions_that_are_not_natures(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    """Law: layers whose strides nobody knows, or that do not fit the image, are refused by name."""
    teacher = made(tmp_path, "DQN", FIRST, policy="CnnPolicy", policy_kwargs=dict(CNN))
    tensors = {f"q_net__features_extractor__{name}": tensor for name, tensor in change.items()}
    with pytest.raises(RefusedError, match=match):
        read(_edit(teacher.path, **tensors))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"lstm_actor__weight_ih_l0": torch.ones(36, 4)}, "do not fit"),
        ({"lstm_actor__weight_hh_l0": None}, "has no tensor"),
        ({"lstm_actor__weight_hh_l0": torch.tensor(1.0)}, "neither a GRU nor an LSTM"),
        ({"lstm_actor__weight_hh_l0": torch.ones(27, 9)}, "lstm_actor is not an LSTM"),
        ({"lstm_actor__weight_hh_l0": torch.ones(1)}, "neither a GRU nor an LSTM"),
        ({"lstm_actor__weight_ih_l0_reverse": torch.ones(36, 3)}, "part of a network not read yet"),
        ({"lstm_critic__weight_ih_l0": torch.ones(36, 4)}, "do not fit"),
    ],
)
def test_memories_that_cannot_be(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    """Law: LSTM weights that do not fit, or are of another kind of memory, are refused by name."""
    teacher = made(tmp_path, "RecurrentPPO", BOX, policy_kwargs={"lstm_hidden_size": 9})
    with pytest.raises(RefusedError, match=match):
        read(_edit(teacher.path, **change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"actor__latent_pi__0__ra_var": -torch.ones(3)}, "holds no statistics"),
        ({"actor__latent_pi__0__ra_mean": torch.ones(4)}, "holds no statistics"),
        ({"actor__latent_pi__3__ra_mean": None}, "is no MLP of CrossQ"),
        ({"actor__latent_pi__1__weight": torch.ones(8, 4)}, "does not fit|do not fit"),
    ],
)
def test_statistics_that_cannot_be(change: dict[str, Any], match: str, tmp_path: Path) -> None:
    """Law: batch statistics that do not fit the layers are refused by name."""
    teacher = made(tmp_path, "CrossQ", BOX, policy_kwargs={"net_arch": [8]})
    with pytest.raises(RefusedError, match=match):
        read(_edit(teacher.path, **change))


def test_a_nested_dict_is_refused(tmp_path: Path) -> None:
    """Law: a Dict inside a Dict, which SB3 cannot train on, is refused in clear words."""
    teacher = made(tmp_path, "PPO", THINGS)
    teacher.model.observation_space = spaces.Dict({"inner": THINGS})
    teacher.model.save(teacher.path)
    with pytest.raises(RefusedError, match="the part 'inner' is a Dict, not read yet"):
        read(teacher.path)


@needs_zoo
def test_the_zoos_dict_agent() -> None:
    """Law: SAC with goals, from SB3 1.1 with hindsight replay and VecNormalize of a Dict, acts and exports alike."""
    teacher = zoo_teacher(ZOO_DICT_AGENT)
    heard: list[Note] = []
    agent = read(ZOO / ZOO_DICT_AGENT, listen=heard.append)  # type: ignore[arg-type]
    assert list(parts(agent.observation)) == ["achieved_goal", "desired_goal", "observation"]
    assert all(part.normalizer is not None for part in agent.preprocess.parts.values())
    assert agent.facts["algorithm"] == "SAC"
    told = next(a for a in json.loads((ZOO / "manifest.json").read_text())["agents"] if a["folder"] == ZOO_DICT_AGENT)
    assert agent.facts["sha256"] == next(f["sha256"] for f in told["files"] if f["path"].endswith(".zip"))
    assert agent.facts["sb3_version"] == told["sb3_version"]
    columns = teacher.columns(1000)
    np.testing.assert_array_equal(agent.act(rows(agent, columns)), teacher.on(columns))
    assert_alike(teacher, agent)
