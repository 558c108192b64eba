"""CleanRL's `.cleanrl_model`, and the state dicts that users of its scripts save themselves.

What is in the file is told by the names of its tensors, which are those of the published scripts:

dqn, c51                network.{0,2,4}                         (c51: {model_weights, args}, with its atoms)
dqn_atari, c51_atari    network.{0,2,4,7,9}: convolutions       images / 255
ppo                     actor.{0,2,4}, critic.{0,2,4}
ppo_continuous_action   actor_mean.{0,2,4}, actor_logstd, critic; observations were normalised, and then clipped to
                        +-10: statistics are not saved, but by users who save them beside the weights
ppo_atari, *_lstm       network.{0,2,4,7}, lstm, actor, critic  images / 255
ddpg, td3               (actor, critic, ...): fc1, fc2, fc_mu, action_scale, action_bias
sac                     fc1, fc2, fc_mean, fc_logstd, action_scale, action_bias
sac_atari               conv.{0,2,4}, fc1, fc_logits            images / 255

The activation of a network of the published widths is the published one, which is said; of others it must be named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer
from kdcli.agents.policy import Network, Policy, Spread
from kdcli.checkpoints import assembly
from kdcli.checkpoints.build_agent import finish
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.safe.containers import container, is_state
from kdcli.checkpoints.safe.weights import Weights
from kdcli.checkpoints.user_hints import (
    Convention,
    Place,
    Statistics,
    activations,
    channels_come_last,
    need_place,
    need_statistics,
    preprocess,
    statistics,
)
from kdcli.errors import RefusedError, UsageError
from kdcli.networks.layers import Shape
from kdcli.progress import Listener, Note
from kdcli.spec import Box, Discrete

# The convolutions of Mnih et al. 2015: kernel and stride; the file tells the kernels alone.
_NATURE = {8: 4, 4: 2, 3: 1}
_SCALE = ("action_scale", "action_bias")
# NormalizeObservation, then TransformObservation(env, lambda obs: np.clip(obs, -10, 10)).
_NORMALIZED = Convention(epsilon=1e-8, clip=10.0)


@dataclass(frozen=True, eq=False)
class Reading:
    """One file being read: its actor's tensors, what the user said, and where it acts."""

    weights: Weights
    config: LoadConfig
    place: Place
    listen: Listener

    @property
    def channels_last(self) -> bool:
        """Whether the env gives images (H, W, C)."""
        first = next((t for t in self.weights.state.values() if t.ndim == 4), None)
        return first is not None and channels_come_last(self.place.observation, int(first.shape[1]), self.config)

    @property
    def shape(self) -> Shape:
        """What the network reads: an image, or numbers side by side."""
        return assembly.image_shape(self.place.observation.shape, self.channels_last)

    def names(self, widths: tuple[int, ...], published: tuple[int, ...], activation: str) -> list[str]:
        """An activation for each hidden layer: as the user says, or as published where the widths are."""
        if self.config.activation is None and widths == published:
            self.listen(Note(f"{activation} between its layers, as in CleanRL's script; --activation names another"))
            return [activation] * len(widths)
        return activations(self.config, len(widths), self.weights.what, activation)

    def mlp(self, prefix: str, published: tuple[int, ...], activation: str) -> list[assembly.Part]:
        """The layers of a Sequential of Linear, activation, Linear, ..."""
        widths = tuple(len(layer.weight) for layer in self.weights.linears(prefix))[:-1]
        return assembly.sequential(self.weights, prefix, self.names(widths, published, activation))

    def nature(self, prefix: str) -> list[assembly.Part]:
        """Three convolutions, each with a relu, and a flatten."""
        parts: list[assembly.Part] = []
        for at in (0, 2, 4):
            kernel = self.weights.take(f"{prefix}.{at}.weight").shape[-1]
            if kernel not in _NATURE:
                why = f"{prefix}.{at} has a kernel of {kernel}; CleanRL's have 8, 4 and 3"
                raise RefusedError(f"{self.weights.what} is another network", why, "describe it in a card")
            parts += [assembly.conv2d(self.weights, f"{prefix}.{at}", _NATURE[kernel]), assembly.activation("relu")]
        return [*parts, assembly.FLATTEN]

    def network(self, parts: list[assembly.Part]) -> Network:
        """The parts as a network on the env's observations."""
        return assembly.network(self.shape, parts, self.weights.what)


def _linear(reading: Reading, name: str) -> assembly.Part:
    return assembly.linear(reading.weights.linear(name))


_RELU = assembly.activation("relu")


def _q(reading: Reading) -> Policy:
    return _of_values(reading, reading.mlp("network", (120, 84), "relu"))


def _of_values(reading: Reading, parts: list[assembly.Part]) -> Policy:
    """Q-values, or with C51's `atoms` the logits of their distributions over these returns."""
    weights = reading.weights
    atoms = weights.take("atoms") if "atoms" in weights else None
    if atoms is not None and (atoms.ndim != 1 or len(atoms) < 2):
        raise RefusedError(f"{weights.what}: atoms are of shape {tuple(atoms.shape)}", "they are a list of returns")
    return Policy(reading.network(parts), _discrete(reading), "q", atoms=atoms)


def _q_atari(reading: Reading) -> Policy:
    parts = [*reading.nature("network"), _linear(reading, "network.7"), _RELU, _linear(reading, "network.9")]
    return _of_values(reading, parts)


def _ppo(reading: Reading) -> Policy:
    actor, critic = (reading.network(reading.mlp(name, (64, 64), "tanh")) for name in ("actor", "critic"))
    return Policy(actor, _choices(reading), "logits", value=critic)


def _ppo_continuous(reading: Reading) -> Policy:
    actor, critic = (reading.network(reading.mlp(name, (64, 64), "tanh")) for name in ("actor_mean", "critic"))
    spread = Spread("constant", reading.weights.take("actor_logstd").reshape(-1))
    return Policy(actor, ActionRule(_box(reading)), "mean", spread, critic)


def _ppo_atari(reading: Reading) -> Policy:
    memory = assembly.cells(reading.weights, "lstm")
    trunk = [*reading.nature("network"), _linear(reading, "network.7"), _RELU, *memory]
    actor = reading.network([*trunk, _linear(reading, "actor")])
    return Policy(actor, _choices(reading), "logits", value=_head(reading, "critic"))


def _head(reading: Reading, name: str) -> nn.Linear:
    """A critic that is one layer on the trunk."""
    layer = reading.weights.linear(name)
    made = nn.Linear(layer.weight.shape[1], 1, device="meta")
    made.weight, made.bias = nn.Parameter(layer.weight), nn.Parameter(layer.bias)  # type: ignore[arg-type]
    return made


def _td3(reading: Reading) -> Policy:
    return _squashed(reading, "fc_mu")


def _sac(reading: Reading) -> Policy:
    reading.listen(Note("its exploration noise is left out: it will act without"))
    return _squashed(reading, "fc_mean")


def _squashed(reading: Reading, head: str) -> Policy:
    """Two hidden layers, tanh, times action_scale plus action_bias: both are the middle and half range of the env."""
    layers = [_linear(reading, name) for name in ("fc1", "fc2", head)]
    first, second = map(assembly.activation, reading.names((layers[0].outputs, layers[1].outputs), (256, 256), "relu"))
    space, (scale, bias) = _box(reading), (reading.weights.take(name).double().numpy() for name in _SCALE)
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    half, middle = (np.broadcast_to(part.reshape(-1), low.shape) for part in (scale, bias))
    if not np.allclose([middle - half, middle + half], [low, high], rtol=1e-5, atol=1e-6):
        why = f"its actions lie in {middle - half} to {middle + half}, the env's in {low} to {high}"
        raise UsageError(f"{reading.weights.what} acts in another range", why, "name the env it was trained on: --env")
    return Policy(reading.network([layers[0], first, layers[1], second, layers[2]]), ActionRule(space, "tanh"), "mean")


def _sac_atari(reading: Reading) -> Policy:
    parts = [*reading.nature("conv"), _linear(reading, "fc1"), _RELU, _linear(reading, "fc_logits")]
    return Policy(reading.network(parts), _choices(reading), "logits")


def _discrete(reading: Reading) -> ActionRule:
    if not isinstance(reading.place.action, Discrete):
        raise _other_env(reading, "it holds Q-values, one a choice")
    return ActionRule(reading.place.action)


def _choices(reading: Reading) -> ActionRule:
    if isinstance(reading.place.action, Box):
        raise _other_env(reading, "it gives probabilities of choices")
    return ActionRule(reading.place.action)


def _box(reading: Reading) -> Box:
    if not isinstance(reading.place.action, Box):
        raise _other_env(reading, "it gives real numbers")
    return reading.place.action


def _other_env(reading: Reading, why: str) -> UsageError:
    what = f"{reading.weights.what} does not act in {reading.place.env}"
    return UsageError(what, f"{why}; the env takes {reading.place.action}", "name the env it was trained on with --env")


@dataclass(frozen=True)
class Script:
    """One of CleanRL's scripts: tensors that tell it, how its policy is built, tensors that do not act."""

    algorithm: str
    tell: tuple[str, ...]
    build: Callable[[Reading], Policy]
    image: bool = False
    unneeded: tuple[str, ...] = ()
    normalized: bool = False


# The first whose tensors are all there.
SCRIPTS = (
    Script("PPO", ("actor_mean.0.weight", "actor_logstd", "critic.0.weight"), _ppo_continuous, normalized=True),
    Script("PPO", ("network.7.weight", "actor.weight", "critic.weight"), _ppo_atari, image=True),
    Script("PPO", ("actor.0.weight", "critic.0.weight"), _ppo),
    Script("DQN", ("network.9.weight", "network.7.weight"), _q_atari, image=True),
    Script("DQN", ("network.0.weight", "network.2.weight"), _q),
    Script("SAC", ("fc1.weight", "fc_mean.weight", *_SCALE), _sac, unneeded=("fc_logstd.",)),
    Script("DDPG or TD3", ("fc1.weight", "fc_mu.weight", *_SCALE), _td3),
    Script("SAC", ("conv.0.weight", "fc_logits.weight"), _sac_atari, image=True),
)


def is_cleanrl(saved: Any) -> bool:
    """Whether a container is one of CleanRL's."""
    state = _actor(saved)
    return state is not None and _script(state) is not None


def _actor(saved: Any) -> Mapping[str, Any] | None:
    """The state dict that acts: alone, the first of several, or the only one of a script beside other things."""
    if isinstance(saved, list | tuple) and saved:
        saved = saved[0]
    if is_state(saved):
        return saved
    beside = [value for value in saved.values() if is_state(value)] if isinstance(saved, dict) else []
    known = [state for state in beside if _script(state) is not None]
    return known[0] if len(known) == 1 else None


def _script(state: Mapping[str, Any]) -> Script | None:
    return next((script for script in SCRIPTS if all(name in state for name in script.tell)), None)


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the file at `path`.

    Raises:
        UsageError: env, activation or statistics are not named where the file does not tell, or do not fit.
        RefusedError: it is damaged, or another network.
    """
    saved = container(path)
    state = _actor(saved) or {}
    script = _script(state)
    assert script is not None
    weights = Weights(state, path.name)
    place = need_place(path, _with_env(config, saved), _n_inputs(state), listen)
    reading = Reading(weights, config, place, listen)
    policy = script.build(reading)
    weights.refuse_leftovers(script.unneeded)
    known = _statistics(script, config, saved, path.name, listen)
    sees = preprocess(place.observation, known.normalizer, path.name, script.image, reading.channels_last)
    facts = {
        "format": "cleanrl",
        "algorithm": "C51" if policy.atoms is not None else script.algorithm,
        "total_params": _total(saved),
        "critic_params": weights.count("critic") if any(name.startswith("critic") for name in state) else 0,
        "obs_stats": known.sha256,
    }
    return finish(path, sees, policy, place.env, facts)


def _with_env(config: LoadConfig, saved: Any) -> LoadConfig:
    """The env that the script's own arguments name, where they are in the file and the user names none."""
    args = saved.get("args") if isinstance(saved, dict) else None
    named = args.get("env_id") if isinstance(args, dict) else None
    if config.env is not None or not isinstance(named, str) or ":" in named:
        return config
    return config.model_copy(update={"env": named})


def _n_inputs(state: Mapping[str, Any]) -> int:
    """Width of the first layer that reads the observation."""
    first = next(tensor for name, tensor in state.items() if name.endswith(".weight"))
    return int(first.shape[1])


def _statistics(script: Script, config: LoadConfig, saved: Any, what: str, listen: Listener) -> Statistics:
    """Those that `--obs-stats` names, else those that lie beside the weights; of a script that normalises, one must."""
    kept = _kept(saved) if config.obs_stats is None else None
    if kept is not None:
        mean, variance = kept
        scale = np.sqrt(variance + _NORMALIZED.epsilon)
        listen(Note(f"observations are normalised by the statistics in it, and clipped to {_NORMALIZED.clip:g}"))
        return Statistics(Normalizer(mean, scale, _NORMALIZED.clip))
    if script.normalized:
        why = "CleanRL's script normalises observations and does not save how"
        return need_statistics(config, what, why, _NORMALIZED)
    return statistics(config)


def _kept(saved: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance of observations that users save: `obs_rms: {mean, var}`, or `obs_rms_mean`, `obs_rms_var`."""
    if not isinstance(saved, dict):
        return None
    inside = [value for name, value in saved.items() if "obs" in str(name) and isinstance(value, dict)]
    pairs = [(value.get("mean"), value.get("var")) for value in inside]
    names = [str(name).removesuffix("mean") for name in saved if "obs" in str(name) and str(name).endswith("mean")]
    pairs += [(saved[f"{name}mean"], saved.get(f"{name}var")) for name in names]
    found = [(_numbers(mean), _numbers(variance)) for mean, variance in pairs]
    for mean, variance in found:
        if mean is not None and variance is not None and mean.shape == variance.shape and (variance >= 0).all():
            return mean, variance
    return None


def _numbers(value: Any) -> np.ndarray | None:
    """Finite numbers in float64."""
    array = value.numpy() if isinstance(value, Tensor) else value
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return None
    return array.astype(np.float64)


def _total(saved: Any) -> int:
    """Numbers in every network of the file."""
    parts = [state for state in (saved if isinstance(saved, list | tuple) else [_actor(saved)]) if is_state(state)]
    return sum(t.numel() for state in parts for name, t in (state or {}).items() if name not in _SCALE)
