"""An agent taken apart: a JSON record, and arrays by name. `store` puts them together again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import nn

from kdcli.agents.observation import Preprocess, Preprocessor
from kdcli.agents.packed_weights import held
from kdcli.agents.policy import Policy
from kdcli.networks.mlp import MLP
from kdcli.networks.stack import Stack
from kdcli.spec import EnvSpec, space_to_json

SCHEMA = 2
PACKED_SCHEMA = 3  # of agents whose weights are stored as codes, which older versions do not read


class Described(Protocol):
    """The parts of an agent that its file holds; `kdcli.agents.agent.Agent` has them."""

    @property
    def preprocess(self) -> Preprocessor:
        """How observations become features."""
        ...

    @property
    def policy(self) -> Policy:
        """The network and what its outputs mean."""
        ...

    @property
    def name(self) -> str:
        """What it is called in tables and records."""
        ...

    @property
    def env(self) -> EnvSpec | None:
        """The env it was trained in, where that is known."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What else is recorded about it."""
        ...


def describe(agent: Described) -> dict[str, Any]:
    """The JSON record of an agent: everything but its tensors."""
    policy, rule, packing = agent.policy, agent.policy.rule, held(agent.policy)
    return {
        "kind": "agent",
        "schema": PACKED_SCHEMA if packing else SCHEMA,
        "name": agent.name,
        "observation": space_to_json(agent.preprocess.space),
        "action": space_to_json(agent.policy.rule.space),
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


def tensors_of(agent: Described) -> dict[str, np.ndarray]:
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


def _value_config(value: nn.Module | None) -> dict[str, Any] | None:
    if isinstance(value, MLP | Stack):
        return value.config()
    return None if value is None else {"kind": "head"}
