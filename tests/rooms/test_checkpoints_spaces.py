"""What an env is handed and what it gives, against Stable-Baselines3 and its VecEnv, without a cast between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_oracle import BOX, OBSERVATIONS, algorithm, default_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

from kdcli.agents.observation import plain
from kdcli.agents.states import States
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.distillation.config import DistillConfig
from kdcli.distillation.student import preprocess_for, resolve
from kdcli.envs.make import to_space
from kdcli.envs.vector import Vector
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.rollouts.evaluate import play
from kdcli.spec import EnvSpec, zeros

STEPS = 20
ENV = "Recorded-v0"
TILES = spaces.Box(0, 255, (7, 6, 3), np.uint8)
WIDE_TILES = spaces.Box(0, 255, (48, 64, 3), np.uint8)
LOOKS: dict[str, spaces.Space] = {
    **OBSERVATIONS,
    "bytes": spaces.Box(0, 255, (5,), np.uint8),
    "int64": spaces.Box(-9, 9, (4,), np.int64),
    "float64": spaces.Box(-3.0, 3.0, (2, 2), np.float64),
    "bits": spaces.MultiBinary([3, 4]),
    "cube": spaces.MultiBinary([2, 3, 2]),
    "parts": spaces.Dict(
        {
            "bits": spaces.MultiBinary([2, 3]),
            "bytes": spaces.Box(0, 200, (3,), np.uint8),
            "doubles": spaces.Box(-1.0, 1.0, (2,), np.float64),
            "mode": spaces.Discrete(3),
        }
    ),
}
DOES: dict[str, spaces.Space] = {
    **{
        name: spaces.Box(low, high, (2,), np.dtype(name).type)
        for name, low, high in (
            ("int8", -2, 3),
            ("uint8", 0, 4),
            ("int16", -2, 3),
            ("int32", -2, 3),
            ("int64", -3, 2),
            ("float16", -1.1, 2.3),
            ("float64", -0.1, 0.3),
        )
    },
    "square": spaces.Box(-0.7, 0.1, (2, 2), np.float64),
    "discrete": spaces.Discrete(4),
    "start": spaces.Discrete(4, start=2),
    "int32 choices": spaces.MultiDiscrete([3, 4], dtype=np.int32),
    "multibinary": spaces.MultiBinary(3),
}


class Recorded(gymnasium.Env):
    """Gives samples of its space as gymnasium makes them, the same for a seed, and keeps whatever it is handed."""

    handed: ClassVar[list[Any]] = []
    given: ClassVar[list[Any]] = []

    def __init__(self, look: str, does: str) -> None:
        self.observation_space = {**LOOKS, "tiles": TILES, "wide tiles": WIDE_TILES}[look]
        self.observation_space = _with_tiles(look, self.observation_space)
        self.action_space = DOES[does]
        self.handed.clear()
        self.given.clear()

    def _look(self) -> Any:
        self.given.append(self.observation_space.sample())
        return self.given[-1]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self._look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.handed.append(action.copy() if isinstance(action, np.ndarray) else action)
        self.t += 1
        return self._look(), 0.0, False, self.t >= STEPS, {}


def _with_tiles(look: str, space: spaces.Space) -> spaces.Space:
    return spaces.Dict({"image": space, "joints": BOX}) if look == "wide tiles" else space


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gymnasium.register(ENV, Recorded)
    yield
    del gymnasium.registry[ENV]


def trained(name: str, look: str, does: str, folder: Path, **settings: Any) -> Path:
    """A model with large random weights, its statistics beside it where they are `normalized`."""
    torch.manual_seed(3)
    venv: Any = DummyVecEnv([lambda: gymnasium.make(ENV, look=look, does=does)])
    if settings.pop("normalized", False):
        venv = VecNormalize(venv)
        venv.reset()
        for _ in range(4):
            venv.step(np.array([venv.action_space.sample()]))
        venv.save(str(folder / "vecnormalize.pkl"))
    extra = {"buffer_size": 10} if name in ("SAC", "TD3", "DQN") else {}
    policy = settings.pop("policy", default_policy(name, venv.observation_space))
    model = algorithm(name)(policy, venv, device="cpu", **extra, **settings)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(3.0)
    model.save(folder / "model.zip")
    return folder / "model.zip"


def by_sb3(name: str, look: str, does: str, path: Path) -> list[Any]:
    """What SB3's own loop hands to the env in one episode."""
    venv: Any = DummyVecEnv([lambda: gymnasium.make(ENV, look=look, does=does, disable_env_checker=True)])
    if (path.parent / "vecnormalize.pkl").exists():
        venv = VecNormalize.load(str(path.parent / "vecnormalize.pkl"), venv)
        venv.training = False
    model = algorithm(name).load(path, device="cpu")
    if not isinstance(venv.observation_space, spaces.Dict) and venv.observation_space.shape != (
        model.observation_space.shape
    ):
        venv = VecTransposeImage(venv)
    venv.seed(11)
    obs = venv.reset()
    for _ in range(STEPS):
        obs = venv.step(model.predict(obs, deterministic=True)[0])[0]
    return list(Recorded.handed)


def alone(obs: Any) -> dict[str, np.ndarray]:
    """One observation as the env gave it, as a batch of one of the named inputs of a file."""
    named = obs if isinstance(obs, dict) else {"obs": obs}
    return {name: np.asarray(part)[None] for name, part in named.items()}


def assert_handed_alike(name: str, look: str, does: str, path: Path) -> Any:
    """kdcli's loop hands the env what SB3's does, and its ONNX takes what the env gives and gives what it takes."""
    wanted = by_sb3(name, look, does, path)
    agent = read(path, LoadConfig(env=ENV, env_kwargs=(f"look={look}", f"does={does}")))
    vector = Vector(EnvSpec(ENV, {"look": look, "does": does}), 1)
    Recorded.handed.clear()  # by the trial of the env that was just opened
    Recorded.given.clear()
    play(agent, vector, [11])
    found, given = list(Recorded.handed), list(Recorded.given)
    assert len({str(action) for action in wanted}) > 1, "the oracle always does the same"
    for ours, theirs in zip(found, wanted, strict=True):
        assert (type(ours), ours.dtype, ours.shape) == (type(theirs), theirs.dtype, theirs.shape)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    file = convert(agent, States(np.concatenate([vector.obs, vector.obs])), ExportConfig()).agent
    for obs, theirs in zip(given, wanted, strict=False):
        [action] = file.session.run(["action"], alone(obs))
        assert (action.dtype, action[0].shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_allclose(action[0], theirs, rtol=1e-5, atol=1e-5)
        if isinstance(DOES[does], spaces.Box) and name == "PPO":
            assert DOES[does].low.min() <= action.min() <= action.max() <= DOES[does].high.max()
    return agent


@pytest.mark.parametrize("does", DOES)
def test_actions_are_handed_as_stable_baselines3_hands_them(does: str, tmp_path: Path) -> None:
    """Type, dtype, shape and value of what an env is handed are those of SB3's predict and VecEnv."""
    assert_handed_alike("PPO", "box", does, trained("PPO", "box", does, tmp_path))


@pytest.mark.parametrize("does", ["uint8", "int64", "float64", "square"])
def test_squashed_actions_are_handed_as_stable_baselines3_hands_them(does: str, tmp_path: Path) -> None:
    """So are those behind a tanh."""
    assert_handed_alike("SAC", "box", does, trained("SAC", "box", does, tmp_path))


@pytest.mark.parametrize(
    ("name", "look"), [*(("PPO", look) for look in LOOKS), *(("DQN", look) for look in ("bits", "bytes", "parts"))]
)
def test_observations_are_read_as_the_env_gives_them(name: str, look: str, tmp_path: Path) -> None:
    """A policy, and the file made of it, take each observation in the dtype in which the env gives it."""
    assert_handed_alike(name, look, "discrete", trained(name, look, "discrete", tmp_path))


@pytest.mark.parametrize("look", ["bytes", "int64", "float64", "tiles", "wide tiles"])
def test_normalized_observations_are_read_as_the_env_gives_them(look: str, tmp_path: Path) -> None:
    """VecNormalize's float space in the file does not hide that the env gives bytes, images too."""
    agent = assert_handed_alike("PPO", look, "discrete", trained("PPO", look, "discrete", tmp_path, normalized=True))
    assert not any(part.image for part in agent.preprocess.parts.values())


def test_rows_are_no_channels(tmp_path: Path) -> None:
    """A part (48, 64, 3) that a policy reads flat is numbers to a student, not an image of 48 channels."""
    agent = read(trained("PPO", "wide tiles", "discrete", tmp_path, normalized=True))
    obs = zeros(agent.observation, 4)
    assert [part.shape for part in preprocess_for(agent, obs).parts.values()] == [(48 * 64 * 3,), (3,)]
    assert resolve(DistillConfig(), agent).student == "mlp:32x32"


def test_a_student_of_a_black_box_sees_channels_first() -> None:
    """Of an image whose channels come last a student's convolutions see so many channels, and no others."""
    assert plain(to_space(WIDE_TILES)).parts["obs"].shape == (3, 48, 64)
    assert plain(to_space(spaces.Box(0, 255, (4, 84, 84), np.uint8))).parts["obs"].shape == (4, 84, 84)
