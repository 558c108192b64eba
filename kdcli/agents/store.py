"""An agent as one file: weights as safetensors, everything else as JSON in its header. No pickle is ever written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kdcli import artifact
from kdcli.agents.action import ActionRule
from kdcli.agents.agent import Agent
from kdcli.agents.observation import Normalizer, Preprocess
from kdcli.agents.policy import Policy, Spread
from kdcli.errors import RefusedError
from kdcli.networks import from_config
from kdcli.networks.mlp import MLP
from kdcli.spec import EnvSpec, n_features, space_from_json, space_to_json

SCHEMA = 1


def describe(agent: Agent) -> dict[str, Any]:
    """The JSON record of an agent: everything but its tensors."""
    policy, rule, norm = agent.policy, agent.policy.rule, agent.preprocess.normalizer
    return {
        "kind": "agent",
        "schema": SCHEMA,
        "name": agent.name,
        "observation": space_to_json(agent.observation),
        "action": space_to_json(agent.action),
        "image": agent.preprocess.image,
        "normalizer_clip": None if norm is None else norm.clip if math.isfinite(norm.clip) else "inf",
        "network": policy.network.config(),
        "signal": policy.signal,
        "squash": rule.squash,
        "limit": rule.limit,
        "quantiles": policy.quantiles,
        "spread": None if policy.spread is None else policy.spread.kind,
        "value": _value_config(policy.value),
        "env": None if agent.env is None else agent.env.to_json(),
        "facts": dict(agent.facts),
    }


def tensors_of(agent: Agent) -> dict[str, np.ndarray]:
    """Name -> array of the policy and its normalizer."""
    arrays = {f"policy.{k}": v.detach().numpy() for k, v in agent.policy.state_dict().items()}
    norm = agent.preprocess.normalizer
    return arrays if norm is None else {**arrays, "normalizer.mean": norm.mean, "normalizer.scale": norm.scale}


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
    if record.get("schema") != SCHEMA:
        raise RefusedError(f"{path} has schema {record.get('schema')}", f"this kdcli reads {SCHEMA}", "update kdcli")
    try:
        return rebuild(record, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RefusedError(f"{path} does not describe an agent", str(error).splitlines()[0], "make it again") from None


def rebuild(record: Mapping[str, Any], tensors: artifact.Tensors) -> Agent:
    """The agent that `describe` and `tensors_of` took apart."""
    weights = {k.removeprefix("policy."): torch.from_numpy(v) for k, v in tensors.items() if k.startswith("policy.")}
    space = space_from_json(record["observation"])
    rule = ActionRule(space_from_json(record["action"]), record["squash"], float(record["limit"]))
    network = from_config(record["network"])
    policy = Policy(
        network,
        rule,
        record["signal"],
        _spread(record["spread"], weights),
        _value(record["value"], network),
        int(record["quantiles"]),
    )
    policy.load_state_dict(weights)
    check_sizes(policy, n_features(space))
    env = None if record["env"] is None else EnvSpec.from_json(record["env"])
    preprocess = Preprocess(space, _normalizer(record, tensors), bool(record["image"]))
    return Agent(preprocess, policy.eval(), record["name"], env, record["facts"])


def check_sizes(policy: Policy, features: int) -> None:
    """Raise ValueError unless the network fits the observation and action spaces."""
    network, wanted = policy.network, policy.rule.n_outputs * max(1, policy.quantiles)
    if (network.inputs, network.outputs) != (features, wanted):
        raise ValueError(
            f"the network maps {network.inputs} to {network.outputs}, the spaces need {features} to {wanted}"
        )


def _value_config(value: nn.Module | None) -> dict[str, Any] | None:
    if isinstance(value, MLP):
        return value.config()
    return None if value is None else {"kind": "head"}


def _value(config: Mapping[str, Any] | None, network: MLP) -> MLP | nn.Linear | None:
    if config is None:
        return None
    return nn.Linear(network.head.in_features, 1) if config["kind"] == "head" else from_config(dict(config))


def _spread(kind: str | None, weights: Mapping[str, torch.Tensor]) -> Spread | None:
    if kind is None:
        return None
    if kind not in ("constant", "linear", "gsde"):
        raise ValueError(f"unknown spread {kind!r}")
    return Spread(kind, weights["spread.weight"], weights.get("spread.bias"))  # type: ignore[arg-type]


def _normalizer(record: Mapping[str, Any], tensors: artifact.Tensors) -> Normalizer | None:
    clip = record["normalizer_clip"]
    return None if clip is None else Normalizer(tensors["normalizer.mean"], tensors["normalizer.scale"], float(clip))
