"""CleanRL: networks of its scripts, rebuilt from their published definitions (vwxyzjn/cleanrl, 2022 to 2026)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import BOUNDED, IMAGE, VECTOR, Where, assert_same, loaded, missing, mlp, observations, out, saved, stirred
from foreign import where as where
from torch import Tensor, nn

from kdcli.agents.agent import Agent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import RefusedError, UsageError
from kdcli.spec import Discrete, box


def nature(*heads: nn.Module, channels: int = 4) -> list[nn.Module]:
    """The convolutions of Mnih et al. 2015, and what comes after."""
    convolutions = [nn.Conv2d(channels, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3, 1)]
    return [*(part for conv in convolutions for part in (conv, nn.ReLU())), nn.Flatten(), *heads]


class Network(nn.Module):
    """dqn, dqn_atari: one Sequential called network."""

    def __init__(self, network: nn.Sequential, divisor: float = 1.0) -> None:
        super().__init__()
        self.network, self.divisor = network, divisor

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x / self.divisor)


class Ppo(nn.Module):
    """ppo (actor) and ppo_continuous_action (actor_mean, actor_logstd), each with a critic."""

    def __init__(self, n: int, continuous: bool, hidden: int = 64) -> None:
        super().__init__()
        self.critic = mlp(7, hidden, hidden, 1, activation=nn.Tanh)
        actor = mlp(7, hidden, hidden, n, activation=nn.Tanh)
        if continuous:
            self.actor_mean = actor
            self.actor_logstd = nn.Parameter(torch.zeros(1, n))
        else:
            self.actor = actor

    def forward(self, x: Tensor) -> Tensor:
        return (self.actor_mean if hasattr(self, "actor_mean") else self.actor)(x)


class PpoAtari(nn.Module):
    """ppo_atari, and ppo_atari_lstm with memory."""

    def __init__(self, n: int, memory: bool) -> None:
        super().__init__()
        self.network = nn.Sequential(*nature(nn.Linear(3136, 512), nn.ReLU()))
        if memory:
            self.lstm = nn.LSTM(512, 16)
        self.actor, self.critic = nn.Linear(16 if memory else 512, n), nn.Linear(16 if memory else 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.actor(self.network(x / 255.0))


class Actor(nn.Module):
    """ddpg, td3 (fc_mu) and sac (fc_mean, fc_logstd)."""

    def __init__(self, head: str, low: np.ndarray, high: np.ndarray, hidden: int = 256) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(7, hidden), nn.Linear(hidden, hidden)
        setattr(self, head, nn.Linear(hidden, len(low)))
        if head == "fc_mean":
            self.fc_logstd = nn.Linear(hidden, len(low))
        self.head = head
        self.register_buffer("action_scale", torch.tensor((high - low) / 2.0, dtype=torch.float32))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2.0, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc2(torch.relu(self.fc1(x))))
        return torch.tanh(getattr(self, self.head)(x)) * self.action_scale + self.action_bias


class SacAtari(nn.Module):
    """The actor of sac_atari."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*nature())
        self.fc1, self.fc_logits = nn.Linear(3136, 512), nn.Linear(512, n)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_logits(torch.relu(self.fc1(self.conv(x / 255.0))))


def test_dqn(tmp_path: Path, where: Where) -> None:
    """Law: Q-values of dqn.py, its relu taken from the published widths, and said."""
    where(VECTOR, Discrete(4))
    net = stirred(Network(mlp(7, 120, 84, 4, activation=nn.ReLU)))
    agent, heard = loaded(saved(net.state_dict(), tmp_path, "dqn.cleanrl_model"))
    obs = observations(VECTOR)
    assert_same(agent, obs, out(net, obs).argmax(1))
    assert agent.policy.signal == "q"
    assert any("relu" in text for text in heard)


def test_other_widths_need_their_activation(tmp_path: Path, where: Where) -> None:
    """Law: a network of other widths than the published ones is read only with its activation."""
    where(VECTOR, Discrete(4))
    net = stirred(Network(mlp(7, 16, 8, 4, activation=nn.Tanh)))
    path = saved(net.state_dict(), tmp_path)
    missing(path, "--activation")
    obs = observations(VECTOR)
    assert_same(loaded(path, activation="tanh")[0], obs, out(net, obs).argmax(1))
    with pytest.raises(UsageError, match="activation"):
        loaded(path, activation="thanh")


@pytest.mark.parametrize("channels_last", [False, True])
def test_dqn_atari(channels_last: bool, tmp_path: Path, where: Where) -> None:
    """Law: dqn_atari's convolutions with their published strides, on images / 255, channels first or last."""
    where(box((84, 84, 4), 0, 255, "uint8") if channels_last else IMAGE, Discrete(6))
    net = stirred(Network(nn.Sequential(*nature(nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 6))), 255.0), 0.03)
    agent, _ = loaded(saved(net.state_dict(), tmp_path))
    obs = observations(IMAGE, 40)
    assert_same(agent, np.moveaxis(obs, 1, -1) if channels_last else obs, out(net, obs).argmax(1))


def test_ppo(tmp_path: Path, where: Where) -> None:
    """Law: ppo.py's logits, and its critic as the value."""
    where(VECTOR, Discrete(4))
    net = stirred(Ppo(4, continuous=False))
    agent, _ = loaded(saved(net.state_dict(), tmp_path))
    obs = observations(VECTOR)
    assert_same(agent, obs, out(net, obs).argmax(1))
    heads = agent.heads(obs)
    np.testing.assert_allclose(heads.value.numpy(), out(net.critic, obs)[:, 0], atol=1e-5)
    np.testing.assert_allclose(heads.logits.numpy(), out(net, obs), atol=1e-5)


def test_ppo_continuous_action(tmp_path: Path, where: Where) -> None:
    """Law: without the statistics that CleanRL does not save it is not read; with them it acts as trained."""
    where(VECTOR, BOUNDED)
    net = stirred(Ppo(3, continuous=True))
    path = saved(net.state_dict(), tmp_path)
    missing(path, "--obs-stats")
    rng, stats = np.random.default_rng(0), tmp_path / "stats.npz"
    mean, var = rng.normal(size=7), rng.gamma(2.0, size=7)
    np.savez(stats, mean=mean, var=var, epsilon=1e-8, clip=10.0)
    obs = observations(VECTOR)
    seen = np.clip((obs - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
    agent, _ = loaded(path, obs_stats=str(stats))
    assert_same(agent, obs, np.clip(out(net, seen), BOUNDED.low, BOUNDED.high))
    np.testing.assert_allclose(agent.heads(obs).log_std.numpy()[0], net.actor_logstd.detach().numpy()[0])
    assert_same(loaded(path, obs_stats="none")[0], obs, np.clip(out(net, obs), BOUNDED.low, BOUNDED.high))


def test_ppo_atari(tmp_path: Path, where: Where) -> None:
    """Law: ppo_atari's logits, its critic one layer on the trunk."""
    where(IMAGE, Discrete(6))
    net: Any = stirred(PpoAtari(6, memory=False), 0.03)
    obs = observations(IMAGE, 40)
    net.actor.bias.data -= torch.from_numpy(out(net, obs).mean(0))  # else one choice is always the best
    agent, _ = loaded(saved(net.state_dict(), tmp_path))
    assert_same(agent, obs, out(net, obs).argmax(1))
    assert agent.heads(obs).value.shape == (40,)


def test_ppo_atari_lstm(tmp_path: Path, where: Where) -> None:
    """Law: the state of ppo_atari_lstm is carried through an episode as torch carries it."""
    where(IMAGE, Discrete(6))
    net: Any = stirred(PpoAtari(6, memory=True), 0.03)
    agent, _ = loaded(saved(net.state_dict(), tmp_path))
    obs, state, theirs = observations(IMAGE, 24).reshape(6, 4, 4, 84, 84), np.zeros((4, 32), np.float32), None
    for rows in obs:
        with torch.inference_mode():
            hidden, theirs = net.lstm(net.network(torch.from_numpy(rows) / 255.0)[None], theirs)
            logits = net.actor(hidden[0])
        np.testing.assert_allclose(agent.heads(rows, state).logits.numpy(), logits, atol=1e-5)
        actions, state = agent.step(rows, state)
        np.testing.assert_array_equal(actions, logits.argmax(1))


@pytest.mark.parametrize("kind", ["td3", "ddpg", "sac"])
def test_squashed_actors(kind: str, tmp_path: Path, where: Where) -> None:
    """Law: action_scale and action_bias are the env's range: then tanh is scaled to it, else the env is refused."""
    where(VECTOR, BOUNDED)
    net = stirred(Actor("fc_mean" if kind == "sac" else "fc_mu", BOUNDED.low, BOUNDED.high))
    critic = nn.Linear(2, 2).state_dict()
    critics = {"td3": (critic, critic), "ddpg": (critic,), "sac": ()}[kind]
    path = saved((net.state_dict(), *critics) if critics else net.state_dict(), tmp_path)
    obs = observations(VECTOR)
    assert_same(loaded(path)[0], obs, out(net, obs))
    where(VECTOR, box((3,), -1.0, 1.0))
    missing(path, "--env")


def test_sac_atari(tmp_path: Path, where: Where) -> None:
    """Law: the actor of sac_atari gives logits."""
    where(IMAGE, Discrete(6))
    net = stirred(SacAtari(6), 0.03)
    agent, _ = loaded(saved(net.state_dict(), tmp_path))
    obs = observations(IMAGE, 40)
    assert_same(agent, obs, out(net, obs).argmax(1))


def test_the_env_comes_from_the_folder_or_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the env is the one that the run's folder names, and is said; without any it is asked for."""
    net = stirred(Network(mlp(4, 120, 84, 2, activation=nn.ReLU)))
    run = tmp_path / "CartPole-v1__dqn__1__1690000000"
    run.mkdir()
    heard: list[str] = []
    agent = read(saved(net.state_dict(), run, "dqn.cleanrl_model"), LoadConfig(), lambda e: heard.append(e.text))
    assert agent.env is not None
    assert agent.env.id == "CartPole-v1"
    assert any("CartPole-v1" in text for text in heard)
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(UsageError, match="does not say what it observes"):
        read(saved(net.state_dict(), plain), LoadConfig())


def test_a_network_of_another_env(tmp_path: Path, where: Where) -> None:
    """Law: an env of another width or kind of action is refused by name."""
    net = stirred(Network(mlp(7, 120, 84, 4, activation=nn.ReLU)))
    path = saved(net.state_dict(), tmp_path)
    for observation, action in ((box((8,)), Discrete(4)), (VECTOR, Discrete(5)), (VECTOR, BOUNDED)):
        where(observation, action)
        missing(path, "--env")


def test_arguments_beside_the_weights(tmp_path: Path) -> None:
    """Law: the env that the script's own arguments name is taken; one that the user names comes first."""
    net = stirred(Network(mlp(4, 120, 84, 2, activation=nn.ReLU)))
    path = saved({"model_weights": net.state_dict(), "args": {"env_id": "CartPole-v1", "seed": 1}}, tmp_path)
    agent = read(path, LoadConfig())
    assert agent.env is not None
    assert agent.env.id == "CartPole-v1"
    strange = saved({"model_weights": net.state_dict(), "args": {"env_id": "os:CartPole-v1"}}, tmp_path)
    with pytest.raises(UsageError, match="does not say what it observes"):
        read(strange, LoadConfig())


def test_c51(tmp_path: Path, where: Where) -> None:
    """Law: the logits over atoms of C51 become Q-values, their expectations; atoms that are no list are refused."""
    where(VECTOR, Discrete(4))
    net, atoms = stirred(Network(mlp(7, 120, 84, 4 * 5, activation=nn.ReLU))), torch.linspace(-1, 3, 5)

    def c51(values: Tensor) -> Agent:
        args = {"env_id": "CartPole-v1", "n_atoms": 5}
        return read(saved({"model_weights": {**net.state_dict(), "atoms": values}, "args": args}, tmp_path))

    agent, obs = c51(atoms), np.random.default_rng(0).normal(size=(1000, 7)).astype(np.float32)
    with torch.no_grad():
        q = (net(torch.from_numpy(obs)).view(1000, 4, 5).softmax(2) * atoms).sum(2)
    torch.testing.assert_close(agent.heads(obs).q, q, atol=1e-5, rtol=1e-5)
    assert (agent.act(obs) == q.argmax(1).numpy()).all()
    assert agent.facts["algorithm"] == "C51"
    for bad in (atoms[None], atoms[:1], torch.linspace(-1, 1, 7)):
        with pytest.raises((RefusedError, UsageError)):
            c51(bad)


def test_what_is_not_read(tmp_path: Path, where: Where) -> None:
    """Law: another layer than the scripts have, and NaN weights, are refused."""
    where(VECTOR, Discrete(4))
    net = stirred(Network(mlp(7, 120, 84, 4, activation=nn.ReLU)))
    more = {**net.state_dict(), "extra.weight": torch.zeros(2)}
    bad = {**net.state_dict(), "network.0.weight": torch.full((120, 7), torch.nan)}
    for state in (more, bad):
        with pytest.raises(RefusedError):
            loaded(saved(state, tmp_path))
