"""Agents of Stable-Baselines3 that see images, or several things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_agents import (
    BRIGHT,
    FIRST,
    GRAY,
    NATURE,
    SHARED,
    SMALL,
    THINGS,
    TWO_CAMERAS,
    assert_alike,
    copied,
    edit,
    made,
)
from sb3_oracle import (
    ACTIONS,
    BOX,
    CNN,
    ZOO_DICT_AGENT,
    fresh,
    rows,
    zoo_teacher,
)
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, NatureCNN
from torch import nn

from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.progress import Note
from kdcli.spec import MASK, parts

torch.set_num_threads(1)

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
                "features_extractor_kwargs": {**NATURE, "normalized_image": True},
                "normalize_images": False,
            },
        },
    ),
    (
        "PPO",  # bytes said to be normalised are divided by 255 all the same
        FIRST,
        {"policy": "CnnPolicy", "policy_kwargs": {"features_extractor_kwargs": {**NATURE, "normalized_image": True}}},
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
    teacher = made(tmp_path, name, observation, **copied(settings))
    agent = read(teacher.path)
    assert_alike(teacher, agent)
    assert isinstance(agent.policy.network, MLP if settings.get("policy") in ("MlpPolicy", "LinearPolicy") else Stack)


@pytest.mark.parametrize(("name", "observation", "settings"), DICTS)
def test_several_observations(name: str, observation: spaces.Dict, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: each part of a Dict is read as by SB3, in the space's order; VecNormalize touches the parts it names."""
    teacher = made(tmp_path, name, observation, **copied(settings))
    agent = read(teacher.path)
    assert [part for part in parts(agent.observation) if part != MASK] == list(observation.spaces)
    named = settings.get("normalized", [])
    normalized = {name for name, part in agent.preprocess.parts.items() if part.normalizer is not None}
    assert normalized == (set(observation.spaces) if named is True else set(named))
    assert_alike(teacher, agent)


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
    teacher = made(tmp_path, "PPO", observation, **copied(settings))
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
    old = read(edit(teacher.path, **dict.fromkeys(name.replace(".", "__") for name in second)))
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
        read(edit(teacher.path, **tensors))


@pytest.mark.parametrize("what", ["policy class", "features extractor"])
def test_classes_that_are_not_known_are_refused(what: str, tmp_path: Path) -> None:
    """Law: a policy or an extractor that kdcli does not rebuild is refused by its name, with the names it knows."""
    teacher = made(tmp_path, "PPO", BOX)
    if what == "policy class":
        teacher.model.policy_class = BasePolicy
    else:
        teacher.model.policy_kwargs = {"features_extractor_class": BaseFeaturesExtractor}
    teacher.model.save(teacher.path)
    asked = "the policy class" if what == "policy class" else "features_extractor_class asks for"
    with pytest.raises(RefusedError, match=rf"{asked} stable_baselines3\.common\.\w+\.Base\w+,? .*not read") as refusal:
        read(teacher.path)
    assert ("ActorCriticPolicy" if what == "policy class" else "NatureCNN") in refusal.value.why


def test_a_nested_dict_is_refused(tmp_path: Path) -> None:
    """Law: a Dict inside a Dict, which SB3 cannot train on, is refused in clear words."""
    teacher = made(tmp_path, "PPO", THINGS)
    teacher.model.observation_space = spaces.Dict({"inner": THINGS})
    teacher.model.save(teacher.path)
    with pytest.raises(RefusedError, match="the part 'inner' is a Dict, not read yet"):
        read(teacher.path)


@needs.zoo
def test_the_zoos_dict_agent() -> None:
    """Law: SAC with goals, from SB3 1.1 with hindsight replay and VecNormalize of a Dict, acts and exports alike."""
    teacher = zoo_teacher(ZOO_DICT_AGENT)
    heard: list[Note] = []
    agent = read(needs.ZOO / ZOO_DICT_AGENT, listen=heard.append)  # type: ignore[arg-type]
    assert list(parts(agent.observation)) == ["achieved_goal", "desired_goal", "observation"]
    assert all(part.normalizer is not None for part in agent.preprocess.parts.values())
    assert agent.facts["algorithm"] == "SAC"
    listed = json.loads((needs.ZOO / "manifest.json").read_text())["agents"]
    told = next(known for known in listed if known["folder"] == ZOO_DICT_AGENT)
    assert agent.facts["sha256"] == next(f["sha256"] for f in told["files"] if f["path"].endswith(".zip"))
    assert agent.facts["sb3_version"] == told["sb3_version"]
    columns = teacher.columns(1000)
    np.testing.assert_array_equal(agent.act(rows(agent, columns)), teacher.on(columns))
    assert_alike(teacher, agent)
