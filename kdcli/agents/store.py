"""An agent as one file: weights as safetensors, everything else as JSON in its header. No pickle is ever written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli import artifact
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor
from kdcli.agents.packed_weights import held, unpack_into
from kdcli.agents.policy import Network, Policy, Spread
from kdcli.errors import RefusedError
from kdcli.networks import from_config
from kdcli.networks.mlp import MLP
from kdcli.networks.packed_weights import Packed
from kdcli.networks.stack import Stack
from kdcli.spec import Dict, EnvSpec, n_features, space_from_json, space_to_json
from kdcli.spec import parts as parts_of

SCHEMA = 2
PACKED_SCHEMA = 3  # of agents whose weights are stored as codes, which older versions do not read


def describe(agent: Agent) -> dict[str, Any]:
    """The JSON record of an agent: everything but its tensors."""
    policy, rule, packing = agent.policy, agent.policy.rule, held(agent.policy)
    return {
        "kind": "agent",
        "schema": PACKED_SCHEMA if packing else SCHEMA,
        "name": agent.name,
        "observation": space_to_json(agent.observation),
        "action": space_to_json(agent.action),
        "parts": {name: _part_config(part) for name, part in agent.preprocess.parts.items()},
        "network": policy.network.config(),
        "signal": policy.signal,
        "rule": {"squash": rule.squash, "limit": rule.limit, "masked": rule.masked},
        "quantiles": policy.quantiles,
        "spread": None if policy.spread is None else policy.spread.kind,
        "value": _value_config(policy.value),
        "env": None if agent.env is None else agent.env.to_json(),
        "facts": dict(agent.facts),
        **({"critics": [critic.config() for critic in policy.critics]} if policy.critics else {}),  # type: ignore[operator]
        **({"packing": {name: packed.describe() for name, packed in packing.items()}} if packing else {}),
    }


def _part_config(part: Preprocess) -> dict[str, Any]:
    """How one part of the observation is read; infinity as text, since JSON has none."""
    norm = part.normalizer
    clip = None if norm is None else norm.clip if np.isfinite(norm.clip) else "inf"
    columns = None if part.columns is None else list(part.columns)
    return {"image": part.image, "channels_last": part.channels_last, "normalizer_clip": clip, "columns": columns}


def tensors_of(agent: Agent) -> dict[str, np.ndarray]:
    """Name -> array of the policy and its normalizers; of packed weights, the codes and what they stand for."""
    packing = held(agent.policy)
    weights = {k: v.detach().numpy() for k, v in agent.policy.state_dict().items() if k not in packing}
    arrays = {f"policy.{k}": v for k, v in weights.items()}
    for name, packed in packing.items():
        arrays |= {f"packed.{name}.{key}": array for key, array in packed.arrays().items()}
    for name, part in agent.preprocess.parts.items():
        if part.normalizer is not None:
            arrays[f"normalizer.{name}.mean"] = part.normalizer.mean
            arrays[f"normalizer.{name}.scale"] = part.normalizer.scale
    return arrays


def save(path: Path, agent: Agent, record: Mapping[str, Any], force: bool = False) -> Path:
    """Write the agent with the `record` of how it was made (command, seed, versions, parents)."""
    return artifact.write_tensors(path, {**describe(agent), "made": dict(record)}, tensors_of(agent), force)


def load(path: Path) -> Agent:
    """Read an agent written by `save`.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, from a newer kdcli, or not an agent.
    """
    record, tensors = artifact.read_tensors(path)
    if record.get("kind") != "agent":
        raise RefusedError(f"{path} is not an agent", f"it is a {record.get('kind')}", "give an agent or a checkpoint")
    if record.get("schema") not in (SCHEMA, PACKED_SCHEMA):
        why = f"this kdcli reads {SCHEMA} and {PACKED_SCHEMA}"
        raise RefusedError(f"{path} has schema {record.get('schema')}", why, "update kdcli")
    try:
        return rebuild(record, tensors)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = (str(error) or repr(error)).splitlines()[0]
        raise RefusedError(f"{path} does not describe an agent", why, "make it again") from None


def rebuild(record: Mapping[str, Any], tensors: artifact.Tensors) -> Agent:
    """The agent that `describe` and `tensors_of` took apart."""
    weights = {k.removeprefix("policy."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith("policy.")}
    packing = _packing(record, tensors)
    weights |= {name: torch.from_numpy(packed.decoded()) for name, packed in packing.items()}
    rule = ActionRule(_action(record), **record["rule"])
    with torch.device("meta"):  # takes no memory for what the file only claims
        network = from_config(record["network"])
        value = _value(record["value"], network)
        critics = [from_config(config) for config in record.get("critics", ())]
    spread = _spread(record["spread"], weights)
    policy = Policy(network, rule, record["signal"], spread, value, int(record["quantiles"]), weights.get("atoms"))
    policy.critics.extend(critics)
    policy.load_state_dict(weights, assign=True)
    unpack_into(policy, packing)
    if record["signal"] not in (("mean",) if rule.continuous else ("logits", "q")) or policy.quantiles < 0:
        raise ValueError(f"a policy that gives {record['signal']!r} for {rule.space}")
    if not isinstance(record["name"], str) or not isinstance(record["facts"], dict):
        raise ValueError("an agent without a name or facts")
    preprocess = _preprocess(record, tensors)
    check_sizes(policy, preprocess.n_features)
    env = None if record["env"] is None else EnvSpec.from_json(record["env"])
    return Agent(preprocess, policy.eval(), record["name"], env, record["facts"])


def _packing(record: Mapping[str, Any], tensors: artifact.Tensors) -> dict[str, Packed]:
    """Parameter -> codes and what they stand for; ValueError where they make no sense."""
    told = record.get("packing", {})
    keys = ("codes", "levels", "scale", "zero")
    found = {name: {key: f"packed.{name}.{key}" for key in keys} for name in told}
    return {
        name: Packed.from_arrays(told[name], {key: tensors[at] for key, at in places.items() if at in tensors})
        for name, places in found.items()
    }


def _action(record: Mapping[str, Any]) -> Any:
    space = space_from_json(record["action"])
    if isinstance(space, Dict):
        raise ValueError("actions of a Dict")
    return space


def _preprocess(record: Mapping[str, Any], tensors: artifact.Tensors) -> Preprocessor:
    space, configs = space_from_json(record["observation"]), record["parts"]
    read = {name: _part(name, part, configs[name], tensors) for name, part in parts_of(space).items()}
    return JointPreprocess(space, read) if isinstance(space, Dict) else read.popitem()[1]


def _part(name: str, space: Any, config: Mapping[str, Any], tensors: artifact.Tensors) -> Preprocess:
    clip, normalizer = config["normalizer_clip"], None
    if clip is not None:
        mean, scale = (tensors[f"normalizer.{name}.{key}"] for key in ("mean", "scale"))
        normalizer = Normalizer(mean, scale, float(clip))
    columns = _columns(config.get("columns"), n_features(space))
    return Preprocess(space, normalizer, bool(config["image"]), bool(config["channels_last"]), columns)


def _columns(given: Any, n: int) -> tuple[int, ...] | None:
    """The features that are read, of `n`; a file that names none reads all."""
    if given is None:
        return None
    columns = tuple(int(column) for column in given)
    if not columns or columns[0] < 0 or columns[-1] >= n or any(b <= a for a, b in pairwise(columns)):
        raise ValueError(f"{len(columns)} columns that are not among {n} in rising order")
    return columns


def check_sizes(policy: Policy, features: int) -> None:
    """Raise ValueError unless the network fits the observation (`features` wide, mask included) and action spaces."""
    network, rule = policy.network, policy.rule
    seen, wanted = features - rule.n_mask, rule.n_outputs * policy.n_pooled
    if (network.inputs, network.outputs) != (seen, wanted):
        raise ValueError(f"the network maps {network.inputs} to {network.outputs}, the spaces need {seen} to {wanted}")
    for critic in policy.critics:
        if critic.inputs != seen + rule.n_outputs:
            raise ValueError(f"a critic reads {critic.inputs} numbers, the spaces have {seen} and {rule.n_outputs}")


def _value_config(value: nn.Module | None) -> dict[str, Any] | None:
    if isinstance(value, MLP | Stack):
        return value.config()
    return None if value is None else {"kind": "head"}


def _value(config: Mapping[str, Any] | None, network: Network) -> Network | nn.Linear | None:
    if config is None:
        return None
    return nn.Linear(network.head.in_features, 1) if config["kind"] == "head" else from_config(dict(config))


def _spread(kind: str | None, weights: Mapping[str, torch.Tensor]) -> Spread | None:
    if kind is None:
        return None
    if kind not in ("constant", "linear", "gsde"):
        raise ValueError(f"unknown spread {kind!r}")
    return Spread(kind, weights["spread.weight"], weights.get("spread.bias"))  # type: ignore[arg-type]
