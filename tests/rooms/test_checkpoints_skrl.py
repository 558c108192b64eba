"""skrl: what its agents save, rebuilt; the study `foreign_checkpoints` compares with files of skrl itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import BOUNDED, VECTOR, Where, assert_same, loaded, missing, mlp, observations, out, saved, stirred
from foreign import where as where
from torch import Tensor, nn

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import Discrete, MultiDiscrete


class Scaler(nn.Module):
    """RunningStandardScaler: what is saved of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.randn(7, dtype=torch.float64))
        self.register_buffer("running_variance", torch.rand(7, dtype=torch.float64) + 0.1)
        self.register_buffer("current_count", torch.tensor(8.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        scaled = (x - self.running_mean.float()) / (torch.sqrt(self.running_variance.float()) + 1e-8)
        return torch.clamp(scaled, -5.0, 5.0)


class Separate(nn.Module):
    """A model of its own: one container, or before 1.3 one Sequential called net."""

    def __init__(self, n: int, name: str = "net_container", gaussian: bool = True) -> None:
        super().__init__()
        self.layers = mlp(7, 16, 8, n)
        setattr(self, name, self.layers)
        if gaussian:
            self.log_std_parameter = nn.Parameter(torch.zeros(n))

    def kept(self) -> dict[str, Any]:
        return {name: t for name, t in self.state_dict().items() if not name.startswith("layers.")}

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Shared(nn.Module):
    """Policy and value on one trunk."""

    def __init__(self, n: int, head: str = "policy_layer") -> None:
        super().__init__()
        self.log_std_parameter = nn.Parameter(torch.zeros(n))
        self.net_container = nn.Sequential(nn.Linear(7, 16), nn.ELU(), nn.Linear(16, 8), nn.ELU())
        self.head = head
        setattr(self, head, nn.Linear(8, n))
        self.value_layer = nn.Linear(8, 1)

    def kept(self) -> dict[str, Any]:
        return self.state_dict()

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.head)(self.net_container(x))


def agent_file(policy: Any, folder: Path, **more: Any) -> Path:
    """A best_agent.pt."""
    rest = {"value": mlp(7, 4, 1).state_dict(), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}
    return saved({"policy": policy.kept(), **rest, **more}, folder, "best_agent.pt")


MODELS = {
    "container": lambda n: Separate(n),
    "net": lambda n: Separate(n, "net"),
    "shared": lambda n: Shared(n),
    "mean layer": lambda n: Shared(n, "mean_layer"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("scaler", [None, "state_preprocessor", "observation_preprocessor"])
@pytest.mark.parametrize("squash", ["clip", "tanh"])
def test_gaussian(model: str, scaler: str | None, squash: str, tmp_path: Path, where: Where) -> None:
    """Law: the mean behind the running statistics of either generation, clipped or squashed to the env's range."""
    where(VECTOR, BOUNDED)
    policy, norm = stirred(MODELS[model](3)), Scaler()
    path = agent_file(policy, tmp_path, **({scaler: norm.state_dict()} if scaler else {}))
    agent, heard = loaded(path, activation="elu", squash=squash)
    obs = observations(VECTOR)
    mean = out((lambda x: policy(norm(x))) if scaler else policy, obs)
    low, high = BOUNDED.low, BOUNDED.high
    assert_same(
        agent, obs, np.clip(mean, low, high) if squash == "clip" else low + (np.tanh(mean) + 1) / 2 * (high - low)
    )
    assert any("defaults" in text for text in heard) == bool(scaler)
    assert (agent.heads(obs[:1]).log_std is not None) == (squash == "clip")


@pytest.mark.parametrize("action", [Discrete(5), MultiDiscrete((2, 3))], ids=str)
def test_categorical(action: Any, tmp_path: Path, where: Where) -> None:
    """Law: without a spread, and in an env of choices, the outputs are logits."""
    where(VECTOR, action)
    policy = stirred(Separate(5, gaussian=False))
    agent, _ = loaded(agent_file(policy, tmp_path), activation="elu")
    obs = observations(VECTOR)
    np.testing.assert_allclose(agent.heads(obs).logits.numpy(), out(policy, obs), atol=1e-5)


def test_dqn(tmp_path: Path, where: Where) -> None:
    """Law: a q_network gives Q-values."""
    where(VECTOR, Discrete(5))
    policy = stirred(Separate(5, gaussian=False))
    path = saved({"q_network": policy.kept(), "target_q_network": policy.kept()}, tmp_path)  # type: ignore[operator]
    agent, _ = loaded(path, activation="elu")
    obs = observations(VECTOR)
    assert_same(agent, obs, out(policy, obs).argmax(1))
    assert agent.policy.signal == "q"


def test_memory(tmp_path: Path, where: Where) -> None:
    """Law: a GRU before the layers, as in skrl's own recurrent examples, is carried through an episode."""
    where(VECTOR, BOUNDED)
    gru, net = stirred(nn.GRU(7, 9, batch_first=True)), stirred(mlp(9, 8, 3))
    state = {f"gru.{k}": v for k, v in gru.state_dict().items()} | {f"net.{k}": v for k, v in net.state_dict().items()}
    agent, _ = loaded(
        saved({"policy": state | {"log_std_parameter": torch.zeros(3)}}, tmp_path), activation="elu", squash="clip"
    )
    before, theirs = np.zeros((4, 9), np.float32), None
    for obs in observations(VECTOR, 24).reshape(6, 4, 7):
        with torch.inference_mode():
            hidden, theirs = gru(torch.from_numpy(obs)[:, None], theirs)
            wanted = net(hidden[:, 0]).numpy()
        actions, before = agent.step(obs, before)
        np.testing.assert_allclose(actions, np.clip(wanted, BOUNDED.low, BOUNDED.high), atol=1e-5)


def test_what_must_be_said(tmp_path: Path, where: Where) -> None:
    """Law: activation and squashing are asked for by name; the env too, unless a spread tells of real actions."""
    where(VECTOR, BOUNDED)
    path = agent_file(Separate(3), tmp_path)
    missing(path, "--activation", squash="clip")
    missing(path, "--squash", activation="elu")
    heard: list[str] = []
    agent = read(path, LoadConfig(activation="elu", squash="clip"), lambda e: heard.append(e.text))
    assert np.isinf(agent.action.high).all()  # type: ignore[union-attr]
    assert any("without bounds" in text for text in heard)
    with pytest.raises(UsageError, match="does not say what it observes"):
        read(agent_file(Separate(3, gaussian=False), tmp_path), LoadConfig(activation="elu"))


def test_other_statistics(tmp_path: Path, where: Where) -> None:
    """Law: statistics that are named come before those in the file; another preprocessor's are refused."""
    where(VECTOR, BOUNDED)
    policy, norm = stirred(Separate(3)), Scaler()
    path = agent_file(policy, tmp_path, state_preprocessor=norm.state_dict())
    obs = observations(VECTOR)
    said = {"activation": "elu", "squash": "clip"}
    assert_same(loaded(path, obs_stats="none", **said)[0], obs, np.clip(out(policy, obs), BOUNDED.low, BOUNDED.high))
    strange = agent_file(policy, tmp_path, state_preprocessor={"scale": torch.ones(7)})
    with pytest.raises(RefusedError, match="statistic"):
        loaded(strange, **said)


def test_what_is_not_read(tmp_path: Path, where: Where) -> None:
    """Law: convolutions, whose strides no file tells, and layers that do not follow each other are refused."""
    where(VECTOR, BOUNDED)
    image = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))
    for state in (image.state_dict(), {"a.weight": torch.ones(4, 7), "b.weight": torch.ones(3, 5)}):
        named = {f"net_container.{k}" if k[0].isdigit() else k: v for k, v in state.items()}
        with pytest.raises(RefusedError):
            loaded(saved({"policy": named}, tmp_path), activation="elu", squash="clip")
