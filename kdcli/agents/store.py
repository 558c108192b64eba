"""An agent as one file: weights as safetensors, everything else as JSON in its header. No pickle is ever written."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdcli import artifact
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.description import PACKED_SCHEMA, SCHEMA, describe, tensors_of
from kdcli.agents.observation import JointPreprocess, Normalizer, Preprocess, Preprocessor
from kdcli.agents.packed_weights import unpack_into
from kdcli.agents.policy import Network, Policy, Spread
from kdcli.errors import RefusedError
from kdcli.networks import from_config
from kdcli.networks.packed_weights import Packed
from kdcli.spec import Dict, EnvSpec, handed, n_features, space_from_json
from kdcli.spec import parts as parts_of

__all__ = ["check_sizes", "describe", "load", "rebuild", "save", "tensors_of"]


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
    return handed(space)


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
    image, last = config["image"], config["channels_last"]
    if not (isinstance(image, bool) and isinstance(last, bool)) or (last and len(space.shape) != 3):
        raise ValueError(f"image {image!r} and channels_last {last!r} of observations of shape {space.shape}")
    return Preprocess(space, normalizer, image, last, columns)


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
