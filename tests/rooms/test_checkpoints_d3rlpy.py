"""d3rlpy: `.d3` files, rebuilt; the study `foreign_checkpoints` compares with files of d3rlpy itself."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import VECTOR, assert_same, observations, out, stirred
from torch import Tensor, nn

from kdcli.agents.agent import Agent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read, sniff
from kdcli.errors import RefusedError
from kdcli.spec import box

PICTURE = box((3, 20, 18), 0, 255, "uint8")
DEFAULT = {"type": "default", "params": {"activation": "relu", "use_batch_norm": False, "dropout_rate": None}}


def vector(**options: Any) -> dict[str, Any]:
    """The description of a vector encoder."""
    return {"type": "vector", "params": {"hidden_units": [16, 8], "activation": "relu", **options}}


class Encoder(nn.Module):
    """Linear, activation, batch norm, layer norm, dropout; twice."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, norms: bool = False, dropout: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in ((7, 16), (16, 8)):
            layers += [nn.Linear(a, b), activation()]
            layers += [nn.BatchNorm1d(b)] if norms else []
            layers += [nn.Dropout(0.5)] if dropout else []
        self._layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self._layers(x)


class Pixels(nn.Module):
    """Two convolutions and a linear layer, each with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self._cnn_layers = nn.Sequential(
            *(nn.Conv2d(3, 6, 4, 2), nn.ReLU(), nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, 1), nn.ReLU(), nn.BatchNorm2d(8))
        )
        self._last_layers = nn.Sequential(nn.Linear(8 * 7 * 6, 12), nn.ReLU(), nn.BatchNorm1d(12))

    def forward(self, x: Tensor) -> Tensor:
        return self._last_layers(self._cnn_layers(x).flatten(1))


class Head(nn.Module):
    """An encoder and what comes after it."""

    def __init__(self, encoder: nn.Module, hidden: int = 8, **layers: int) -> None:
        super().__init__()
        self._encoder = encoder
        for name, width in layers.items():
            setattr(self, name, nn.Linear(hidden, width))
        self.first = next(iter(layers))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.first)(self._encoder(x))


def d3(folder: Path, algorithm: str, networks: dict[str, nn.Module], shape: Any, n: int, **params: Any) -> Path:
    """A file of d3rlpy 2."""
    torch_bytes = io.BytesIO()
    torch.save({name: module.state_dict() for name, module in networks.items()}, torch_bytes)
    config = {"observation_shape": list(shape), "action_size": n, "config": {"type": algorithm, "params": params}}
    saved = {"torch": torch_bytes.getvalue(), "config": json.dumps(config), "version": "2.8.1"}
    (folder / "model.d3").write_bytes(pickle.dumps(saved))
    return folder / "model.d3"


def opened(path: Path) -> Agent:
    assert sniff(path) == "d3rlpy"
    return read(path, LoadConfig())


ACTORS = {
    "plain": (Encoder(), vector()),
    "gelu, batch norm": (Encoder(nn.GELU, norms=True), vector(activation="gelu", use_batch_norm=True)),
    "swish, dropout": (Encoder(nn.SiLU, dropout=True), vector(activation="swish", dropout_rate=0.5)),
}


@pytest.mark.parametrize("kind", ACTORS)
def test_squashed_actors(kind: str, tmp_path: Path) -> None:
    """Law: tanh of the mean, scaled as the action scaler says, else in -1..1; batch norms folded, dropout gone."""
    encoder, described = ACTORS[kind]
    policy = stirred(Head(encoder, _mu=3, _logstd=3))
    low, high = [-2.0, -1.0, 0.0], [2.0, 3.0, 0.5]
    scaler = {"type": "min_max", "params": {"minimum": low, "maximum": high}}
    obs = observations(VECTOR)
    path = d3(tmp_path, "sac", {"policy": policy}, (7,), 3, actor_encoder_factory=described, action_scaler=scaler)
    agent = opened(path)
    assert_same(agent, obs, np.array(low) + (np.tanh(out(policy, obs)) + 1) / 2 * (np.array(high) - low))
    assert agent.facts["d3rlpy_version"] == "2.8.1"
    assert agent.heads(obs[:1]).log_std is not None
    path = d3(tmp_path, "td3", {"policy": stirred(Head(encoder, _fc=3))}, (7,), 3, actor_encoder_factory=described)
    assert np.abs(opened(path).act(obs)).max() <= 1.0


@pytest.mark.parametrize(
    ("scaler", "scale"),
    [
        ({"type": "standard", "params": {"mean": [1.0] * 7, "std": [2.0] * 7, "eps": 1e-3}}, lambda x: (x - 1) / 2.001),
        ({"type": "min_max", "params": {"minimum": [-3.0] * 7, "maximum": [5.0] * 7}}, lambda x: (x + 3) / 8 * 2 - 1),
        ({"type": "none", "params": {}}, lambda x: x),
    ],
)
def test_observation_scalers(scaler: dict[str, Any], scale: Any, tmp_path: Path) -> None:
    """Law: observations are scaled as the file says."""
    net = stirred(Head(Encoder(), _fc=4))
    path = d3(tmp_path, "discrete_bc", {"imitator": net}, (7,), 4, encoder_factory=vector(), observation_scaler=scaler)
    obs = observations(VECTOR)
    assert_same(opened(path), obs, out(net, scale(obs)).argmax(1))


@pytest.mark.parametrize("kind", ["mean", "qr", "iqn"])
def test_q_functions(kind: str, tmp_path: Path) -> None:
    """Law: the mean of an ensemble, each the expectation of its Q-function: plain, quantiles, implicit quantiles."""
    n_quantiles, size = 6, 5
    layers = {"mean": {"_fc": 4}, "qr": {"_fc": 4 * n_quantiles}, "iqn": {"_fc": 4}}[kind]
    members = [stirred(Head(Encoder(norms=True), **layers), 0.2 + 0.1 * i) for i in range(3)]
    for member in members if kind == "iqn" else []:
        member._embed = nn.Linear(size, 8)
    params = {"qr": {"n_quantiles": n_quantiles}, "iqn": {"n_greedy_quantiles": n_quantiles, "embed_size": size}}
    described = {"type": kind, "params": params.get(kind, {})}
    encoder = vector(use_batch_norm=True)
    networks = {"q_funcs": nn.ModuleList(members)}
    path = d3(tmp_path, "double_dqn", networks, (7,), 4, encoder_factory=encoder, q_func_factory=described)
    obs = observations(VECTOR)
    agent = opened(path)
    wanted = np.mean([_expected(member, kind, n_quantiles, size, obs) for member in members], 0)
    np.testing.assert_allclose(agent.heads(obs).q.numpy(), wanted, atol=2e-5)
    assert (agent.act(obs) == wanted.argmax(1)).mean() > 0.999


def _expected(member: Any, kind: str, n: int, size: int, obs: np.ndarray) -> np.ndarray:
    """Q-values as d3rlpy computes them."""
    if kind != "iqn":
        found = out(member, obs)
        return found if kind == "mean" else found.reshape(len(obs), 4, n).mean(2)
    with torch.inference_mode():
        hidden = member._encoder(torch.from_numpy(obs))
        taus = torch.linspace(0, 1, n).view(1, n, 1)
        phi = torch.relu(member._embed(torch.cos(torch.pi * (torch.arange(size).float() + 1) * taus)))
        return member._fc(hidden[:, None] * phi).mean(1).numpy()


def test_pixels(tmp_path: Path) -> None:
    """Law: images / 255 where the file says so, through convolutions whose batch norms are folded."""
    net = stirred(Head(Pixels(), hidden=12, _fc=4), 0.1)
    encoder = {
        "type": "pixel",
        "params": {"filters": [[6, 4, 2], [8, 3, 1]], "feature_size": 12, "activation": "relu", "use_batch_norm": True},
    }
    q, scaler = {"type": "mean", "params": {}}, {"type": "pixel", "params": {}}
    networks = {"q_funcs": nn.ModuleList([net])}
    described = {"encoder_factory": encoder, "q_func_factory": q, "observation_scaler": scaler}
    agent = opened(d3(tmp_path, "dqn", networks, PICTURE.shape, 4, **described))
    obs = observations(PICTURE, 200)
    np.testing.assert_allclose(agent.heads(obs).q.numpy(), out(net, obs / 255.0), atol=1e-5)
    assert agent.observation.dtype == "uint8"


BROKEN: list[dict[str, Any]] = [
    {"algorithm": "plas"},
    {"algorithm": "made_up"},
    {"actor_encoder_factory": {"type": "simba", "params": {}}},
    {"actor_encoder_factory": vector(activation="geglu")},
    {"actor_encoder_factory": vector(hidden_units=[16, 8, 4])},
    {"action_scaler": {"type": "min_max", "params": {"minimum": [0.0], "maximum": [1.0]}}},
    {"observation_scaler": {"type": "standard", "params": {"mean": [0.0], "std": [1.0], "eps": 0.0}}},
    {"observation_scaler": {"type": "tuple", "params": {}}},
    {"networks": {}},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_what_is_not_read(change: dict[str, Any], tmp_path: Path) -> None:
    """Law: what samples, what is unknown and what does not fit is refused, never guessed."""
    change = dict(change)
    networks = change.pop("networks", {"policy": Head(Encoder(), _mu=3, _logstd=3)})
    algorithm = change.pop("algorithm", "sac")
    params = {"actor_encoder_factory": vector(), **change}
    with pytest.raises(RefusedError):
        opened(d3(tmp_path, algorithm, networks, (7,), 3, **params))


@pytest.mark.parametrize("config", ["", "[]", '{"config": {}}', '{"config": {"params": 3, "type": 1}}'])
def test_a_description_that_is_none(config: str, tmp_path: Path) -> None:
    """Law: any text in the place of the description ends in a refusal."""
    (tmp_path / "x.d3").write_bytes(pickle.dumps({"torch": b"", "config": config, "version": "2"}))
    with pytest.raises(RefusedError):
        opened(tmp_path / "x.d3")
