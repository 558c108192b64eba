"""d3rlpy's `.d3`: a pickled dictionary of {torch: the networks, config: JSON, version}; the JSON describes everything.

Read from d3rlpy 2.1 to 2.8: actors that squash (SAC, TD3, DDPG, CQL, IQL, AWAC, TD3+BC, BC, ...), logits of DiscreteSAC
and DiscreteBC, Q-functions of DQN, DoubleDQN, DiscreteCQL and NFQ (mean, quantile and implicit quantile, of which the
expectation is one linear layer; ensembles are averaged). Actions are in -1..1 unless an action scaler says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.checkpoints import assembly
from kdcli.checkpoints.assembly import Part
from kdcli.checkpoints.build_agent import finish
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.d3rlpy.layers import EXPORT, encoder, expected
from kdcli.checkpoints.env_ids import Inputs
from kdcli.checkpoints.safe.containers import is_state, read_bytes
from kdcli.checkpoints.safe.pickles import decode
from kdcli.checkpoints.safe.torch_files import read_torch
from kdcli.checkpoints.safe.weights import Weights
from kdcli.checkpoints.sb3.zoo import find_env, read_surroundings
from kdcli.errors import KdcliError, RefusedError
from kdcli.networks.layers import Shape
from kdcli.progress import Listener, Note
from kdcli.spec import Box, Discrete, box

_SQUASHED = dict.fromkeys(
    ("awac", "cal_ql", "cql", "ddpg", "iql", "prdc", "rebrac", "sac", "td3", "td3_plus_bc"), "policy"
) | {"bc": "imitator"}
_LOGITS = {"discrete_sac": "policy", "discrete_bc": "imitator"}
_Q = dict.fromkeys(("dqn", "double_dqn", "discrete_cql", "nfq"), "q_funcs")
# Sampled around the mean before tanh, with a spread clamped as kdcli's is; others sample in other ways.
_GAUSSIAN = ("sac", "cql", "cal_ql")
MAX_CONFIG = 2**22  # scalers hold a number or two for each input
_DAMAGED = "copy it again; it may be damaged"


def is_d3rlpy(content: bytes, what: str) -> bool:
    """Whether a pickle is one of d3rlpy's."""
    try:
        saved = decode(content, what)
    except KdcliError:
        return False
    return isinstance(saved, dict) and {"torch", "config", "version"} <= saved.keys()


@dataclass(frozen=True, eq=False)
class Saved:
    """One file: its JSON, and the state dicts of its networks by name."""

    name: str
    described: Mapping[str, Any]
    networks: Mapping[str, Any]
    version: str

    @cached_property
    def params(self) -> Mapping[str, Any]:
        """The settings of the algorithm."""
        return self.described["config"]["params"]

    @cached_property
    def algorithm(self) -> str:
        """The name of the algorithm."""
        return str(self.described["config"]["type"])

    @cached_property
    def shape(self) -> Shape:
        """Of the observation."""
        return tuple(int(n) for n in self.described["observation_shape"])

    @cached_property
    def n_actions(self) -> int:
        """The number of actions, or of an action's dimensions."""
        return int(self.described["action_size"])


def _open(path: Path) -> Saved:
    saved = decode(read_bytes(path), path.name)
    try:
        if len(saved["config"]) > MAX_CONFIG:
            raise ValueError(f"{len(saved['config'])} letters of description")
        described = json.loads(saved["config"])
        found = Saved(path.name, described, read_torch(saved["torch"], f"{path.name}: torch"), str(saved["version"]))
        _ = found.params, found.algorithm, found.shape, found.n_actions
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RefusedError(f"{path.name}: its description cannot be read", repr(error)[:200], _DAMAGED) from None
    if not 1 <= len(found.shape) <= 3 or min(*found.shape, found.n_actions) < 1:
        raise RefusedError(f"{path.name}: its description makes no sense", f"observations of shape {found.shape}")
    return found


def read(path: Path, config: LoadConfig, listen: Listener) -> Agent:
    """The agent in the file at `path`; spaces and statistics are its own, the env is only where it plays.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, or an algorithm or encoder kdcli does not read.
    """
    saved = _open(path)
    try:
        policy, sees = _policy(saved, listen), _sees(saved)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"{path.name}: its description cannot be read", repr(error)[:200], _DAMAGED) from None
    env = find_env(path, config, read_surroundings(path), Inputs(sees.n_features), listen)
    facts = {
        "format": "d3rlpy",
        "algorithm": saved.algorithm,
        "d3rlpy_version": saved.version[:40],
        "total_params": _total(saved.networks),
        "critic_params": None,
    }
    return finish(path, sees, policy, env, facts)


def _policy(saved: Saved, listen: Listener) -> Policy:
    """The policy as the algorithm plays it greedily."""
    name = saved.algorithm
    if name in _Q:
        members = _members(Weights(_state(saved, _Q[name]), f"{saved.name}: q_funcs"), saved)
        return Policy(assembly.ensemble(saved.shape, members, saved.name), ActionRule(Discrete(saved.n_actions)), "q")
    if name in _LOGITS:
        weights = Weights(_state(saved, _LOGITS[name]), f"{saved.name}: {_LOGITS[name]}")
        parts = [*encoder(weights, "", _factory(saved, name)), assembly.linear(weights.linear("_fc"))]
        network = assembly.network(saved.shape, parts, saved.name)
        return Policy(network, ActionRule(Discrete(saved.n_actions)), "logits")
    if name in _SQUASHED:
        return _squashed(saved, listen)
    why = "it plays by sampling or by several networks" if name in _SAMPLING else "an algorithm kdcli does not know"
    known = ", ".join(sorted([*_SQUASHED, *_LOGITS, *_Q]))
    raise RefusedError(f"{saved.name}: the policy of {name[:40]} is not read", f"{why}; read: {known}", EXPORT)


_SAMPLING = ("bcq", "bear", "crr", "discrete_bcq", "plas", "plas_with_perturbation")


def _squashed(saved: Saved, listen: Listener) -> Policy:
    key = _SQUASHED[saved.algorithm]
    weights = Weights(_state(saved, key), f"{saved.name}: {key}")
    head = weights.linear("_mu" if "_mu.weight" in weights else "_fc")
    layers = encoder(weights, "", _factory(saved, saved.algorithm))
    network = assembly.network(saved.shape, [*layers, assembly.linear(head)], saved.name)
    spread = None
    if saved.algorithm in _GAUSSIAN:
        layer = weights.linear("_logstd")
        spread = Spread("linear", layer.weight, layer.bias)
    elif any(name.startswith("_logstd") for name in weights.state):
        listen(Note("its exploration noise is not one kdcli knows: it will act without noise"))
    return Policy(network, ActionRule(_action(saved), "tanh"), "mean", spread)


def _state(saved: Saved, key: str) -> Mapping[str, Tensor]:
    state = saved.networks.get(key) if isinstance(saved.networks, dict) else None
    if state is None or not is_state(state):
        why = f"written by d3rlpy {saved.version[:20]}, of which kdcli reads 2.1 and newer, or not complete"
        raise RefusedError(f"{saved.name} has no network {key!r}", why, _DAMAGED)
    return state


def _factory(saved: Saved, algorithm: str) -> Mapping[str, Any]:
    """The description of the actor's encoder."""
    names = ("encoder_factory",) if algorithm in (*_Q, "bc", "discrete_bc") else ("actor_encoder_factory",)
    found = next(saved.params[name] for name in names if name in saved.params)
    kind, params = found["type"], found["params"]
    if kind == "default":
        kind = "pixel" if len(saved.shape) == 3 else "vector"
    if kind not in ("vector", "pixel"):
        raise RefusedError(f"{saved.name}: the encoder {str(kind)[:40]} is not read", "read: vector, pixel", EXPORT)
    return {**params, "type": kind}


def _members(weights: Weights, saved: Saved) -> list[list[Part]]:
    """The Q-functions of an ensemble: encoder and expectation."""
    count = 1 + max(int(name.partition(".")[0]) for name in weights.state)
    kind = saved.params["q_func_factory"]
    described = _factory(saved, saved.algorithm)
    return [
        [*encoder(weights, f"{i}.", described), assembly.linear(expected(weights, f"{i}.", kind, saved.n_actions))]
        for i in range(count)
    ]


def _action(saved: Saved) -> Box:
    """The range of the action scaler; without one, -1 to 1 is what the policy was trained to give."""
    scaler = saved.params.get("action_scaler") or {"type": "none"}
    if scaler["type"] == "none":
        return box((saved.n_actions,), -1.0, 1.0)
    if scaler["type"] != "min_max":
        raise RefusedError(f"{saved.name}: the action scaler {str(scaler['type'])[:40]} is not read", "", EXPORT)
    low, high = (np.asarray(scaler["params"][key], np.float32) for key in ("minimum", "maximum"))
    if low.shape != (saved.n_actions,) or high.shape != low.shape or not (low < high).all():
        raise RefusedError(f"{saved.name}: its action scaler makes no sense", f"from {low} to {high}")
    return box((saved.n_actions,), low, high)


def _sees(saved: Saved) -> Preprocess:
    """Observations as its scaler reads them."""
    scaler = saved.params.get("observation_scaler") or {"type": "none"}
    kind, params = scaler["type"], scaler["params"] if scaler["type"] != "none" else {}
    space = box(saved.shape, 0, 255, "uint8") if len(saved.shape) == 3 else box(saved.shape)
    if kind in ("none", "pixel"):
        return Preprocess(space, image=kind == "pixel")
    if kind == "min_max":
        low, high = (np.asarray(params[key], np.float64) for key in ("minimum", "maximum"))
        return _normalized(saved, space, (low + high) / 2, (high - low) / 2)
    if kind == "standard":
        mean, std = (np.asarray(params[key], np.float64) for key in ("mean", "std"))
        return _normalized(saved, space, mean, std + float(params["eps"]))
    raise RefusedError(f"{saved.name}: the observation scaler {str(kind)[:40]} is not read", "", EXPORT)


def _normalized(saved: Saved, space: Box, mean: np.ndarray, scale: np.ndarray) -> Preprocess:
    usable = mean.shape == scale.shape == space.shape and np.isfinite(mean).all() and (scale > 0).all()
    if not usable or not np.isfinite(scale).all():
        raise RefusedError(f"{saved.name}: its observation scaler makes no sense", f"{mean.shape} for {space}")
    return Preprocess(space, Normalizer(mean, scale, np.inf))


def _total(networks: Mapping[str, Any]) -> int:
    """Numbers in every network of the file."""
    return sum(t.numel() for state in networks.values() if is_state(state) for t in state.values())
