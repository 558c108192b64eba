"""Small agents of Stable-Baselines3 for the tests: what they see, and how they are compared."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_oracle import (
    ACTIONS,
    BOX,
    CNN,
    Teacher,
    fresh,
    rows,
)

from kdcli.agents.agent import Agent
from kdcli.agents.states import States
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.spec import Box

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
NATURE = CNN["features_extractor_kwargs"]
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


def copied(settings: dict[str, Any]) -> dict[str, Any]:
    """SB3 changes the arguments it is given."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in settings.items()}


def edit(path: Path, **tensors: torch.Tensor | None) -> Path:
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
