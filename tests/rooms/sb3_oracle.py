"""What Stable-Baselines3 itself does, to compare with: fresh models, and the zoo's loaded by SB3."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import needs
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from sb3_contrib.crossq.policies import CrossQPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from kdcli.agents.actor import Actor
from kdcli.agents.states import States
from kdcli.spec import MASK, OBS, join_rows, parts

ZOO_AGENTS = {
    "a2c/BipedalWalker-v3_1": "A2C",
    "ars/Hopper-v3_1": "ARS",
    "ddpg/Pendulum-v1_1": "DDPG",
    "dqn/Acrobot-v1_1": "DQN",
    "ppo/CartPole-v1_1": "PPO",
    "ppo/HalfCheetah-v3_1": "PPO",
    "qrdqn/MountainCar-v0_1": "QRDQN",
    "sac/Swimmer-v3_1": "SAC",
    "tqc/Pendulum-v1_1": "TQC",
    "trpo/LunarLanderContinuous-v2_1": "TRPO",
}
ZOO_DICT_AGENT = "her/PandaReach-v1_1"  # its env needs PyBullet
CODE_ENTRIES = ("lr_schedule", "learning_rate", "clip_range", "exploration_schedule", "delta_std_schedule")
OFF_POLICY = {"DQN", "QRDQN", "SAC", "TD3", "DDPG", "TQC", "CrossQ"}

BOX = spaces.Box(-2.0, np.array([1.0, 3.0, 2.5], np.float32))
WIDE = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
IMAGE = spaces.Box(0, 255, (1, 5, 4), np.uint8)
OBSERVATIONS: dict[str, spaces.Space] = {
    "box": BOX,
    "wide": WIDE,
    "image": IMAGE,
    "discrete": spaces.Discrete(5),
    "multidiscrete": spaces.MultiDiscrete([3, 2, 4]),
    "multibinary": spaces.MultiBinary(6),
}
ACTIONS: dict[str, spaces.Space] = {
    "box": spaces.Box(np.array([-2.0, -0.5], np.float32), np.array([2.0, 1.0], np.float32)),
    "discrete": spaces.Discrete(4),
    "multidiscrete": spaces.MultiDiscrete([3, 4]),
    "multibinary": spaces.MultiBinary(3),
}
# Small, but not so small that the last of NatureCNN's strides would not matter.
RGB = spaces.Box(0, 255, (36, 44, 3), np.uint8)
CNN = {"features_extractor_kwargs": {"features_dim": 24}}

Columns = Mapping[str, np.ndarray]  # part of an observation -> (N, *shape); `obs` is one that stands alone


def algorithm(name: str) -> type[BaseAlgorithm]:
    """The class of SB3 or sb3-contrib called `name`."""
    return getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)


class FakeEnv(gymnasium.Env):
    """Gives random observations and takes any action."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


@dataclass
class Teacher:
    """A model of SB3's, its VecNormalize if any, the file it was saved to, and what its env gives."""

    model: BaseAlgorithm
    normalize: VecNormalize | None
    path: Path
    given: spaces.Space

    def actions(self, obs: np.ndarray) -> np.ndarray:
        """Deterministic actions for raw observations, as a user of SB3 gets them."""
        return self.on({OBS: obs})

    def on(self, columns: Columns) -> np.ndarray:
        """The same for columns; one called `action_mask` says what is allowed."""
        options = {"action_masks": columns[MASK]} if MASK in columns else {}
        return self.model.predict(self.seen(columns), deterministic=True, **options)[0]

    def seen(self, columns: Columns) -> Any:
        """What the model is given: a dictionary or an array, normalised."""
        seen = {name: column for name, column in columns.items() if name != MASK}
        obs = seen if isinstance(self.given, spaces.Dict) else seen[OBS]
        return obs if self.normalize is None else self.normalize.normalize_obs(obs)

    def through(self, columns: Columns, begins: np.ndarray) -> np.ndarray:
        """Actions (T, B, ...) of a recurrent model for columns (T, B, ...); `begins` (T, B): new episodes."""
        state, found = None, []
        for t, begin in enumerate(begins):
            seen = self.seen({name: column[t] for name, column in columns.items()})
            actions, state = self.model.predict(seen, state=state, episode_start=begin, deterministic=True)
            found.append(actions)
        return np.array(found)

    def observations(self, n: int = 1000) -> np.ndarray:
        """Observations (n, *shape) of one that stands alone, as they come."""
        return self.columns(n)[OBS]

    def columns(self, n: int = 1000, seed: int = 5) -> dict[str, np.ndarray]:
        """Observations as they come: around the statistics where there are some, else from the space; and masks."""
        rng = np.random.default_rng(seed)
        alone = {OBS: self.given}
        found = {
            name: draw(space, n, rng, _statistics(self.normalize, name))
            for name, space in (self.given.spaces if isinstance(self.given, spaces.Dict) else alone).items()
        }
        masks = {MASK: draw_masks(self.model.action_space, n, rng)} if "Maskable" in type(self.model).__name__ else {}
        return {**found, **masks}


def rows(agent: Actor, columns: Columns) -> np.ndarray:
    """Columns as kdcli's raw observations (N, *shape), in the agent's own order and dtypes."""
    kinds = parts(agent.observation)
    return join_rows(agent.observation, {name: np.asarray(columns[name], kinds[name].dtype) for name in kinds})


def episodes(agent: Actor, columns: Columns, begins: np.ndarray) -> States:
    """Columns (T, B, ...) as what an agent goes through."""
    flat = {name: column.reshape(-1, *column.shape[2:]) for name, column in columns.items()}
    return States(rows(agent, flat), "given", begins.shape[1], begins.reshape(-1))


def _statistics(normalize: VecNormalize | None, part: str) -> RunningMeanStd | None:
    if normalize is None:
        return None
    return normalize.obs_rms.get(part) if isinstance(normalize.obs_rms, dict) else normalize.obs_rms


def draw(space: spaces.Space, n: int, rng: np.random.Generator, statistics: RunningMeanStd | None) -> np.ndarray:
    """(n, *shape) observations of `space`."""
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, n)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(0, space.nvec, (n, *space.shape))
    if isinstance(space, spaces.MultiBinary):
        return rng.integers(0, 2, (n, *space.shape)).astype(np.int8)
    if space.dtype == np.uint8 and len(space.shape) == 3:
        return _pictures(space.shape, n, rng)
    if space.dtype == np.uint8:
        return rng.integers(0, 256, (n, *space.shape), dtype=np.uint8)
    if statistics is not None:
        spread = rng.standard_normal((n, *space.shape)) * 1.5
        return (statistics.mean + np.sqrt(statistics.var) * spread).astype(space.dtype)
    low, high = np.maximum(space.low, -10.0), np.minimum(space.high, 10.0)
    return rng.uniform(low, high, (n, *space.shape)).astype(space.dtype)


def _pictures(shape: tuple[int, ...], n: int, rng: np.random.Generator) -> np.ndarray:
    """Images of large patches, some bright and most dark: noise would look alike to a convolution."""
    coarse = tuple(-(-size // 6) for size in shape)
    patches = rng.integers(0, 256, (n, *coarse)) * (rng.random((n, *coarse)) < 0.3)
    whole = patches.repeat(6, 1).repeat(6, 2).repeat(6, 3)[:, : shape[0], : shape[1], : shape[2]]
    return np.clip(whole + rng.normal(0, 5, whole.shape), 0, 255).astype(np.uint8)


def draw_masks(space: spaces.Space, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, M) of zeros and ones, of each choice at least one allowed."""
    if isinstance(space, spaces.MultiBinary):
        sizes = [2] * int(space.n)
    else:
        sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else space.nvec.tolist()
    groups = [(rng.random((n, size)) < 0.6).astype(np.int8) for size in sizes]
    for group, size in zip(groups, sizes, strict=True):
        group[np.arange(n), rng.integers(0, size, n)] = 1
    return np.concatenate(groups, 1)


def fresh(folder: Path, name: str, observation: spaces.Space, action: spaces.Space, **settings: Any) -> Teacher:
    """A model with random weights, saved in `folder`; `normalized`, `policy` and arguments of the algorithm.

    `normalized` is true, or names the parts of a Dict that are.
    """
    given = deepcopy(observation)  # VecNormalize changes the images of a Dict in place
    torch.manual_seed(len(name) + 7)
    rng = np.random.default_rng(3)
    env: Any = DummyVecEnv([lambda: FakeEnv(observation, action)])
    normalized = settings.pop("normalized", False)
    normalize = _normalized(env, normalized, rng) if normalized else None
    extra = {"buffer_size": 1} if name in OFF_POLICY else {}
    policy = settings.pop("policy", default_policy(name, observation))
    model = algorithm(name)(policy, normalize or env, device="cpu", **extra, **settings)
    path = folder / "model.zip"
    teacher = Teacher(model, normalize, path, given)
    with torch.no_grad():
        _randomize(model.policy)
        _spread_out(teacher)
    if name == "ARS":
        model.weights = torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()
    model.save(path)
    if normalize is not None:
        normalize.save(str(folder / "vecnormalize.pkl"))
    return teacher


def default_policy(name: str, observation: spaces.Space) -> Any:
    """The policy that reads the space: MlpPolicy, MultiInputPolicy, or one with an LSTM."""
    if name == "CrossQ":  # it has but one, and by name that is not given a Dict
        return CrossQPolicy
    kind = "MultiInput" if isinstance(observation, spaces.Dict) else "Mlp"
    return f"{kind}{'Lstm' if name == 'RecurrentPPO' else ''}Policy"


def _randomize(policy: torch.nn.Module) -> None:
    """Weights that keep the size of what goes through them; biases and statistics that are not 0 or 1."""
    for name, tensor in (*policy.named_parameters(), *policy.named_buffers()):
        noise = torch.randn(tensor.shape)
        if name.endswith("ra_var"):
            tensor.copy_(0.2 + noise**2)
        elif name.endswith("scale"):
            tensor.copy_(1.0 + 0.3 * noise)
        elif tensor.ndim > 1 and not name.endswith("log_std"):
            tensor.copy_(1.4 * noise / tensor[0].numel() ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(0.4 * noise)


def _spread_out(teacher: Teacher) -> None:
    """Scale each layer to what goes through it (Mishkin and Matas 2016): every choice is the best one somewhere, some
    actions meet their bounds, and no small difference of large numbers decides."""
    columns = {name: column for name, column in teacher.columns(200, seed=1).items() if name != MASK}
    layers: list[torch.nn.Module] = []
    _listen(teacher, columns, lambda layer, _: layers.append(layer))
    for layer in dict.fromkeys(layers):
        seen: list[torch.Tensor] = []
        _listen(teacher, columns, lambda who, out, layer=layer, seen=seen: seen.append(out) if who is layer else None)
        _rescale(layer, torch.cat(seen).transpose(0, 1).flatten(1))
    space = teacher.model.action_space
    if isinstance(space, spaces.Box):
        low, high = (torch.as_tensor(bound).flatten() for bound in (space.low, space.high))
        squashed = teacher.model.policy.squash_output
        _aim(layers[-1], -torch.ones_like(low) if squashed else low, torch.ones_like(high) if squashed else high)


def _aim(head: Any, low: torch.Tensor, high: torch.Tensor) -> None:
    """Most actions between their bounds (A,), some beyond."""
    reach = 0.35 * (high - low)
    head.weight *= reach[:, None]
    if head.bias is not None:
        head.bias.copy_(head.bias * reach + (low + high) / 2)


def _listen(teacher: Teacher, columns: Columns, told: Callable[[Any, torch.Tensor], None]) -> None:
    """Act, and tell of what every linear layer and convolution on the way puts out."""
    layers = [m for m in teacher.model.policy.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, _, out: told(layer, out)) for layer in layers]
    if "Recurrent" in type(teacher.model).__name__:  # a memory is empty at first, and fuller later
        turns = {name: column.reshape(20, 10, *column.shape[1:]) for name, column in columns.items()}
        teacher.through(turns, np.arange(20)[:, None].repeat(10, 1) == 0)
    else:
        teacher.on(columns)
    for hook in hooks:
        hook.remove()


def _rescale(layer: Any, outputs: torch.Tensor) -> None:
    """Give the outputs (channels, N) a standard deviation of 1 and a mean near 0."""
    mean, std = outputs.mean(1), outputs.std(1)
    assert (std > 1e-3).all(), "the network says the same of everything"
    layer.weight /= std.reshape(-1, *[1] * (layer.weight.ndim - 1))
    if layer.bias is not None:
        layer.bias.copy_((layer.bias - mean) / std + 0.3 * torch.randn(len(std)))


def _normalized(env: Any, which: bool | list[str], rng: np.random.Generator) -> VecNormalize:
    keys = which if isinstance(which, list) else None
    normalize = VecNormalize(env, training=False, clip_obs=4.0, epsilon=1e-6, norm_obs_keys=keys)
    for part, statistics in _each(normalize.obs_rms):
        shape = statistics.mean.shape
        statistics.mean, statistics.var = rng.normal(size=shape), rng.gamma(2.0, size=shape)
        if _is_picture(normalize, part):
            statistics.mean, statistics.var = 120 + 10 * statistics.mean, 3000 * (0.2 + statistics.var)
    return normalize


def _each(statistics: Any) -> Iterator[tuple[str, RunningMeanStd]]:
    yield from statistics.items() if isinstance(statistics, dict) else [(OBS, statistics)]


def _is_picture(normalize: VecNormalize, part: str) -> bool:
    space = normalize.observation_space
    return len((space[part] if isinstance(space, spaces.Dict) else space).shape) == 3


def zoo_teacher(folder: str) -> Teacher:
    """An agent of the zoo as SB3 loads it: modules of gym aliased, entries with byte code replaced."""
    [path] = (needs.ZOO / folder).glob("*.zip")
    name = ZOO_AGENTS.get(folder, "SAC")
    extra: dict[str, Any] = {"buffer_size": 1} if name in OFF_POLICY else {}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        for module in ("", ".spaces", ".spaces.box", ".spaces.discrete", ".spaces.dict"):
            patch.setitem(sys.modules, f"gym{module}", sys.modules[f"gymnasium{module}"])
        objects = {
            **dict.fromkeys(CODE_ENTRIES, lambda _: 0.0),
            "replay_buffer_class": None,
            "replay_buffer_kwargs": {},
        }
        model = algorithm(name).load(path, device="cpu", custom_objects=objects, **extra)
        statistics = path.with_suffix("") / "vecnormalize.pkl"
        normalize = pickle.loads(statistics.read_bytes()) if statistics.exists() else None
    if normalize is not None:
        normalize.training = False
    return Teacher(model, normalize, path, model.observation_space)
