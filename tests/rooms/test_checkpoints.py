"""A checkpoint read by kdcli against the same one run by Stable-Baselines3: not one bit of an action differs."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_oracle import (
    ACTIONS,
    OBSERVATIONS,
    ZOO_AGENTS,
    ZOO_DICT_AGENT,
    Teacher,
    fresh,
    rows,
    zoo_teacher,
)
from stable_baselines3.common.distributions import StateDependentNoiseDistribution

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.progress import Note
from kdcli.spec import Box

torch.set_num_threads(1)

MIXED = ["PPO", "A2C", "TRPO"]
CONTINUOUS = ["SAC", "TQC", "TD3", "DDPG"]
DISCRETE = ["DQN", "QRDQN"]
ON_ACTIONS = [
    *((name, action) for name in MIXED for action in ACTIONS),
    *(("ARS", action) for action in ("box", "discrete")),
    *((name, "box") for name in CONTINUOUS),
    *((name, "discrete") for name in DISCRETE),
]
ON_OBSERVATIONS = [
    (name, observation, normalized)
    for name in ("PPO", "ARS", "SAC", "TD3", "QRDQN")
    for observation in OBSERVATIONS
    for normalized in ((False, True) if observation in ("box", "wide", "image") else (False,))
]
SETTINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("PPO", "box", {"use_sde": True}),
    ("PPO", "box", {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
    ("A2C", "box", {"use_sde": True, "policy_kwargs": {"full_std": False}}),
    ("A2C", "box", {"use_sde": True, "policy_kwargs": {"use_expln": True}}),
    ("SAC", "box", {"use_sde": True}),
    ("SAC", "box", {"use_sde": True, "policy_kwargs": {"clip_mean": 0.25, "use_expln": True}}),
    ("TQC", "box", {"use_sde": True, "policy_kwargs": {"clip_mean": 0.0}}),
    ("TQC", "box", {"policy_kwargs": {"n_quantiles": 7, "activation_fn": torch.nn.ELU}}),
    ("PPO", "box", {"policy_kwargs": {"net_arch": []}}),
    ("PPO", "discrete", {"policy_kwargs": {"net_arch": {"pi": [7], "vf": [9, 8]}, "activation_fn": torch.nn.SiLU}}),
    ("PPO", "discrete", {"policy_kwargs": {"share_features_extractor": False}}),
    ("PPO", "discrete", {"learning_rate": lambda left: left * 1e-3, "clip_range": lambda left: left}),
    ("DQN", "discrete", {"policy_kwargs": {"optimizer_class": torch.optim.AdamW, "net_arch": [3]}}),
    ("QRDQN", "discrete", {"policy_kwargs": {"n_quantiles": 5}}),
    ("ARS", "box", {"policy": "LinearPolicy"}),
    ("ARS", "discrete", {"policy": "LinearPolicy"}),
    ("ARS", "box", {"policy": "LinearPolicy", "policy_kwargs": {"with_bias": True, "squash_output": True}}),
    ("ARS", "box", {"policy_kwargs": {"squash_output": False, "with_bias": False}}),
]


def assert_alike(teacher: Teacher, agent: Agent, singles: int = 50) -> None:
    """Same values and shapes as SB3, for a batch of 1,000 and one by one; the type is the one the env takes."""
    obs = teacher.observations(1000)
    expected, actions = teacher.actions(obs), agent.act(obs)
    assert actions.dtype == agent.action.dtype
    np.testing.assert_array_equal(actions, expected)
    assert len(np.unique(expected)) > 1, "the oracle always does the same: the comparison says nothing"
    for one in np.split(obs[:singles], singles):
        np.testing.assert_array_equal(agent.act(one), teacher.actions(one))


@needs.zoo
@pytest.mark.parametrize("folder", ZOO_AGENTS)
def test_zoo_agents_act_as_in_sb3(folder: str) -> None:
    """Law: on 1,000 observations, as a batch and singly, an old agent acts bit for bit as in Stable-Baselines3."""
    teacher = zoo_teacher(folder)
    assert_alike(teacher, read(teacher.path), singles=1000)


@needs.zoo
@pytest.mark.parametrize("folder", [*ZOO_AGENTS, ZOO_DICT_AGENT])
def test_zoo_agents_export_as_in_sb3(folder: str) -> None:
    """Law: the file made of an old agent acts as SB3 does, alone and in a batch, to 1e-5 of a half-range."""
    teacher = zoo_teacher(folder)
    agent, columns = read(teacher.path), teacher.columns(1000)
    exported, expected = convert(agent, States(rows(agent, columns)), ExportConfig()).agent, teacher.on(columns)
    obs = rows(exported, columns)
    for found in (exported.act(obs), np.concatenate([exported.act(obs[i : i + 1]) for i in range(1000)])):
        if isinstance(agent.action, Box):
            half = (agent.action.high - agent.action.low) / 2
            assert (np.abs(found - expected) / half).max() <= 1e-5
        else:
            np.testing.assert_array_equal(found, expected)


@needs.zoo
@pytest.mark.parametrize("folder", ZOO_AGENTS)
def test_zoo_facts(folder: str) -> None:
    """Law: algorithm, spaces, parameters, digest and env are those the zoo's manifest was measured with."""
    manifest = json.loads((needs.ZOO / "manifest.json").read_text())
    told = next(entry for entry in manifest["agents"] if entry["folder"] == folder)
    agent = read(needs.ZOO / folder)
    assert agent.facts["algorithm"] == ZOO_AGENTS[folder]
    assert agent.facts["sb3_version"] == told["sb3_version"]
    assert agent.facts["sha256"] == next(f["sha256"] for f in told["files"] if f["path"].endswith(".zip"))
    assert agent.n_params == told["actor_params_mean_only"]
    assert agent.facts["total_params"] == told["policy_params_total"]
    assert [list(layer.weight.shape[::-1]) for layer in agent.policy.network.linears()] == told["actor_layers"]
    assert (agent.preprocess.normalizer is not None) == told["vecnormalize"]
    assert agent.env is not None
    assert (agent.env.id, dict(agent.env.kwargs)) == (told["env_id"], told["env_kwargs"])
    assert list(agent.observation.shape) == told["obs_shape"]


@pytest.mark.parametrize(("name", "action"), ON_ACTIONS)
def test_every_action_space(name: str, action: str, tmp_path: Path) -> None:
    """Law: for each action space an algorithm allows, a freshly saved model acts as in Stable-Baselines3."""
    teacher = fresh(tmp_path, name, OBSERVATIONS["box"], ACTIONS[action])
    agent = read(teacher.path)
    assert agent.facts["algorithm"] == name
    assert_alike(teacher, agent)


@pytest.mark.parametrize(("name", "observation", "normalized"), ON_OBSERVATIONS)
def test_every_observation_space(name: str, observation: str, normalized: bool, tmp_path: Path) -> None:
    """Law: for each flat observation space, with and without VecNormalize, actions are those of SB3."""
    action = ACTIONS["discrete" if name in DISCRETE else "box"]
    teacher = fresh(tmp_path, name, OBSERVATIONS[observation], action, normalized=normalized)
    agent = read(teacher.path)
    assert (agent.preprocess.normalizer is not None) == normalized
    assert_alike(teacher, agent)


@pytest.mark.parametrize(("name", "action", "settings"), SETTINGS)
def test_settings_that_change_the_policy(name: str, action: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: gSDE, squashing, clip_mean, activation, layers, biases and quantiles are those of the model."""
    copied = {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}
    teacher = fresh(tmp_path, name, OBSERVATIONS["box"], ACTIONS[action], **copied)
    assert_alike(teacher, read(teacher.path))


@pytest.mark.parametrize("name", MIXED)
def test_the_critic_teaches_too(name: str, tmp_path: Path) -> None:
    """Law: the value head is SB3's predict_values, bit for bit."""
    teacher = fresh(tmp_path, name, OBSERVATIONS["box"], ACTIONS["box"])
    obs = teacher.observations()
    with torch.no_grad():
        expected = teacher.model.policy.predict_values(torch.from_numpy(obs)).squeeze(1)
    np.testing.assert_array_equal(read(teacher.path).heads(obs).value.numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PPO", {}),
        ("PPO", {"use_sde": True}),
        ("PPO", {"use_sde": True, "policy_kwargs": {"full_std": False}}),
        ("PPO", {"use_sde": True, "policy_kwargs": {"use_expln": True}}),
        ("SAC", {}),
        ("SAC", {"use_sde": True}),
        ("TQC", {"use_sde": True, "policy_kwargs": {"use_expln": True}}),
    ],
)
def test_the_spread_is_sb3s(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """Law: mean and log standard deviation are those of SB3's distribution, squashed or not, gSDE or not."""
    teacher = fresh(tmp_path, name, OBSERVATIONS["box"], ACTIONS["box"], **settings)
    obs, policy = teacher.observations(200), teacher.model.policy
    with torch.no_grad():
        if name == "PPO":
            normal = policy.get_distribution(torch.from_numpy(obs)).distribution
        else:
            mean, log_std, extra = policy.actor.get_action_dist_params(torch.from_numpy(obs))
            noise = policy.actor.action_dist
            noise.proba_distribution(mean, log_std, **extra)
            assert isinstance(noise, StateDependentNoiseDistribution) == bool(settings)
            normal = noise.distribution
    heads = read(teacher.path).heads(obs)
    torch.testing.assert_close(heads.log_std, normal.stddev.log(), rtol=1e-5, atol=1e-5)
    limit = read(teacher.path).policy.rule.limit
    np.testing.assert_array_equal(heads.mean.clamp(-limit, limit) if limit else heads.mean, normal.mean)


def _edit(path: Path, **members: bytes) -> Path:
    """The zip at `path` with members replaced."""
    edited = path.with_name("edited.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(edited, "w") as target:
        for name in source.namelist():
            target.writestr(name, members.get(name.replace(".", "_"), source.read(name)))
    return edited


def _state(path: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(path) as source, source.open("policy.pth") as member:
        return torch.load(member, weights_only=True)


def _packed(state: dict[str, torch.Tensor], folder: Path) -> bytes:
    torch.save(state, folder / "policy.pth")
    return (folder / "policy.pth").read_bytes()


def test_a_shared_trunk_of_old_versions(tmp_path: Path) -> None:
    """Law: shared layers (before SB3 1.8) come first in actor and critic; the same weights unshared act the same."""
    net = {"pi": [6, 5], "vf": [6, 4]}
    teacher = fresh(tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"], policy_kwargs={"net_arch": net})
    state = _state(teacher.path)
    prefix = "mlp_extractor."
    old = {k: v for k, v in state.items() if not k.startswith((f"{prefix}policy_net", f"{prefix}value_net"))}
    for key in ("weight", "bias"):
        old[f"{prefix}shared_net.0.{key}"] = state[f"{prefix}policy_net.0.{key}"]
        old[f"{prefix}policy_net.0.{key}"] = state[f"{prefix}policy_net.2.{key}"]
        old[f"{prefix}value_net.0.{key}"] = state[f"{prefix}value_net.2.{key}"]
    agent = read(_edit(teacher.path, policy_pth=_packed(old, tmp_path)))
    obs = teacher.observations()
    np.testing.assert_array_equal(agent.act(obs), teacher.actions(obs))
    assert str(agent.policy.value) == "3-6-4-1"
    assert agent.facts["total_params"] == sum(tensor.numel() for tensor in old.values())


def test_a_shared_extractor_is_counted_once(tmp_path: Path) -> None:
    """Law: tensors saved under three names count once among the parameters."""
    teacher = fresh(tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"])
    state = _state(teacher.path)
    before = sum(tensor.numel() for tensor in state.values())
    same = {f"vf_{name}": state["value_net.weight"] for name in "ab"}
    with pytest.raises(RefusedError, match="vf_a is part of a network not read yet"):
        read(_edit(teacher.path, policy_pth=_packed({**state, **same}, tmp_path)))
    from kdcli.checkpoints.safe.weights import Weights

    assert Weights({**state, **same}, "policy.pth").count() == before


@pytest.mark.parametrize("case", ["nan", "inf", "double", "missing", "misfit", "expanded", "not tensors"])
def test_weights_that_cannot_be(case: str, tmp_path: Path) -> None:
    """Law: NaN, infinity, other dtypes, missing or misfitting tensors are refused, naming the tensor."""
    teacher = fresh(tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"])
    state: dict[str, Any] = _state(teacher.path)
    name = "mlp_extractor.policy_net.2.weight"
    match case:
        case "nan" | "inf":
            state[name][1, 2] = float(case)
        case "double":
            state[name] = state[name].double()
        case "missing":
            del state[name]
        case "misfit":
            state[name] = torch.zeros(64, 63)
        case "expanded":
            state[name] = torch.zeros(1).expand(64, 64)
        case "not tensors":
            state[name] = [1.0]
    with pytest.raises(RefusedError, match=r"policy_net|layers|state dict|policy.pth"):
        read(_edit(teacher.path, policy_pth=_packed(state, tmp_path)))


def test_a_class_of_ones_own_is_refused(tmp_path: Path) -> None:
    """Law: an extractor defined by the user is refused, naming what it asked for; nothing of it is rebuilt."""

    class Own(torch.nn.Flatten):
        features_dim = 3

        def __init__(self, observation_space: spaces.Space) -> None:
            super().__init__()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        teacher = fresh(
            tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"], policy_kwargs={"features_extractor_class": Own}
        )
    with pytest.raises(RefusedError, match=r"features_extractor_class asks for .*Own"):
        read(teacher.path)


def test_lost_statistics_are_noticed(tmp_path: Path) -> None:
    """Law: an agent trained with VecNormalize whose file is missing says so; told that there is none, it is quiet."""
    teacher = fresh(tmp_path, "PPO", OBSERVATIONS["box"], ACTIONS["box"], normalized=True)
    teacher.model._last_original_obs = np.zeros((1, 3), np.float32)
    teacher.model.save(teacher.path)
    (tmp_path / "vecnormalize.pkl").unlink()
    heard: list[str] = []

    def listen(note: Any) -> None:
        assert isinstance(note, Note)
        heard.append(note.text)

    assert read(teacher.path, listen=listen).preprocess.normalizer is None
    assert any("--vecnormalize" in text for text in heard)
    heard.clear()
    read(teacher.path, LoadConfig(vecnormalize="none"), listen)
    assert not any("--vecnormalize" in text for text in heard)
