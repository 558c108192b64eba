"""The steps of this room: a path in, an agent file or a description out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdcli import artifact
from kdcli.checkpoints.config import LoadConfig
from kdcli.checkpoints.read import find_file, read, read_any, sniff
from kdcli.progress import Listener, silent
from kdcli.spec import Box

if TYPE_CHECKING:
    from kdcli.agents.agent import Agent
    from kdcli.agents.runtime import OnnxAgent


def load(
    source: Path, output: Path, config: LoadConfig | None = None, force: bool = False, listen: Listener = silent
) -> Path:
    """Write the agent in `source` (a file or a Zoo folder) to the agent file `output`.

    Raises:
        UsageError: a file cannot be opened, or the output exists (without `force`) or cannot be written.
        RefusedError: the checkpoint is damaged, unsafe, or of a kind not read yet.
    """
    from kdcli.agents import store

    artifact.refuse_existing(output, force)
    config, file = config or LoadConfig(), find_file(source)
    agent = read(file, config, listen)
    record = {
        "command": "load",
        "config": config.recorded(),
        "versions": artifact.versions("torch", "numpy", "safetensors"),
        "parents": [artifact.parent(file)],
    }
    return store.save(output, agent, record, force)


def inspect(source: Path, config: LoadConfig | None = None, listen: Listener = silent) -> dict[str, Any]:
    """What the file `source` holds, as JSON values.

    Keys: file, format, sha256, algorithm, observation, action, env, normalizer, network, activation, rule, signals,
    actor_params, critic_params, total_params, and the remaining facts of where it came from. What a kind of file does
    not tell is None.

    Raises:
        UsageError: the file cannot be opened.
        RefusedError: it is damaged, unsafe, or of a kind not read yet.
    """
    from kdcli.agents.agent import Agent

    file = find_file(source)
    agent = read_any(file, config, listen)
    facts = agent.facts if isinstance(agent, Agent) else agent.record.get("facts", {})
    return {
        "file": file.name,
        "format": sniff(file),
        "sha256": artifact.sha256(file),
        "algorithm": facts.get("algorithm"),
        "observation": str(agent.observation),
        "action": str(agent.action),
        "env": None if agent.env is None else agent.env.to_json(),
        **(_of_agent(agent) if isinstance(agent, Agent) else _of_export(agent)),
        "critic_params": facts.get("critic_params"),
        "total_params": facts.get("total_params"),
        "facts": dict(facts),
        "made": _made(file) if sniff(file) == "native" else None,
    }


def _of_agent(agent: Agent) -> dict[str, Any]:
    network, rule, norm = agent.policy.network, agent.policy.rule, agent.preprocess.normalizer
    return {
        "normalizer": None
        if norm is None
        else {"values": norm.mean.size, "clip": norm.clip if math.isfinite(norm.clip) else None},
        "network": str(network),
        "activation": network.activation_name if network.hidden else None,
        "rule": _rule(rule.continuous, rule.squash, rule.limit),
        "signals": agent.signals(),
        "actor_params": agent.n_params,
    }


def _of_export(agent: OnnxAgent) -> dict[str, Any]:
    network, rule = agent.record["network"], agent.record["rule"]
    widths = (network["inputs"], *network["hidden"], network["outputs"])
    return {
        "normalizer": {} if agent.record["normalizer"] else None,
        "network": "-".join(map(str, widths)),
        "activation": network["activation"] if network["hidden"] else None,
        "rule": _rule(isinstance(agent.action, Box), rule["squash"], rule["limit"]),
        "signals": agent.outputs,
        "actor_params": agent.n_params,
    }


def _rule(continuous: bool, squash: str, limit: float) -> str:
    """How outputs become actions, in words."""
    if not continuous:
        return "the greatest output"
    words = "tanh, scaled to the bounds" if squash == "tanh" else "clipped to the bounds"
    return f"mean limited to {limit:g}, {words}" if limit else words


def _made(file: Path) -> dict[str, Any] | None:
    """How an agent file was made, as it says."""
    record, _ = artifact.read_tensors(file)
    return record.get("made")
