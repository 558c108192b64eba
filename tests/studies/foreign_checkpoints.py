"""Checkpoints saved by rsl_rl, skrl and d3rlpy themselves, and the same actions from kdcli.

    python tests/studies/foreign_checkpoints.py rsl_rl | skrl | d3rlpy

Each needs its package beside kdcli (rsl-rl-lib 2.1 to 5.5, skrl 1.0 to 2.1, d3rlpy 2.0 to 2.8). A line a case: how many
observations, how many discrete actions differ, the largest difference of a real one. Exit code 1 if one is above 1e-5.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdcli.agents.agent import Agent
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import read

N, OBS, ACTIONS = 1000, 7, 3
TOLERANCE = 1e-5
Case = tuple[str, Agent, Callable[[np.ndarray], np.ndarray]]


def quietly(work: Callable[[], Any]) -> Any:
    """The result of `work`, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()


def observations(n: int = N, size: int = OBS) -> np.ndarray:
    """Around 1 with a spread of 2, some of them far away."""
    return np.random.default_rng(1).normal(1.0, 2.0, (n, size)).astype(np.float32)


# rsl_rl ---------------------------------------------------------------------------------------------------------------


class Walker:
    """As much of an Isaac env as a runner needs: random observations, any action, ends at random."""

    num_envs, num_actions, num_obs, num_privileged_obs = 8, ACTIONS, OBS, None
    max_episode_length, device, cfg = 50, "cpu", {}

    def __init__(self, grouped: bool, names: tuple[str, ...] = ("policy", "critic", "teacher")) -> None:
        self.grouped, self.names = grouped, names
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.unwrapped = self

    def get_observations(self) -> Any:
        found = 1.0 + 2.0 * torch.randn(self.num_envs, OBS)
        if not self.grouped:
            return found, {"observations": {}}
        from tensordict import TensorDict

        return TensorDict(dict.fromkeys(self.names, found), batch_size=[self.num_envs])

    reset = get_observations

    def step(self, _: torch.Tensor) -> Any:
        rewards, dones = torch.randn(self.num_envs), (torch.rand(self.num_envs) < 0.1).long()
        if self.grouped:
            return self.get_observations(), rewards, dones, {}
        obs, extras = self.get_observations()
        return obs, rewards, dones, extras


PPO = {
    "class_name": "PPO",
    "value_loss_coef": 1.0,
    "use_clipped_value_loss": True,
    "clip_param": 0.2,
    "entropy_coef": 0.01,
    "num_learning_epochs": 1,
    "num_mini_batches": 2,
    "learning_rate": 1e-3,
    "schedule": "fixed",
    "gamma": 0.99,
    "lam": 0.95,
    "desired_kl": 0.01,
    "max_grad_norm": 1.0,
}
DISTILLATION = {"class_name": "Distillation", "num_learning_epochs": 1, "learning_rate": 1e-3, "gradient_length": 2}


def rsl_config(major: int, memory: tuple[str, int] | None, activation: str, normalized: bool, extra: Any) -> Any:
    """The settings of a runner of one generation."""
    rnn = {} if memory is None else {"rnn_type": memory[0], "rnn_num_layers": memory[1]}
    hidden = {"rnn_hidden_size" if major < 3 else "rnn_hidden_dim": 11} if rnn else {}
    shared = {"num_steps_per_env": 6, "save_interval": 100, "empirical_normalization": normalized, "seed": 1}
    groups = {"policy": ["policy"], "critic": ["critic"], "actor": ["policy"]}
    if major < 4:
        sizes = {"actor_hidden_dims": [16, 8], "critic_hidden_dims": [16, 8]}
        norm = {f"{role}_obs_normalization": normalized for role in ("actor", "critic")} if major == 3 else {}
        name = "ActorCriticRecurrent" if rnn else "ActorCritic"
        policy = {"class_name": name, "activation": activation, "init_noise_std": 0.7, **sizes, **norm, **rnn, **hidden}
        return {**shared, "policy": {**policy, **extra}, "algorithm": dict(PPO), "obs_groups": groups}
    base = "rsl_rl.models:RNNModel" if rnn else "rsl_rl.models:MLPModel"
    model = {"class_name": base, "hidden_dims": [16, 8], "activation": activation, "obs_normalization": normalized}
    gaussian = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": 0.7}
    spread = {"stochastic": True, "init_noise_std": 0.7} if major == 4 else {"distribution_cfg": gaussian}
    algorithm = {**PPO, "class_name": "rsl_rl.algorithms:PPO"}
    actor = {**model, **rnn, **hidden, **spread, **extra}
    critic = {**model, **rnn, **hidden, **({"stochastic": False} if major == 4 else {})}
    return {**shared, "actor": actor, "critic": critic, "algorithm": algorithm, "obs_groups": groups}


def rsl_rl() -> Iterator[Case]:
    """PPO of every kind, and the students of a distillation."""
    from rsl_rl.runners import OnPolicyRunner

    major = int(version_of("rsl-rl-lib", "rsl_rl").split(".")[0])
    kinds: list[tuple[str, int] | None] = [None, ("gru", 1), ("lstm", 1), ("lstm", 2), ("gru", 3)]
    for memory, activation, normalized in itertools.product(kinds, ("elu", "tanh"), (False, True)):
        extra = {"noise_std_type": "log"} if activation == "tanh" and (2, 2) < rsl_version() < (5,) else {}
        config = rsl_config(major, memory, activation, normalized, extra)
        runner = quietly(lambda c=config: OnPolicyRunner(Walker(major >= 3), c, tempfile.mkdtemp(), "cpu"))
        quietly(lambda r=runner: r.learn(2))
        yield rsl_case(
            runner, memory, activation, f"{memory or 'mlp'} {activation} {'normalized' if normalized else ''}"
        )
    yield from rsl_students(major)


def rsl_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version_of("rsl-rl-lib", "rsl_rl").split(".")[:2])


def rsl_case(runner: Any, memory: Any, activation: str, name: str) -> Case:
    path = Path(tempfile.mkdtemp()) / "model_2.pt"
    runner.save(str(path))
    agent = read(path, LoadConfig(activation=activation))
    policy = runner.get_inference_policy()
    return name, agent, (lambda obs: rsl_acts(runner, policy, obs, memory))


def rsl_acts(runner: Any, policy: Any, obs: np.ndarray, memory: Any) -> np.ndarray:
    """What rsl_rl's own inference policy does, (steps, envs) side by side where it remembers."""
    major = rsl_version()[0]

    def ask(rows: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(rows)
        if major < 3:
            return policy(tensor).numpy()
        from tensordict import TensorDict

        return policy(TensorDict({"policy": tensor, "critic": tensor}, batch_size=[len(rows)])).numpy()

    with torch.inference_mode():
        if memory is None:
            return ask(obs)
        own = getattr(runner.alg, "policy", None) or getattr(runner.alg, "actor_critic", None) or runner.alg
        for module in own.modules() if hasattr(own, "modules") else [policy, *policy.modules()]:
            for name in ("hidden_states", "hidden_state"):
                if hasattr(module, name):
                    setattr(module, name, None)
        return np.concatenate([ask(rows) for rows in obs.reshape(-1, 20, OBS)])


def rsl_students(major: int) -> Iterator[Case]:
    """What a distillation saves: student and teacher."""
    try:
        from rsl_rl.runners import DistillationRunner as Runner
    except ImportError:
        if rsl_version() < (2, 3):
            return
        from rsl_rl.runners import OnPolicyRunner as Runner
    config = rsl_config(major, None, "elu", True, {})
    config["algorithm"] = dict(DISTILLATION)
    if major < 4:
        sizes = {"student_hidden_dims": [16, 8], "teacher_hidden_dims": [16, 8], "activation": "elu"}
        norm = {"student_obs_normalization": True, "teacher_obs_normalization": True} if major == 3 else {}
        config["policy"] = {"class_name": "StudentTeacher", **sizes, **norm}
        config["obs_groups"] = {"policy": ["policy"], "teacher": ["teacher"]}
    else:
        config["algorithm"]["class_name"] = "rsl_rl.algorithms:Distillation"
        config["student"], config["teacher"] = config.pop("actor"), copy.deepcopy(config.pop("critic"))
        config["obs_groups"] = {"student": ["policy"], "teacher": ["teacher"]}
    runner = quietly(lambda: Runner(Walker(major >= 3), config, tempfile.mkdtemp(), "cpu"))
    if hasattr(runner.alg, "policy"):
        runner.alg.policy.loaded_teacher = True
    else:
        runner.alg.teacher_loaded = True
    quietly(lambda: runner.learn(2))
    yield rsl_case(runner, None, "elu", "student of a distillation, normalized")


# skrl -----------------------------------------------------------------------------------------------------------------


def skrl() -> Iterator[Case]:
    """Models of skrl's instantiators, in its agents."""
    import gymnasium

    from kdcli.checkpoints import user_hints as asked
    from kdcli.spec import Discrete, EnvSpec, MultiDiscrete, box

    two = skrl_version() >= (2,)
    seen = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
    kinds = {
        "gaussian": (gymnasium.spaces.Box(-1.5, 1.5, (ACTIONS,), np.float32), box((ACTIONS,), -1.5, 1.5)),
        "deterministic": (gymnasium.spaces.Box(-1.5, 1.5, (ACTIONS,), np.float32), box((ACTIONS,), -1.5, 1.5)),
        "categorical": (gymnasium.spaces.Discrete(4), Discrete(4)),
        "multicategorical": (gymnasium.spaces.MultiDiscrete([2, 3]), MultiDiscrete((2, 3))),
    }
    for kind, activation, output, normalized, shared in itertools.product(
        kinds, ("elu", "relu"), ("ACTIONS", "1.5 * tanh(ACTIONS)"), (False, True), (False, True)
    ):
        theirs, ours = kinds[kind]
        squashed = "tanh" in output
        if squashed and "categorical" in kind:
            continue
        if shared and (kind == "deterministic" or skrl_version() < (1, 3)):
            continue
        if kind == "multicategorical" and skrl_version() < (1, 4):
            continue
        models, preprocessor = (
            quietly(lambda k=kind, t=theirs, a=activation, o=output, s=shared: skrl_models(k, seen, t, a, o, s, two)),
            skrl_scaler(seen) if normalized else None,
        )
        path = Path(tempfile.mkdtemp()) / "agent_10.pt"
        stir(models.values())
        skrl_save(models, preprocessor, seen, theirs, path)
        place = asked.Place(EnvSpec("Fake-v0"), box((OBS,)), ours)
        asked_place, asked.place = asked.place, lambda _, p=place: p
        try:
            squash = "tanh" if squashed else "clip"
            agent = read(path, LoadConfig(env="Fake-v0", activation=activation, squash=squash))
        finally:
            asked.place = asked_place
        label = f"{kind} {activation} {output} {'shared ' * shared}{'normalized' * normalized}"
        yield label, agent, skrl_acts(models["policy"], preprocessor, kind, two)


def skrl_version() -> tuple[int, ...]:
    return tuple(int(part) for part in version_of("skrl", "skrl").split(".")[:2])


def skrl_save(models: Any, scaler: Any, seen: Any, acts: Any, path: Path) -> None:
    """By skrl's own PPO; a deterministic policy has none, and is saved as its agents save theirs."""
    from skrl.agents.torch import ppo

    two = skrl_version() >= (2,)
    name = "observation_preprocessor" if two else "state_preprocessor"
    settings = {} if two else copy.deepcopy(ppo.PPO_DEFAULT_CONFIG)
    settings |= {} if scaler is None else {name: type(scaler), f"{name}_kwargs": {"size": seen, "device": "cpu"}}
    spaces = {"observation_space": seen, "action_space": acts, "device": "cpu"}
    agent = quietly(lambda: ppo.PPO(models=models, cfg=settings, **spaces))
    if scaler is not None:
        getattr(agent, f"_{name}").load_state_dict(scaler.state_dict())
    agent.save(str(path))


def skrl_scaler(seen: Any) -> Any:
    from skrl.resources.preprocessors.torch import RunningStandardScaler

    scaler = RunningStandardScaler(size=seen, device="cpu")
    for _ in range(3):
        scaler(torch.from_numpy(observations(200)), train=True)
    return scaler


def skrl_models(kind: str, seen: Any, acts: Any, activation: str, output: str, shared: bool, two: bool) -> Any:
    """Policy (and the value beside it, which may be the same model)."""
    from skrl.utils.model_instantiators import torch as made

    if skrl_version() < (1, 3):
        return skrl_old_models(kind, seen, acts, activation, output, shared)
    source = "OBSERVATIONS" if two else "STATES"
    network = [{"name": "net", "input": source, "layers": [16, 8], "activations": activation}]
    spaces = {"observation_space": seen, "action_space": acts, "device": "cpu"}
    if shared:
        mixin = {"gaussian": "GaussianMixin", "categorical": "CategoricalMixin"}
        mixin["multicategorical"] = "MultiCategoricalMixin"
        model = made.shared_model(
            **spaces,
            structure=[mixin[kind], "DeterministicMixin"],
            roles=["policy", "value"],
            parameters=[{"network": network, "output": out, **SKRL_GAUSSIAN} for out in (output, "ONE")],
        )
        models = {"policy": model, "value": model}
    else:
        policy = getattr(made, f"{kind}_model")(**spaces, network=network, output=output)
        models = {"policy": policy, "value": made.deterministic_model(**spaces, network=network, output="ONE")}
    for role, model in models.items():  # layers find out how wide they are
        ready = getattr(model, "init_state_dict", None)
        ready(role=role) if ready else model.compute({"states": torch.zeros(2, OBS)}, role=role)
    return models


# Defaults, which skrl 1.3 wants to be told.
SKRL_GAUSSIAN = {
    "clip_actions": False,
    "clip_log_std": True,
    "min_log_std": -20.0,
    "max_log_std": 2.0,
    "initial_log_std": 0.0,
    "unnormalized_log_prob": True,
    "reduction": "sum",
}


def skrl_old_models(kind: str, seen: Any, acts: Any, activation: str, output: str, shared: bool) -> Any:
    """As before skrl 1.3."""
    from skrl.utils.model_instantiators import torch as made

    sizes = {"hiddens": [16, 8], "hidden_activation": [activation] * 2}
    ends: dict[str, Any] = {"output_shape": made.Shape.ACTIONS, "output_activation": None}
    if "tanh" in output:
        ends |= {"output_activation": "tanh", "output_scale": 1.5}
    spaces = {"observation_space": seen, "action_space": acts, "device": "cpu"}
    policy = getattr(made, f"{kind}_model")(**spaces, **sizes, **ends, input_shape=made.Shape.STATES)
    value = made.deterministic_model(**spaces, **sizes, input_shape=made.Shape.STATES, output_shape=made.Shape.ONE)
    return {"policy": policy, "value": value}


def skrl_acts(model: Any, scaler: Any, kind: str, two: bool) -> Callable[[np.ndarray], np.ndarray]:
    """The mean, or the most probable choice."""

    def acts(obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            seen = torch.from_numpy(obs) if scaler is None else scaler(torch.from_numpy(obs))
            out = model.compute({"observations" if two else "states": seen}, role="policy")[0]
        if kind == "categorical":
            return out.argmax(1).numpy()
        if kind == "multicategorical":
            return np.stack([part.argmax(1).numpy() for part in out.split([2, 3], 1)], 1)
        return out.clamp(-1.5, 1.5).numpy()

    return acts


# d3rlpy ---------------------------------------------------------------------------------------------------------------


def d3rlpy() -> Iterator[Case]:
    """Every algorithm that acts by one network, with encoders and scalers of every kind."""
    import d3rlpy as d3

    sys.modules.setdefault("d3rlpy", d3)
    continuous = ["SAC", "TD3", "DDPG", "CQL", "IQL", "AWAC", "TD3PlusBC", "BC", "CalQL", "ReBRAC", "PRDC"]
    discrete = ["DQN", "DoubleDQN", "DiscreteCQL", "NFQ", "DiscreteSAC", "DiscreteBC"]
    for name in continuous + discrete:
        config = getattr(d3.algos, f"{name}Config", None)
        if config is None:
            continue
        for label, factory in d3_encoders(d3).items():
            yield d3_case(d3, name, config, label, factory, name in discrete)
    yield from d3_q_functions(d3)
    if d3_knows_batch_norm(d3):
        yield from d3_pixels(d3)


def d3_knows_batch_norm(d3: Any) -> bool:
    """Whether networks with batch norm can be made; the first versions of d3rlpy 2 stop in the attempt."""
    try:
        made = d3.algos.DQNConfig(encoder_factory=d3.models.VectorEncoderFactory([4], use_batch_norm=True)).create()
        made.create_impl((OBS,), 2)
    except ValueError:
        return False
    return True


def d3_encoders(d3: Any) -> dict[str, Any]:
    vector = d3.models.VectorEncoderFactory
    gelu = "gelu" if "gelu" in inspect.getsource(d3.models.utility) else "relu"
    found = {
        "default": d3.models.DefaultEncoderFactory(),
        f"{gelu}, batch norm": vector([16, 8], activation=gelu, use_batch_norm=d3_knows_batch_norm(d3)),
        "swish, dropout": vector([16, 8], activation="swish", dropout_rate=0.2),
        "tanh": vector([16, 8], activation="tanh"),
    }
    if "use_layer_norm" in vector.__dataclass_fields__:
        found["layer norm"] = vector([16, 8], use_layer_norm=True, exclude_last_activation=True)
    if "last_activation" in vector.__dataclass_fields__:
        found["last activation"] = vector([16, 8], last_activation="tanh")
    return found


def d3_case(d3: Any, name: str, config: Any, label: str, factory: Any, discrete: bool) -> Case:
    scalers: dict[str, Any] = {}
    if label != "default":
        rows = observations(200)
        scalers["observation_scaler"] = (
            d3.preprocessing.StandardObservationScaler(mean=rows.mean(0), std=rows.std(0))
            if "tanh" in label
            else d3.preprocessing.MinMaxObservationScaler(minimum=rows.min(0), maximum=rows.max(0))
        )
        if not discrete:
            low, high = np.array([-2.0, -1.0, 0.0]), np.array([2.0, 3.0, 0.5])
            scalers["action_scaler"] = d3.preprocessing.MinMaxActionScaler(minimum=low, maximum=high)
    names = [field for field in ("actor_encoder_factory", "encoder_factory") if field in config.__dataclass_fields__]
    if name == "BC" and label == "tanh":
        scalers["policy_type"] = "stochastic"
    made = config(**{names[0]: factory}, **scalers).create(device="cpu")
    made.create_impl((OBS,), 4 if discrete else ACTIONS)
    return d3_saved(made, f"{name}: {label}", (OBS,))


def d3_saved(made: Any, label: str, shape: tuple[int, ...]) -> Case:
    stir(module for module in vars(made.impl.modules).values() if isinstance(module, torch.nn.Module))
    path = Path(tempfile.mkdtemp()) / "model.d3"
    made.save(str(path))
    return label, read(path), made.predict


def stir(modules: Iterable[torch.nn.Module]) -> None:
    """Weights and statistics that are not as initialised, so that nothing is right by chance."""
    for name, tensor in itertools.chain(*(module.state_dict().items() for module in modules)):
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape) * 0.2
            tensor.copy_((tensor + noise).abs() + 0.1 if "running_var" in name else tensor + noise)


def d3_q_functions(d3: Any) -> Iterator[Case]:
    for label, q in {
        "quantiles": d3.models.QRQFunctionFactory(n_quantiles=8),
        "implicit quantiles": d3.models.IQNQFunctionFactory(n_quantiles=8, n_greedy_quantiles=6, embed_size=5),
        "mean, shared encoder": d3.models.MeanQFunctionFactory(share_encoder=True),
    }.items():
        encoder = d3.models.VectorEncoderFactory(
            [16, 8], use_batch_norm="quantiles" in label and d3_knows_batch_norm(d3)
        )
        made = d3.algos.DQNConfig(q_func_factory=q, n_critics=3, encoder_factory=encoder).create(device="cpu")
        made.create_impl((OBS,), 4)
        yield d3_saved(made, f"DQN, 3 critics: {label}", (OBS,))


def d3_pixels(d3: Any) -> Iterator[Case]:
    scaler = d3.preprocessing.PixelObservationScaler()
    encoder = d3.models.PixelEncoderFactory([[6, 4, 2], [8, 3, 1]], feature_size=12, use_batch_norm=True)
    for name, names in {"DQN": ["encoder_factory"], "SAC": ["actor_encoder_factory", "critic_encoder_factory"]}.items():
        config = getattr(d3.algos, f"{name}Config")
        made = config(**dict.fromkeys(names, encoder), observation_scaler=scaler).create(device="cpu")
        made.create_impl((3, 20, 18), ACTIONS)
        yield d3_saved(made, f"{name}: pixels, batch norm", (3, 20, 18))


# All ------------------------------------------------------------------------------------------------------------------


def version_of(package: str, module: str) -> str:
    """Of the package that is imported, which may lie beside the installed ones."""
    import importlib
    import importlib.metadata

    folder = Path(str(importlib.import_module(module).__file__)).parents[1]
    found = [d for d in importlib.metadata.distributions(path=[str(folder)]) if d.metadata["Name"] == package]
    return found[0].version if found else version(package)


def acts(agent: Agent, obs: np.ndarray) -> np.ndarray:
    """What kdcli's agent does; where it remembers, 20 episodes side by side."""
    if not agent.state_size:
        return agent.act(obs)
    state, found = np.zeros((20, agent.state_size), np.float32), []
    for rows in obs.reshape(-1, 20, *obs.shape[1:]):
        actions, state = agent.step(rows, state)
        found.append(actions)
    return np.concatenate(found)


def main(name: str) -> int:
    """Every case of one library; 1 if one differs."""
    torch.manual_seed(3)
    torch.set_num_threads(1)
    worst, n_cases, n_different, failed = 0.0, 0, 0, False
    for label, agent, theirs in {"rsl_rl": rsl_rl, "skrl": skrl, "d3rlpy": d3rlpy}[name]():
        shape = agent.observation.shape
        images = np.random.default_rng(2).integers(0, 256, (N, *shape), dtype=np.uint8)
        obs = images if len(shape) == 3 else observations()
        ours, wanted = acts(agent, obs), np.asarray(theirs(obs))
        n_cases += 1
        if np.issubdtype(ours.dtype, np.integer):
            different = int((ours.reshape(len(obs), -1) != wanted.reshape(len(obs), -1)).any(1).sum())
            n_different, bad = n_different + different, different > 0
            found = f"{different} of {len(obs)} differ; {len(np.unique(ours, axis=0))} choices"
        else:
            difference = float(np.abs(ours - wanted.reshape(ours.shape)).max())
            worst, bad = max(worst, difference), difference > TOLERANCE
            found = f"{difference:.1e} of spread {ours.std():.2f}"
        failed |= bad
        print(f"{'FAILED ' if bad else ''}{label.strip():60} {len(obs)} observations: {found}")
    package = {"rsl_rl": "rsl-rl-lib"}.get(name, name)
    print(f"{package} {version_of(package, name)}: {n_cases} cases, worst {worst:.1e}, {n_different} choices differ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
