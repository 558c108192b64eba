"""Agents of sb3-contrib that remember, are told what is allowed, or see normalised features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_agents import (
    FEW,
    FIRST,
    SMALL,
    TWO_CAMERAS,
    assert_alike,
    copied,
    edit,
    made,
)
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from sb3_oracle import (
    BOX,
    CNN,
    Teacher,
    episodes,
    rows,
)
from torch import nn

from kdcli.agents.agent import Agent
from kdcli.agents.states import States, actions
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.networks.mlp import MLP
from kdcli.spec import MASK, OBS, Box, Dict

torch.set_num_threads(1)

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
    teacher = made(tmp_path, "RecurrentPPO", observation, **copied(settings))
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
        read(edit(teacher.path, **change))


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
        read(edit(teacher.path, **change))
