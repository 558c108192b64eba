"""Train the sample teachers with Stable-Baselines3's PPO, measure them, and write their index.

    python sample_checkpoints/train.py CartPole-v1     train one agent
    python sample_checkpoints/train.py all             train all of them
    python sample_checkpoints/train.py index           measure the files and write README.md and index.json

The folders are laid out as RL Zoo lays out its own: ``<algo>/<env>_1/<env>.zip`` beside a folder ``<env>/`` with
``args.yml``, ``config.yml`` and, where observations are normalized, ``vecnormalize.pkl``. Needs the extras
``kdcli[envs,sb3]``. One thread; the same seed gives the same weights on one machine as far as torch does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
import yaml
from scipy import stats
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

HERE = Path(__file__).resolve().parent
ALGO = "ppo"
SEEDS = range(10_000, 10_100)
LICENSE = "MIT"
# What a zip does not need in order to act or to be trained on: the last rollout, and times of day.
LAST_ROLLOUT = ("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")
TRANSIENT = (*LAST_ROLLOUT, "start_time")


@dataclass(frozen=True)
class Recipe:
    """One agent: environment, length, seed and hyperparameters with RL Zoo's names and spellings.

    Schedules are stretched over ``n_timesteps``; training ends at step ``stop_at`` where that is sooner.
    """

    env: str
    what: str
    n_timesteps: int
    seed: int
    stop_at: int | None = None
    n_envs: int = 1
    normalize: bool = False
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many environment steps the agent is trained for."""
        return self.stop_at or self.n_timesteps

    def folder(self, root: Path) -> Path:
        """``<algo>/<env>_1``, RL Zoo's name for the first run of an agent."""
        return root / ALGO / f"{self.env}_1"

    def checkpoint(self, root: Path) -> Path:
        """The Stable-Baselines3 zip."""
        return self.folder(root) / f"{self.env}.zip"

    def notes(self, root: Path) -> Path:
        """The folder beside the zip: arguments, hyperparameters, observation statistics."""
        return self.folder(root) / self.env


RECIPES = (
    Recipe(
        env="CartPole-v1",
        what="Speed: the smallest useful agent, 64x64 tanh",
        n_timesteps=100_000,
        seed=1,
        n_envs=8,
        hyperparameters={
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "learning_rate": "lin_0.001",
            "clip_range": "lin_0.2",
        },
    ),
    Recipe(
        env="LunarLander-v3",
        what="Difficulty: discrete actions, 256x256 ReLU",
        n_timesteps=1_000_000,
        stop_at=500_000,
        seed=1,
        n_envs=16,
        hyperparameters={
            "n_steps": 1024,
            "batch_size": 128,
            "n_epochs": 4,
            "gamma": 0.999,
            "gae_lambda": 0.98,
            "ent_coef": 0.01,
            "learning_rate": "lin_0.0003",
            "policy_kwargs": {"net_arch": [256, 256], "activation_fn": nn.ReLU},
        },
    ),
    Recipe(
        env="HalfCheetah-v5",
        what="Continuous actions with normalized observations, 256x256 ReLU",
        n_timesteps=1_000_000,
        stop_at=500_000,
        seed=1,
        normalize=True,
        hyperparameters={
            "n_steps": 512,
            "batch_size": 64,
            "n_epochs": 20,
            "gamma": 0.98,
            "gae_lambda": 0.92,
            "clip_range": 0.1,
            "ent_coef": 0.000401762,
            "vf_coef": 0.58096,
            "max_grad_norm": 0.8,
            "learning_rate": 2.0633e-05,
            "policy_kwargs": {
                "net_arch": [256, 256],
                "activation_fn": nn.ReLU,
                "log_std_init": -2.0,
                "ortho_init": False,
            },
        },
    ),
)


def recipe_named(env: str) -> Recipe:
    """The recipe of an environment."""
    return next(recipe for recipe in RECIPES if recipe.env == env)


# -- training -------------------------------------------------------------------------------------------------


def scheduled(value: Any) -> Any:
    """RL Zoo's ``lin_0.001`` becomes a straight line from 0.001 to 0; anything else stays as it is."""
    if isinstance(value, str) and value.startswith("lin_"):
        return LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
    return value


def training_env(recipe: Recipe) -> VecEnv:
    """The environments in one process, inside VecNormalize where the recipe says so."""
    venv = make_vec_env(recipe.env, n_envs=recipe.n_envs, seed=recipe.seed)
    return VecNormalize(venv, gamma=recipe.hyperparameters["gamma"]) if recipe.normalize else venv


class StopAt(BaseCallback):
    """End the training at a step; a rollout that is not complete by then is not learned from."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        return self.num_timesteps < self.step


def trained(recipe: Recipe) -> PPO:
    """Train the agent of a recipe from nothing."""
    arguments = {name: scheduled(value) for name, value in recipe.hyperparameters.items()}
    model = PPO("MlpPolicy", training_env(recipe), seed=recipe.seed, device="cpu", verbose=1, **arguments)
    callback = StopAt(recipe.stop_at) if recipe.stop_at else None
    return model.learn(recipe.n_timesteps, callback=callback, log_interval=10)


def save(model: PPO, recipe: Recipe, seconds: float, root: Path) -> None:
    """Write the zip and the notes beside it."""
    recipe.notes(root).mkdir(parents=True, exist_ok=True)
    forget_optimizer_moments(model)
    model.save(recipe.checkpoint(root), exclude=TRANSIENT)
    if recipe.normalize:
        model.get_vec_normalize_env().save(str(recipe.notes(root) / "vecnormalize.pkl"))
    write_notes(recipe, seconds, recipe.notes(root))


def forget_optimizer_moments(model: PPO) -> None:
    """Adam's two moments are two thirds of the file and act on nothing; the empty optimizer still loads."""
    model.policy.optimizer.state.clear()


def write_notes(recipe: Recipe, seconds: float, folder: Path) -> None:
    """``args.yml`` and ``config.yml`` as RL Zoo writes them, and ``training.json`` with the time it took."""
    arguments = {"algo": ALGO, "env": recipe.env, "n_timesteps": recipe.n_timesteps, "seed": recipe.seed}
    write_zoo_yaml(folder / "args.yml", {**arguments, "num_threads": 1, "vec_env": "dummy"})
    write_zoo_yaml(folder / "config.yml", zoo_config(recipe))
    record = {"command": command(recipe), "minutes": round(seconds / 60, 1), "versions": versions()}
    write_json(folder / "training.json", record)


def zoo_config(recipe: Recipe) -> dict[str, Any]:
    """The hyperparameters under RL Zoo's keys; policy keywords are a line of Python there, and so here."""
    config = {"policy": "MlpPolicy", "n_timesteps": recipe.n_timesteps, "n_envs": recipe.n_envs}
    config |= {"normalize": True} if recipe.normalize else {}
    config |= recipe.hyperparameters
    if "policy_kwargs" in config:
        config["policy_kwargs"] = python_text(config["policy_kwargs"])
    return config


def python_text(keywords: dict[str, Any]) -> str:
    """``{"activation_fn": nn.ReLU}`` -> ``"dict(activation_fn=nn.ReLU)"``."""
    spelled = (f"{k}=nn.{v.__name__}" if isinstance(v, type) else f"{k}={v!r}" for k, v in keywords.items())
    return f"dict({', '.join(spelled)})"


def write_zoo_yaml(path: Path, values: dict[str, Any]) -> None:
    """A sorted ``OrderedDict`` dumped with its Python tag: the form every RL Zoo file has."""
    path.write_text(yaml.dump(OrderedDict(sorted(values.items()))), encoding="utf-8")


def command(recipe: Recipe) -> str:
    """What to type to train this agent again."""
    return shlex.join(["python", "sample_checkpoints/train.py", recipe.env])


def versions() -> dict[str, str]:
    """The versions a training result depends on."""
    modules = (gymnasium, stable_baselines3, torch, np)
    return {"python": platform.python_version()} | {module.__name__: module.__version__ for module in modules}


def train(recipe: Recipe, root: Path = HERE) -> None:
    """Train one agent and save it."""
    started = time.monotonic()
    model = trained(recipe)
    save(model, recipe, time.monotonic() - started, root)
    print(recipe.checkpoint(root))


# -- measuring ------------------------------------------------------------------------------------------------

Policy = Callable[[np.ndarray], Any]


def episode_return(env: gymnasium.Env, act: Policy, seed: int) -> float:
    """The undiscounted return of one episode from one reset seed."""
    obs, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        total, over = total + float(reward), terminated or truncated
    return total


def returns(env_id: str, policy_for: Callable[[gymnasium.Env], Policy], seeds: Sequence[int] = SEEDS) -> np.ndarray:
    """One return per reset seed, (E,)."""
    with gymnasium.make(env_id) as env:
        act = policy_for(env)
        return np.array([episode_return(env, act, seed) for seed in seeds])


def teacher_policy(recipe: Recipe, root: Path) -> Policy:
    """The saved agent, deterministic, with the observation statistics frozen."""
    model = PPO.load(recipe.checkpoint(root), device="cpu")
    normalized = normalizer(recipe, root)
    return lambda obs: model.predict(normalized(obs), deterministic=True)[0]


def normalizer(recipe: Recipe, root: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What VecNormalize does to an observation once training is over; nothing where there is none."""
    if not recipe.normalize:
        return lambda obs: obs
    frozen = VecNormalize.load(str(recipe.notes(root) / "vecnormalize.pkl"), make_vec_env(recipe.env))
    frozen.training = False
    return frozen.normalize_obs


def random_policy(env: gymnasium.Env) -> Policy:
    """Uniform actions, the same ones each time."""
    env.action_space.seed(SEEDS[0])
    return lambda obs: env.action_space.sample()


def summary(values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation and the 95% t-interval of the mean."""
    mean, std = float(values.mean()), float(values.std(ddof=1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * std / len(values) ** 0.5
    numbers = {"mean": mean, "std": std, "low": mean - half, "high": mean + half}
    numbers |= {"min": float(values.min()), "max": float(values.max())}
    return {name: round(number, 2) for name, number in numbers.items()}


# -- the index ------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """The hash of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(recipe: Recipe, root: Path) -> list[dict[str, Any]]:
    """The files that make the agent: the zip, and the observation statistics where there are some."""
    statistics = [recipe.notes(root) / "vecnormalize.pkl"] if recipe.normalize else []
    paths = [recipe.checkpoint(root), *statistics]
    return [
        {"path": path.relative_to(root).as_posix(), "size_bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
    ]


def actor_parameters(recipe: Recipe, root: Path) -> int:
    """Numbers in the network that acts: no critic, no exploration noise."""
    policy = PPO.load(recipe.checkpoint(root), device="cpu").policy
    actor = (policy.mlp_extractor.policy_net, policy.action_net)
    return sum(parameter.numel() for module in actor for parameter in module.parameters())


def entry(recipe: Recipe, root: Path) -> dict[str, Any]:
    """Everything the index says about one agent; the returns are measured here."""
    training = json.loads((recipe.notes(root) / "training.json").read_text(encoding="utf-8"))
    described = {"algo": ALGO, "env": recipe.env, "what": recipe.what, "files": files(recipe, root)}
    described |= {"actor_parameters": actor_parameters(recipe, root), "steps": recipe.steps}
    described |= {"seed": recipe.seed, **training, "license": LICENSE}
    teacher = returns(recipe.env, lambda env: teacher_policy(recipe, root))
    return described | {"return": summary(teacher), "random_return": summary(returns(recipe.env, random_policy))}


def write_index(root: Path = HERE) -> None:
    """Measure every agent; write ``index.json`` and ``README.md``."""
    entries = [entry(recipe, root) for recipe in RECIPES]
    measured = {"seeds": [SEEDS[0], SEEDS[-1]], "n_episodes": len(SEEDS), "deterministic": True}
    write_json(root / "index.json", {"schema": 1, "measured": measured | {"versions": versions()}, "agents": entries})
    (root / "README.md").write_text(readme(entries), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


HEADER = f"""# Sample checkpoints

Small real teachers, trained with Stable-Baselines3 by [`train.py`](train.py) and laid out as RL Zoo lays out its own.
This page and [`index.json`](index.json) are written by `python sample_checkpoints/train.py index`, which measures them.

Returns: {len(SEEDS)} episodes, actions deterministic, reset seeds {SEEDS[0]} to {SEEDS[-1]}, observation statistics
frozen; the interval is the 95% t-interval of the mean. Parameters are those of the network that acts.

| agent | return, mean ± std | 95% interval | worst | random policy | parameters | trained for |
|---|---:|---:|---:|---:|---:|---:|
"""


def readme(entries: Sequence[dict[str, Any]]) -> str:
    """The page: a table of returns, then a section for each agent."""
    return HEADER + "".join(map(row, entries)) + "".join(map(section, entries))


def row(entry: dict[str, Any]) -> str:
    """One line of the table."""
    got, random = entry["return"], entry["random_return"]
    cells = (
        f"[`{entry['files'][0]['path']}`]({entry['files'][0]['path']})",
        f"{got['mean']:,.1f} ± {got['std']:,.1f}",
        f"{got['low']:,.1f} to {got['high']:,.1f}",
        f"{got['min']:,.1f}",
        f"{random['mean']:,.1f} ± {random['std']:,.1f}",
        f"{entry['actor_parameters']:,}",
        f"{entry['steps']:,} steps, {entry['minutes']} min",
    )
    return f"| {' | '.join(cells)} |\n"


def section(entry: dict[str, Any]) -> str:
    """How one agent was made, and its files."""
    used = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
    listed = "".join(f"| `{f['path']}` | {f['size_bytes']:,} | `{f['sha256']}` |\n" for f in entry["files"])
    return (
        f"\n## {entry['algo']} {entry['env']}\n\n{entry['what']}.\n\n    {entry['command']}\n\n"
        f"Seed {entry['seed']}, {entry['steps']:,} steps, {entry['minutes']} minutes of wall time, one thread;\n"
        f"{used}.\n"
        f"License: {entry['license']}.\n\n| file | bytes | sha256 |\n|---|---:|---|\n{listed}"
    )


def main() -> None:
    """Train the agents named on the command line, or write the index."""
    parser = argparse.ArgumentParser(description="Train the sample teachers, or measure them and write the index.")
    parser.add_argument("what", choices=[*(recipe.env for recipe in RECIPES), "all", "index"])
    what = parser.parse_args().what
    torch.set_num_threads(1)
    if what == "index":
        write_index()
        return
    for recipe in RECIPES if what == "all" else [recipe_named(what)]:
        train(recipe)


if __name__ == "__main__":
    main()
