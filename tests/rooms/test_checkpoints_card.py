"""Tensors with a card beside them, the Atari teachers' cards among them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
import torch
from foreign import BOUNDED, VECTOR, Where, assert_same, loaded, missing, mlp, observations, out, saved, stirred
from foreign import where as where
from safetensors.torch import save_file
from torch import Tensor, nn

from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.errors import KdcliError, RefusedError, UsageError
from kdcli.spec import Box, Discrete, EnvSpec, Part, Space, box, space_to_json

TEACHERS = needs.TEACHERS / "atari"
PICTURE = box((2, 20, 18), 0, 255, "uint8")
TRUNK = [["linear", 16], ["tanh"], ["linear", {"out": 8}], ["tanh"]]


class Body(nn.Module):
    """A perceptron with a critic on its last hidden layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh())
        self.policy, self.critic = nn.Linear(8, outputs), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.policy(self.net(x))


class Remembers(nn.Module):
    """Convolutions and a GRU cell, as a card of the Atari teachers describes them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.gru = nn.GRUCell(200, 12)
        self.actor_linear, self.critic_linear = nn.Linear(12, 5), nn.Linear(12, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.elu(self.conv2(nn.functional.elu(self.conv1(x / 255.0))))
        h = self.gru(x.flatten(1), h)
        return self.actor_linear(h), h


def written(module: nn.Module, card: dict[str, Any], folder: Path, safe: bool = True) -> Path:
    """The module's tensors, and the card beside them."""
    (folder / "policy.json").write_text(json.dumps(card))
    if not safe:
        return saved(module.state_dict(), folder, "policy.pt")
    save_file({k: v.contiguous() for k, v in module.state_dict().items()}, folder / "policy.safetensors")
    return folder / "policy.safetensors"


def card(
    observation: Space | None, action: Part | None, module: nn.Module | None = None, **more: Any
) -> dict[str, Any]:
    """A card of `Body`."""
    told: dict[str, Any] = {"trunk": TRUNK, "heads": {"policy": "logits", "critic": "value"}, **more}
    if module is not None:
        told["tensors"] = {name: list(t.shape) for name, t in module.state_dict().items()}
    if observation is not None and action is not None:
        told |= {"observation": space_to_json(observation), "action": space_to_json(action)}
    return told


@pytest.mark.parametrize("safe", [True, False])
def test_a_perceptron(safe: bool, tmp_path: Path) -> None:
    """Law: a card alone is enough: spaces, layers, critic; no env is asked for."""
    net = stirred(Body(4))
    told = card(VECTOR, Discrete(4), net if safe else None)
    agent = read(written(net, told, tmp_path, safe), LoadConfig())
    obs = observations(VECTOR)
    assert_same(agent, obs, out(net, obs).argmax(1))
    assert agent.heads(obs).value is not None
    assert agent.facts["format"] == "card"


@pytest.mark.parametrize("squash", ["clip", "tanh"])
@pytest.mark.parametrize("spread", ["var", "std"])
def test_normalizer_and_squashing(squash: str, spread: str, tmp_path: Path) -> None:
    """Law: (x - mean) / sqrt(var + epsilon) or / (std + epsilon), clipped; the mean clipped or squashed."""
    net = stirred(Body(3))
    stats = {"mean": [1.0] * 7, spread: [2.0] * 7, "epsilon": 0.5, "clip": 1.5}
    told = card(VECTOR, BOUNDED, net, normalizer=stats, squash=squash) | {
        "heads": {"policy": "mean", "critic": "value"}
    }
    agent = read(written(net, told, tmp_path), LoadConfig())
    obs = observations(VECTOR)
    mean = out(net, np.clip((obs - 1.0) / (np.sqrt(2.5) if spread == "var" else 2.5), -1.5, 1.5))
    low, high = BOUNDED.low, BOUNDED.high
    assert_same(
        agent, obs, np.clip(mean, low, high) if squash == "clip" else low + (np.tanh(mean) + 1) / 2 * (high - low)
    )


def recurrent_card(module: nn.Module) -> dict[str, Any]:
    convolution = {"kernel": 3, "stride": 2, "padding": 1}
    return {
        "what": "recurrent actor-critic",
        "source": "made by the test",
        "trunk": [
            ["conv2d", {"out": 6, **convolution}],
            ["elu"],
            ["conv2d", {"out": 8, **convolution}],
            ["elu"],
            ["flatten"],
            ["gru_cell", 12],
        ],
        "heads": {"actor_linear": "logits", "critic_linear": "value"},
        "state": "h (1, 12), zeros at reset",
        "env": {"id": "ALE/Pong-v5", "how": "resize, divided by 255", "actions": "minimal action set"},
        "measured_return": {"sampled": "18.7 (3 games)"},
        "parameters": sum(t.numel() for t in module.parameters()),
        "tensors": {name: list(t.shape) for name, t in module.state_dict().items()},
    }


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_recurrent_card(channels_last: bool, tmp_path: Path, where: Where) -> None:
    """Law: convolutions, memory, an env that tells in words that images are divided by 255, in any layout."""
    where(box((20, 18, 2), 0, 255, "uint8") if channels_last else PICTURE, Discrete(5))
    net = stirred(Remembers())
    agent, _ = loaded(written(net, recurrent_card(net), tmp_path))
    state, h = np.zeros((4, 12), np.float32), torch.zeros(4, 12)
    for obs in observations(PICTURE, 40).reshape(10, 4, 2, 20, 18):
        with torch.inference_mode():
            logits, h = net(torch.from_numpy(obs), h)
        given = np.moveaxis(obs, 1, -1) if channels_last else obs
        np.testing.assert_allclose(agent.heads(given, state).logits.numpy(), logits, atol=1e-5)
        _, state = agent.step(given, state)
        np.testing.assert_allclose(state, h, atol=1e-5)


def test_the_cards_env(tmp_path: Path, where: Where) -> None:
    """Law: without spaces the card's env is made, unless the user names one; its words are known to be a file's."""
    where(VECTOR, Discrete(4))
    net = stirred(Body(4))
    path = written(net, card(None, None, net, env={"id": "Own-v0", "kwargs": {"a": 1}}), tmp_path)
    assert read(path, LoadConfig()).env == EnvSpec("Own-v0", {"a": 1})
    assert read(path, LoadConfig(env="Mine-v0")).env == EnvSpec("Mine-v0")
    path = written(net, card(None, None, net, env={"id": "os:Own-v0"}), tmp_path)
    found = read(path, LoadConfig()).env
    assert found is not None
    assert found.quoted == {"os:Own-v0"}
    assert read(path, LoadConfig(env="os:Own-v0")).env.quoted == frozenset()  # type: ignore[union-attr]


def test_a_module_in_the_cards_env_is_not_imported(tmp_path: Path) -> None:
    """Law: a card decides on no import; the error says how the user names the module."""
    path = written(Body(4), card(None, None, Body(4), env={"id": "os:Own-v0"}), tmp_path)
    with pytest.raises(UsageError, match=r"names code of a module.*os:Own-v0"):
        read(path, LoadConfig())


def test_an_order_that_no_file_keeps(tmp_path: Path) -> None:
    """Law: safetensors keep no order, so the card must list the tensors; a state dict has its own."""
    net = stirred(Body(4))
    with pytest.raises(UsageError, match="order"):
        read(written(net, card(VECTOR, Discrete(4)), tmp_path), LoadConfig())


BROKEN: list[dict[str, Any]] = [
    {"trunk": [["linear", 16], ["swoosh"]]},
    {"trunk": [["linear", 17], ["tanh"], ["linear", 8], ["tanh"]]},
    {"trunk": [["linear", 16], ["tanh"], ["linear", 8], ["tanh"], ["linear", 8]]},
    {"trunk": [["linear", 16], ["tanh"]]},
    {"trunk": "linear"},
    {"trunk": [["linear", 16, 3]]},
    {"heads": {"policy": "logits", "critic": "logits"}},
    {"heads": {"nowhere": "logits"}},
    {"heads": {"policy": "probabilities"}},
    {"normalizer": {"mean": 0.0}},
    {"normalizer": {"mean": [0.0], "var": [1.0, 2.0]}},
    {"normalizer": {"mean": 0.0, "std": -1.0}},
    {"observation": {"kind": "box"}},
    {"activation": "tanh"},
    {"sha256": "0" * 64},
    {"squash": "sigmoid"},
    {"action": space_to_json(Discrete(5))},
]


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_a_card_that_does_not_fit(change: dict[str, Any], tmp_path: Path) -> None:
    """Law: a card with an unknown key, layer or number, or that is another file's, is refused."""
    net = stirred(Body(4))
    with pytest.raises(RefusedError):
        read(written(net, card(VECTOR, Discrete(4), net) | change, tmp_path), LoadConfig())


@pytest.mark.parametrize("text", ["", "[1]", '{"trunk"', '{"trunk": 1}', '{"trunk": NaN}', "[" * 100_000 + '"trunk"'])
def test_a_card_that_is_none(text: str, tmp_path: Path) -> None:
    """Law: any text in the place of a card ends in three lines."""
    path = written(stirred(Body(4)), {}, tmp_path)
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(KdcliError):
        read(path, LoadConfig())


def test_a_checked_digest(tmp_path: Path) -> None:
    """Law: the digest in a card is that of the file beside it."""
    net = stirred(Body(4))
    path = written(net, card(VECTOR, Discrete(4), net), tmp_path)
    told = card(VECTOR, Discrete(4), net, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert read(written(net, told, tmp_path), LoadConfig()).name == "policy"


def test_what_does_not_act(tmp_path: Path) -> None:
    """Law: a critic of its own is left out where the card says so, and is refused where it does not."""
    net = Body(4)
    net.other = mlp(7, 4, 1)
    told = card(VECTOR, Discrete(4), stirred(net))
    inside = {name: shape for name, shape in told["tensors"].items() if not name.startswith("other.")}
    with pytest.raises(RefusedError, match="other"):
        read(written(net, told | {"tensors": inside}, tmp_path), LoadConfig())
    agent = read(written(net, told | {"unused": ["other."]}, tmp_path), LoadConfig())
    assert_same(agent, observations(VECTOR), out(net, observations(VECTOR)).argmax(1))


def test_a_mean_needs_its_rule(tmp_path: Path, where: Where) -> None:
    """Law: how a mean becomes an action is never guessed."""
    where(VECTOR, BOUNDED)
    net = stirred(Body(3))
    told = card(None, None, net) | {"heads": {"policy": "mean", "critic": "value"}}
    missing(written(net, told, tmp_path), '"squash"')


def test_an_env_without_its_wrappers(tmp_path: Path, where: Where) -> None:
    """Law: layers that do not fit what the env gives are refused with its observations, and with --wrapper named."""
    where(box((3, 20, 20), 0, 255, "uint8"), Discrete(5))
    net = stirred(Remembers())
    with pytest.raises(RefusedError, match="does not fit its env") as caught:
        read(written(net, recurrent_card(net), tmp_path), LoadConfig(env="Some-v0"))
    assert "Some-v0 are (3, 20, 20)" in caught.value.why
    assert "--wrapper" in caught.value.fix


@needs.teachers
@pytest.mark.parametrize("name", ["pong", "breakout", "pong_recurrent"])
def test_the_atari_teachers(name: str, where: Where) -> None:
    """Law: the Atari teachers are read as they are: every parameter, images / 255, memory where there is some."""
    path = TEACHERS / f"{name}.safetensors"
    told = json.loads(path.with_suffix(".json").read_text())
    space = box((1, 80, 80), 0, 255, "uint8") if "recurrent" in name else box((4, 84, 84), 0, 255, "uint8")
    where(space, Discrete(4 if name == "breakout" else 6))
    agent, _ = loaded(path)
    assert agent.facts["total_params"] == told["parameters"]
    assert agent.state_size == (256 if "recurrent" in name else 0)
    assert agent.preprocess.image
    assert isinstance(agent.observation, Box)
    rows = observations(space, 8)
    actions, _ = agent.step(rows, np.zeros((8, agent.state_size), np.float32))
    assert actions.shape == (8,)
