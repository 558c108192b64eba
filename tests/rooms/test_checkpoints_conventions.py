"""A foreign library's own order, clip and version semantics, each against that library or its published wrappers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import ClipAction, FlattenObservation, NormalizeObservation, TransformObservation
from sb3_agents import made
from sb3_oracle import BOX, algorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from torch import nn

from kdcli.agents.states import States
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read
from kdcli.envs.vector import Vector
from kdcli.errors import RefusedError, UsageError
from kdcli.exporters.config import ExportConfig
from kdcli.exporters.step import convert
from kdcli.rollouts.step_loop import stream
from kdcli.spec import EnvSpec

STEPS, EPISODES = 7, 2
ENV = "Drifting-v0"
LOOKS: dict[str, spaces.Space] = {
    "float32": spaces.Box(-9.0, 9.0, (3,), np.float32),
    "float64": spaces.Box(-9.0, 9.0, (2, 3), np.float64),
    "tiles": spaces.Box(0, 255, (3, 4, 2), np.uint8),
    "dict": spaces.Dict({"far": spaces.Box(-9.0, 9.0, (3,), np.float64), "near": spaces.Box(0, 9, (2,), np.float32)}),
}


class Drifting(gymnasium.Env):
    """Gives samples of its space, the same for a seed; takes two real numbers."""

    def __init__(self, look: str) -> None:
        self.observation_space = LOOKS[look]
        self.action_space = spaces.Box(np.array([-2.0, -0.5], np.float32), np.array([1.0, 3.0], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.observation_space.sample(), 0.0, False, self.t >= STEPS, {}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gymnasium.register(ENV, Drifting)
    yield
    del gymnasium.registry[ENV]


def played(agent: Any, spec: EnvSpec, seeds: list[int]) -> np.ndarray:
    """The agent's actions in episodes of these seeds, (episodes, STEPS, A)."""
    vector = Vector(spec, 1)
    steps = [found.action[0] for found in stream(vector, seeds, lambda turn: agent.act(turn.obs))]
    return np.array(steps).reshape(len(seeds), STEPS, -1)


def stacked(look: str, folder: Path, n: int, config_yml: str = "") -> tuple[Path, np.ndarray]:
    """PPO on frames that are normalized and then stacked, as RL Zoo does, and its actions by SB3's own loop."""
    torch.manual_seed(5)

    def venv() -> Any:
        return DummyVecEnv([lambda: gymnasium.make(ENV, look=look, disable_env_checker=True)])

    normalize = VecNormalize(venv())
    frames = VecFrameStack(normalize, n)
    frames.reset()
    for _ in range(5):
        frames.step(np.zeros((1, 2), np.float32))
    model = algorithm("PPO")(
        "MultiInputPolicy" if look == "dict" else "MlpPolicy", frames, device="cpu", policy_kwargs={"net_arch": [8]}
    )
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(2.0).add_(0.05)
    model.save(folder / "model.zip")
    normalize.save(str(folder / "vecnormalize.pkl"))
    if config_yml:
        (folder / "config.yml").write_text(config_yml)
    normalize.training = False
    found = []
    for seed in range(20, 20 + EPISODES):
        frames.seed(seed)
        obs = frames.reset()
        for _ in range(STEPS):
            found.append(model.predict(obs, deterministic=True)[0][0])
            obs = frames.step(found[-1][None])[0]
    return folder / "model.zip", np.array(found).reshape(EPISODES, STEPS, -1)


@pytest.mark.parametrize(
    ("look", "told"),
    [*((look, "user") for look in LOOKS), ("float32", "config.yml"), ("dict", "config.yml"), ("dict", "statistics")],
)
def test_frames_are_stacked_after_they_are_normalized(look: str, told: str, tmp_path: Path) -> None:
    """RL Zoo's normalize and frame_stack: statistics repeat, and what is before an episode is zero once normalized."""
    path, wanted = stacked(look, tmp_path, 3, "frame_stack: 3\nnormalize: true\n" if told == "config.yml" else "")
    given = ("frame-stack:3",) if told == "user" else ()
    agent = read(path, LoadConfig(env=ENV, env_kwargs=(f"look={look}",), wrapper=given))
    assert agent.env is not None
    found = played(agent, agent.env, [20, 21])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)
    assert np.ptp(wanted[:, :2]) > 0.01
    zeros = played(agent, EnvSpec(ENV, {"look": look}, ("frame-stack:3,axis=last",)), [20, 21])
    assert np.abs(zeros[:, 0] - wanted[:, 0]).max() > 1e-3, "raw zeros would do as well: nothing is shown"


def test_frames_that_were_cut_to_integers_are_refused(tmp_path: Path) -> None:
    """VecFrameStack keeps normalized frames in the dtype of the space: of integers nothing is left."""
    LOOKS["bytes"] = spaces.Box(0, 200, (4,), np.uint8)
    path, _ = stacked("bytes", tmp_path, 3)
    with pytest.raises(RefusedError, match="uint8"):
        read(path, LoadConfig(env=ENV, env_kwargs=("look=bytes",)))
    del LOOKS["bytes"]


def test_other_stacks_than_the_statistics_tell_are_refused(tmp_path: Path) -> None:
    """A wrapper that stacks another number of frames, or stacks before another wrapper, is told so."""
    path, _ = stacked("float32", tmp_path, 3)
    for wrappers in (("frame-stack:2",), ("frame-stack:3", "pad:2")):
        with pytest.raises(UsageError, match="frame-stack") as error:
            read(path, LoadConfig(env=ENV, env_kwargs=("look=float32",), wrapper=wrappers))
        assert "--wrapper frame-stack:3" in error.value.fix


@pytest.mark.parametrize("use_sde", [False, True])
def test_squash_output_has_a_tanh_with_gsde_alone(use_sde: bool, tmp_path: Path) -> None:
    """Without gSDE, which SB3 took until 2.1, actions are scaled to the bounds as they are, and not clipped."""
    settings = {"use_sde": True, "policy_kwargs": {"squash_output": True}} if use_sde else {}
    teacher = made(tmp_path, "PPO", BOX, **settings)
    if not use_sde:  # today's assertion is in the policy's constructor alone
        teacher.model.policy._squash_output = True
        teacher.model.policy_kwargs = {"squash_output": True}
        with torch.no_grad():
            teacher.model.policy.action_net.weight.mul_(3.0)
        teacher.model.save(teacher.path)
    agent, obs = read(teacher.path), teacher.observations(200)
    wanted = teacher.actions(obs)
    assert agent.rule.squash == ("tanh" if use_sde else "linear")
    assert use_sde or (wanted > agent.action.high).any(), "nothing leaves the bounds: a clip would do as well"
    exported = convert(agent, States(obs[:20]), ExportConfig()).agent
    for who in (agent, exported):
        np.testing.assert_allclose(who.act(obs), wanted, rtol=0, atol=2e-5)


class Continuous(nn.Module):
    """The agent of CleanRL's ppo_continuous_action, by the names of its parts."""

    def __init__(self, n_obs: int, n_actions: int) -> None:
        super().__init__()
        self.critic, self.actor_mean = (
            nn.Sequential(nn.Linear(n_obs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, n))
            for n in (1, n_actions)
        )
        self.actor_logstd = nn.Parameter(torch.zeros(1, n_actions))


def published(look: str) -> tuple[gymnasium.Env, NormalizeObservation]:
    """`make_env` of ppo_continuous_action, line by line, without videos and rewards; its statistics frozen later."""
    env: Any = gymnasium.make(ENV, look=look, disable_env_checker=True)
    env = FlattenObservation(env)
    env = ClipAction(env)
    normalize = env = NormalizeObservation(env)
    return TransformObservation(env, lambda obs: np.clip(obs, -10, 10), env.observation_space), normalize


@pytest.mark.parametrize("where", ["an npz", "obs_rms", "obs_rms_mean", "an npz with a clip"])
def test_cleanrl_clips_what_it_normalized(where: str, tmp_path: Path) -> None:
    """CleanRL's script clips normalized observations at 10, wherever its statistics were saved."""
    torch.manual_seed(2)
    net, (env, normalize) = Continuous(3, 2), published("float32")
    with torch.no_grad():
        net.actor_mean[0].weight.mul_(0.2)
    normalize.update_running_mean = False
    rms = normalize.obs_rms
    rms.mean, rms.var = np.array([0.5, -1.0, 2.0]), np.array([4.0, 1e-4, 1.0])  # one that hardly moved in training
    beside: dict[str, Any] = {}
    stats: tuple[str, ...] = ()
    if where.startswith("an npz"):
        clip = {"clip": np.array(3.0)} if where.endswith("clip") else {}
        np.savez(tmp_path / "stats.npz", mean=rms.mean, var=rms.var, **clip)
        stats = (str(tmp_path / "stats.npz"),)
    elif where == "obs_rms":
        beside = {"obs_rms": {"mean": rms.mean, "var": rms.var, "count": 1e4}}
    else:
        beside = {"obs_rms_mean": rms.mean, "obs_rms_var": rms.var, "obs_rms_count": 1e4}
    torch.save({"agent": net.state_dict(), **beside} if beside else net.state_dict(), tmp_path / "model.cleanrl_model")
    config = LoadConfig(env=ENV, env_kwargs=("look=float32",), obs_stats=stats[0] if stats else None)
    agent = read(tmp_path / "model.cleanrl_model", config)
    obs, _ = env.reset(seed=4)
    wanted, highest = [], 0.0
    for _ in range(STEPS):
        seen = np.clip(obs, -3, 3) if where.endswith("clip") else obs
        highest = max(highest, float(np.abs(obs).max()))
        with torch.no_grad():
            action = net.actor_mean(torch.tensor(seen[None], dtype=torch.float32)).numpy()[0]
        own: Any = env.unwrapped.action_space
        wanted.append(np.clip(action, own.low, own.high))  # what ClipAction hands on
        obs = env.step(action)[0]
    assert highest == 10.0
    found = played(agent, EnvSpec(ENV, {"look": "float32"}), [4])
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-6)
