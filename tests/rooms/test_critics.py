"""Critics of continuous actions in Stable-Baselines3's files: what they say is what Stable-Baselines3's say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_agents import FIRST, SMALL
from sb3_oracle import ACTIONS, OBS, OBSERVATIONS, Teacher, fresh, rows
from toy_teachers import REACH

from kdcli.agents import store
from kdcli.agents.folding import deployed
from kdcli.agents.states import States
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.online import distill_in_env, pool_of
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert

READ = LoadConfig(critics=True)
TWO_SIGHTS = spaces.Dict({"eye": FIRST, "joints": OBSERVATIONS["box"]})


def worth(teacher: Teacher, columns: Any) -> np.ndarray:
    """What SB3's own critics say of SB3's own deterministic actions: the least, or the mean of quantiles."""
    policy: Any = teacher.model.policy
    obs, _ = policy.obs_to_tensor(teacher.seen(columns))
    action = torch.from_numpy(policy.scale_action(teacher.on(columns)))
    with torch.no_grad():
        said = policy.critic(obs, action)
    return (said.mean((1, 2)) if isinstance(said, torch.Tensor) else torch.cat(said, 1).amin(1)).numpy()


@pytest.mark.parametrize("name", ["SAC", "TD3", "DDPG", "TQC"])
@pytest.mark.parametrize("sees", ["box", "image", "dict"])
def test_values_are_those_of_the_critics(name: str, sees: str, tmp_path: Path) -> None:
    """Law: the value of a state is what the trainer's own critics say of its own action there, and lives in files."""
    observation = {"box": OBSERVATIONS["box"], "image": FIRST, "dict": TWO_SIGHTS}[sees]
    policy, extra = {
        "box": ("MlpPolicy", {}),
        "image": ("CnnPolicy", {"features_extractor_kwargs": {"features_dim": 20}}),
        "dict": ("MultiInputPolicy", {"features_extractor_kwargs": SMALL}),
    }[sees]
    arguments = {"net_arch": [16], **extra}
    teacher = fresh(tmp_path, name, observation, ACTIONS["box"], policy=policy, policy_kwargs=arguments)
    agent, columns = read(teacher.path, READ), teacher.columns(60)
    obs = rows(agent, columns)
    value, expected = agent.heads(obs).value, worth(teacher, columns)
    assert value is not None
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    plain = read(teacher.path)
    assert plain.heads(obs).value is None
    assert plain.n_params == agent.n_params
    again = store.load(store.save(tmp_path / "agent.safetensors", agent, {}))
    assert torch.equal(again.heads(obs).value, value)  # type: ignore[arg-type]
    np.testing.assert_allclose(deployed(agent).act(obs), agent.act(obs), atol=1e-5)


def test_critics_are_not_shipped(tmp_path: Path) -> None:
    """Law: a file for another runtime has the same bytes with critics and without."""
    teacher = fresh(tmp_path, "SAC", OBSERVATIONS["box"], ACTIONS["box"], policy_kwargs={"net_arch": [16]})
    states = States(teacher.columns(20)[OBS])
    found = [convert(read(teacher.path, config), states, ExportConfig()).files for config in (READ, LoadConfig())]
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["PPO", "DQN"])
def test_who_has_no_critic_of_actions(name: str, tmp_path: Path) -> None:
    """Law: asking for critics where there are none is an error, not silence."""
    action = ACTIONS["discrete" if name == "DQN" else "box"]
    teacher = fresh(tmp_path, name, OBSERVATIONS["box"], action)
    with pytest.raises(UsageError, match="--critics"):
        read(teacher.path, READ)


def test_a_critic_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Law: critics for other actions than the actor's are no critics of this agent."""
    teacher = fresh(tmp_path, "SAC", OBSERVATIONS["box"], ACTIONS["box"], policy_kwargs={"net_arch": [16]})
    layer = teacher.model.policy.critic.qf0[0]  # type: ignore[union-attr, index]
    layer.weight = torch.nn.Parameter(layer.weight[:, 1:].detach())  # type: ignore[union-attr, index]
    teacher.model.save(teacher.path)
    with pytest.raises(RefusedError) as caught:
        read(teacher.path, READ)
    assert "critic" in caught.value.why


def test_a_critic_teaches_values(tmp_path: Path) -> None:
    """Law: beside its action a student learns what a critic says the state is worth, whatever the unit."""
    observation = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action = spaces.Box(-1.0, 1.0, (1,), np.float32)
    teacher = fresh(tmp_path, "TD3", observation, action, policy_kwargs={"net_arch": [16]})
    agent = read(teacher.path, LoadConfig(critics=True, env=REACH.id))
    config = DistillConfig(student="mlp:16", labels=1500, updates=900, rounds=3, episodes=2, loss=("action", "value"))
    student, seen = distill_in_env(agent, config).student, pool_of(agent, REACH, config).buffer.newest(500)
    ours, theirs = student.policy.forward(seen.features).value, seen.teacher.value
    assert ours is not None
    assert theirs is not None
    assert float((ours - theirs).square().mean() / theirs.var()) < 0.1
    with pytest.raises(UsageError, match="needs the teacher's value") as caught:
        distill_in_env(read(teacher.path, LoadConfig(env=REACH.id)), config)
    assert "has values with critics" in str(caught.value)
