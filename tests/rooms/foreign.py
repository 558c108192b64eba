"""What the tests of foreign checkpoints share: places to act in, observations, and how far two policies are apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdcli.agents.actor import Actor
from kdcli.agents.onnx import session as runtime
from kdcli.checkpoints import user_hints as asked
from kdcli.checkpoints.blackbox import onnx_policy as foreign_onnx
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.checkpoints.user_hints import Place
from kdcli.errors import UsageError
from kdcli.progress import Note
from kdcli.spec import Box, Discrete, EnvSpec, Part, Space, box

torch.set_num_threads(1)
N = 1000
VECTOR, IMAGE = box((7,)), box((4, 84, 84), 0, 255, "uint8")
BOUNDED = box((3,), np.array([-2.0, -1.0, 0.0]), np.array([2.0, 3.0, 0.5]))
Where = Callable[[Space, Part], None]


@pytest.fixture
def where(monkeypatch: pytest.MonkeyPatch) -> Where:
    """Names the spaces of whatever env is asked for."""

    def choose(observation: Space, action: Part) -> None:
        monkeypatch.setattr(asked, "place", lambda env: Place(env, observation, action))

    return choose


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX files are run in this process alone: to try each in another one first takes half a second."""
    for module in (runtime, foreign_onnx):
        monkeypatch.setattr(module, "try_out", lambda data, source: None)


def stirred(module: nn.Module, scale: float = 0.3) -> nn.Module:
    """The module with weights and statistics that are not as initialised, ready to act."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and name not in ("action_scale", "action_bias"):
                noise = torch.randn(tensor.shape) * scale
                tensor.copy_((tensor + noise).abs() + 0.1 if "var" in name or "std" in name else tensor + noise)
    return module.eval()


def observations(space: Space, n: int = N) -> np.ndarray:
    """Random observations (n, *shape)."""
    rng = np.random.default_rng(3)
    if isinstance(space, Box) and space.dtype == "uint8":  # in blocks: noise alone looks the same to any network
        height, width = space.shape[1:]
        blocks = rng.integers(0, 256, (n, space.shape[0], height // 12 + 1, width // 12 + 1), dtype=np.uint8)
        blocks = (blocks * rng.uniform(0.0, 1.0, (n, 1, 1, 1))).astype(np.uint8)  # dark ones and bright ones
        return blocks.repeat(12, 2).repeat(12, 3)[..., :height, :width]
    return rng.normal(1.0, 2.0, (n, *space.shape)).astype(space.dtype)


def saved(value: Any, folder: Path, name: str = "model.pt") -> Path:
    """The value as torch saves it."""
    torch.save(value, folder / name)
    return folder / name


def loaded(path: Path, **said: Any) -> tuple[Actor, list[str]]:
    """The agent, in an env that is named, and what was said about it."""
    heard: list[str] = []

    def listen(event: Any) -> None:
        if isinstance(event, Note):
            heard.append(event.text)

    agent = read(path, LoadConfig(**{"env": "Some-v0", **said}), listen)
    assert agent.env == EnvSpec("Some-v0")
    return agent, heard


@torch.inference_mode()
def out(module: Callable[..., Tensor], obs: np.ndarray) -> np.ndarray:
    """What a network puts out for observations as float32."""
    return module(torch.from_numpy(obs.astype(np.float32))).numpy()


def assert_same(agent: Actor, obs: np.ndarray, wanted: np.ndarray) -> None:
    """Identical choices; real actions within 1e-5; and not the same ones everywhere."""
    ours = agent.act(obs)
    assert ours.dtype == np.dtype(agent.action.dtype)
    assert len(np.unique(ours, axis=0)) > 1
    if isinstance(agent.action, Discrete):
        np.testing.assert_array_equal(ours, wanted)
    else:
        np.testing.assert_allclose(ours, wanted.reshape(ours.shape), atol=1e-5)


def missing(path: Path, option: str, **said: Any) -> None:
    """Assert that the file is not read without the option, and that the error names it."""
    with pytest.raises(UsageError) as raised:
        loaded(path, **said)
    assert option in " ".join(raised.value.lines())


def mlp(*widths: int, activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    """Linear, activation, Linear, ..."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])
